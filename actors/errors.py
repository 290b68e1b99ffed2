"""Every error that Orbweaver raises on purpose.

What must always hold: an error says what the operator can do next, it carries the CNI error code that a
container runtime should see (CNI spec 1.1.0, section "Error": 1-99 are reserved by the spec, 100 and above
are the plugin's), and it says whether the same request may succeed if tried again. An exception that is not
an `OrbweaverError` is a bug and stops the actor in which it happened.
"""

from __future__ import annotations

from typing import Any, ClassVar

CNI_INCOMPATIBLE_VERSION = 1
CNI_UNKNOWN_CONTAINER = 3
CNI_INVALID_ENVIRONMENT = 4
CNI_IO_FAILURE = 5
CNI_DECODE_FAILURE = 6
CNI_INVALID_CONFIG = 7
CNI_TRY_AGAIN_LATER = 11
CNI_NOT_AVAILABLE = 50
CNI_POD_REFUSED = 100
CNI_NO_ADDRESS = 101
CNI_ADDRESS_TAKEN = 102
CNI_CHECK_FAILED = 103
CNI_INTERNAL = 999


class OrbweaverError(Exception):
    """The root. `message` is one sentence or two; `details` are longer lines; `brief`, where there is one, is what of both
    is told to those who cannot take much: a CNI error and an Event (`decisions/brief.py`)."""

    cni_code: int = CNI_INTERNAL
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        details: tuple[str, ...] = (),
        cni_code: int | None = None,
        brief: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)
        self.brief = brief
        if cni_code is not None:
            self.cni_code = cni_code

    def __str__(self) -> str:
        return "; ".join((self.message, *self.details))

    def to_wire(self) -> dict[str, Any]:
        """The form in which an error crosses a process boundary; `from_wire` is its inverse."""
        return {
            "type": type(self).__name__,
            "message": self.message,
            "details": list(self.details),
            "code": self.cni_code,
            "brief": self.brief,
            **self.facts(),
        }

    def facts(self) -> dict[str, bool | int | str]:
        """What a class knows beyond the common fields: its attributes of these names, which keep their types."""
        return {}


class InvalidRequest(OrbweaverError):
    """A CNI request that cannot be understood: environment, JSON, version or network configuration."""

    cni_code = CNI_INVALID_CONFIG


class InvalidObject(OrbweaverError):
    """An object that the API refuses: names the field, the rule and the value."""

    cni_code = CNI_INVALID_CONFIG


class DamagedObject(InvalidObject):
    """What the store holds cannot be read: nothing is decided on it, and nothing of it is overwritten."""


class TooLarge(InvalidObject):
    """The store does not take an object because of its size."""


class WriteRefused(OrbweaverError):
    """The store does not take what is to be recorded, whatever its address: a CRD of another version, an admission policy,
    a quota. Once that is mended the same request succeeds."""

    cni_code = CNI_TRY_AGAIN_LATER
    retryable = True


class PodRefused(OrbweaverError):
    """The pod itself is the reason: it does not exist, has ended, or its annotations are broken."""

    cni_code = CNI_POD_REFUSED


class NoAddress(OrbweaverError):
    """No pool can give this pod an address; `details` has one line for each pool considered."""

    cni_code = CNI_NO_ADDRESS


class PoolUsedUp(NoAddress):
    """One pool has nothing to give: how many of its addresses are in use, reserved (SpiderReservedIP), in quarantine, or
    under damaged blocks or records. `worth_waiting`: an address is on its way back that nobody waits for yet; `waited`: a
    clause on that for messages."""

    pool = ""
    in_use = reserved = quarantined = unusable = 0
    worth_waiting = False
    waited = ""

    def facts(self) -> dict[str, bool | int | str]:
        names = ("pool", "in_use", "reserved", "quarantined", "unusable", "worth_waiting", "waited")
        return {name: getattr(self, name) for name in names}


class PoolsExhausted(NoAddress):
    """Pools may serve the pod, and none of them has an address to give."""


class SubnetsExhausted(NoAddress):
    """No subnet that the pod's application names has an address left for it."""


class TakeoverUnfinished(OrbweaverError):
    """A takeover from another IPAM, or the way back, cannot go on: says what is waited for. What was done stays, and the
    same command goes on from there."""


class PoolNotReady(OrbweaverError):
    """The pool of the pod's application is not made yet, or the leader that makes it is not there."""

    cni_code = CNI_TRY_AGAIN_LATER
    retryable = True


