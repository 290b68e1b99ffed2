"""The actor runtime: handles like Ray's, actors on pykka threads, the same calls across processes.

What must always hold: the caller of a handle cannot tell where the actor lives.
"""

from actors.runtime.actor import Actor, ActorContext, Cancellable, message
from actors.runtime.call import Call
from actors.runtime.event_loop import new_event_loop
from actors.runtime.gate import GateLimits
from actors.runtime.handle import ActorHandle, ActorSource, RemoteMethod, TypedHandle
from actors.runtime.identity import PeerIdentity
from actors.runtime.link import LinkLimits
from actors.runtime.observer import RuntimeObserver, guarded
from actors.runtime.peer import Listener
from actors.runtime.reference import ObjectRef, get, settle, wait
from actors.runtime.scope import Trace, current_deadline, current_trace, request_scope, within
from actors.runtime.supervision import Child, Restart
from actors.runtime.system import ActorRow, ActorSystem
from actors.runtime.transport import Door, TcpTransport, TlsDoor, Transport, UnixTransport
from actors.runtime.wire import HIGHEST_VERSION, wire_value

__all__ = [
    "HIGHEST_VERSION",
    "Actor",
    "ActorContext",
    "ActorHandle",
    "ActorRow",
    "ActorSource",
    "ActorSystem",
    "Call",
    "Cancellable",
    "Child",
    "Door",
    "GateLimits",
    "LinkLimits",
    "Listener",
    "ObjectRef",
    "PeerIdentity",
    "RemoteMethod",
    "Restart",
    "RuntimeObserver",
    "TcpTransport",
    "TlsDoor",
    "Trace",
    "Transport",
    "TypedHandle",
    "UnixTransport",
    "current_deadline",
    "current_trace",
    "get",
    "guarded",
    "message",
    "new_event_loop",
    "request_scope",
    "settle",
    "wait",
    "wire_value",
    "within",
]
