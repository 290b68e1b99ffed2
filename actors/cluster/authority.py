"""The authority that signs what the webhook shows: which one counts, which one comes next, and when.

What must always hold: whoever trusts `bundle` trusts whatever any controller shows at that moment. So a next authority is
trusted by all before anything is signed with it, and the one before is trusted until the next is made; both steps are
decided here, as pure functions of the time, and written by one controller, the leader.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from actors.cluster.certificates import Pair, make_authority, span_of
from actors.errors import InvalidObject

LIFE = timedelta(days=365)
_NEXT_AFTER = 0.5
"""Of an authority's life, after which the next one is made."""
_TRUSTED_FOR = 1 / 20, timedelta(minutes=10)
"""Of its life, and at most, for which the next one is trusted before it signs: API servers notice within seconds."""


@dataclass(frozen=True, slots=True)
class Authority:
    """`current` signs; `following` will; `previous` signed before, and is a certificate without its key."""

    current: Pair
    following: Pair | None = None
    previous: str = ""

    @property
    def bundle(self) -> str:
        """All that is to be trusted, in PEM."""
        following = self.following.certificate if self.following is not None else ""
        return self.current.certificate + following + self.previous

    def to_data(self) -> dict[str, str]:
        """The `data` of a Secret."""
        texts = {"ca.crt": self.current.certificate, "ca.key": self.current.key}
        if self.following is not None:
            texts |= {"next.crt": self.following.certificate, "next.key": self.following.key}
        if self.previous:
            texts["previous.crt"] = self.previous
        return {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}

    @classmethod
    def from_data(cls, data: Mapping[str, object]) -> Authority | None:
        """Inverse of `to_data`; None where there is nothing. Raises `InvalidObject`."""
        if not data:
            return None
        try:
            texts = {
                name: base64.b64decode(str(text), validate=True).decode("ascii")
                for name, text in data.items()
            }
            following = Pair(texts["next.crt"], texts["next.key"]) if "next.crt" in texts else None
            authority = cls(Pair(texts["ca.crt"], texts["ca.key"]), following, texts.get("previous.crt", ""))
            others = [following.certificate] if following is not None else []
            others += [authority.previous] if authority.previous else []
            for certificate in (authority.current.certificate, *others):
                span_of(certificate)
        except (KeyError, ValueError, binascii.Error) as error:
            raise InvalidObject(
                f"what the webhook's Secret holds is no authority of ours: {error!r}"
            ) from error
        return authority


def advance(
    authority: Authority | None, now: datetime, life: timedelta, published: Sequence[str]
) -> Authority:
    """The authority that should be, at a moment. `published`: what API servers are told to trust by now, for each webhook."""
    if authority is None or now >= span_of(authority.current.certificate)[1]:
        return Authority(make_authority(now, life))
    if authority.following is not None:
        begin, end = span_of(authority.following.certificate)
        share, most = _TRUSTED_FOR
        known = all(authority.following.certificate in bundle for bundle in published)
        if known and now >= begin + min((end - begin) * share, most):
            return Authority(authority.following, None, authority.current.certificate)
        return authority
    begin, end = span_of(authority.current.certificate)
    if now >= begin + (end - begin) * _NEXT_AFTER:
        return replace(authority, following=make_authority(now, life), previous="")
    return authority