class AddressesReturning(PoolsExhausted):
    """Nothing is free, and some addresses are on their way back: the same request may have one if it waits."""


class AddressTaken(NoAddress):
    """The one address that is asked for cannot be given: it is recorded for somebody else, another host uses it, or no
    pool may give it. Raised where an exact address is asked for (`allocation/reservation.py`), where the wire shows another
    host (`allocation/conflict_detection.py`), and by the coordinator, which finds one later."""

    cni_code = CNI_ADDRESS_TAKEN


class CheckFailed(OrbweaverError):
    """CNI CHECK found that what was recorded and what is asked for differ."""

    cni_code = CNI_CHECK_FAILED


class Overloaded(OrbweaverError):
    """A mailbox or a queue is full; nothing was done."""

    cni_code = CNI_TRY_AGAIN_LATER
    retryable = True


class DeadlineExceeded(OrbweaverError):
    """The request's time is over. What was already under way is finished or undone behind it."""

    cni_code = CNI_TRY_AGAIN_LATER
    retryable = True


class Withdrawn(OrbweaverError):
    """Nobody wants the answer any more: the client hung up, or the sandbox is being deleted; nothing was done."""

    cni_code = CNI_TRY_AGAIN_LATER
    retryable = True


class NetworkNotReady(OrbweaverError):
    """The network segment is not as an address needs it: no carrier, a silent gateway, or unknown hosts on one address
    after the other."""

    cni_code = CNI_TRY_AGAIN_LATER
    retryable = True


class PeerLost(OrbweaverError):
    """The actor crashed or the connection to its process broke; whether the call took effect is unknown."""

    cni_code = CNI_TRY_AGAIN_LATER
    retryable = True


class ProtocolError(OrbweaverError):
    """A peer sent what is not a message of ours; the connection is closed."""


class MessageDropped(OrbweaverError):
    """The actor crashed on this very message twice: a bug, which its log shows. It is not handled again for a while."""


class Unsendable(ProtocolError):
    """A message of ours cannot travel: it is larger than a frame, or holds what has no encoding. That is the fault of the
    one request, and says nothing of the connection or of who is at its other end."""


class PeerRefused(OrbweaverError):
    """A peer has not shown who it is, or asked for what is not its own; nothing was done."""


class StoreUnavailable(OrbweaverError):
    """The store did not answer or could not write. `maybe_written`: the write may have taken place."""

    cni_code = CNI_TRY_AGAIN_LATER
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        details: tuple[str, ...] = (),
        cni_code: int | None = None,
        maybe_written: bool = True,
        brief: str = "",
    ) -> None:
        super().__init__(message, details=details, cni_code=cni_code, brief=brief)
        self.maybe_written = maybe_written

    def facts(self) -> dict[str, bool | int | str]:
        return {"maybe_written": self.maybe_written}


class NoSuchResource(StoreUnavailable):
    """The API server has no such kind of object: its CRD is not installed, or the server is too old."""


class NotAllowed(StoreUnavailable):
    """The API server does not let this process ask that."""


class AskedToEnd(OrbweaverError):
    """The process is to end before it has started; nothing is wrong."""


class NotFound(OrbweaverError):
    """The store has no such object."""


class Conflict(OrbweaverError):
    """A compare-and-swap lost: the object changed, exists already, or is not the one that was meant."""

    retryable = True


class WatchExpired(OrbweaverError):
    """The store no longer has the events since that version: list again (HTTP 410 in Kubernetes)."""

    retryable = True


def _every(root: type[OrbweaverError]) -> dict[str, type[OrbweaverError]]:
    errors = {root.__name__: root}
    for child in root.__subclasses__():
        errors.update(_every(child))
    return errors


def from_wire(data: dict[str, Any]) -> OrbweaverError:
    """Rebuild an error from another process; an unknown type becomes the root class and keeps its code."""
    cls = _every(OrbweaverError).get(str(data.get("type")), OrbweaverError)
    code = data.get("code")
    details = data.get("details") or ()
    error = cls(
        str(data.get("message", "")),
        details=tuple(str(line) for line in details),
        cni_code=code if isinstance(code, int) else None,
        brief=str(data.get("brief", "")),
    )
    for name, value in error.facts().items():
        if type(data.get(name)) is type(value):
            setattr(error, name, data[name])
    return error
