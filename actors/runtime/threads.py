"""The threads of actors and their mailboxes, on pykka: each thread serves one activation after the other.

An actor for each pod comes and goes within a second. Starting a thread for it costs as much as a tenth of what it does, most
of it waiting until the new thread runs; so a thread that an activation has left is given to the next one.

What must always hold: pykka is imported here and nowhere else; everything reaches an actor by `tell`, with a reference of our
own for the answer, and no exception leaves `on_receive`. pykka keeps an actor alive after an exception under `ask` and stops
it under `tell`; this way there is one rule, and it is ours (`activation.py`). An activation begins at once, never behind
another one; where the system gives no more threads, the caller is told so. Nothing of an activation comes in after it has
closed, so what is in a thread's inbox is of the activation that has it, but for late requests to leave.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from typing import TYPE_CHECKING, Any, Protocol

import pykka

if TYPE_CHECKING:
    from pykka._actor import ActorInbox

_NUMBERS = itertools.count()
MOST_IDLE = 32
"""Threads that wait for the next activation; one more ends."""


class Tenant(Protocol):
    """What has a thread: an activation."""

    name: str

    @property
    def closed(self) -> bool:
        """Whether it has ended, so that it needs the thread no more."""

    def begin(self) -> None:
        """Runs in the thread, before anything is handled. Never raises."""

    def handle(self, item: Any) -> None:
        """Handle one item of its mailbox, in the thread. Never raises."""


class Threads:
    """Those that have no activation."""

    def __init__(self, most_idle: int = MOST_IDLE) -> None:
        self.lock = threading.Lock()
        self._most_idle = most_idle
        self._idle: list[ActorThread] = []

    @property
    def idle(self) -> int:
        """How many wait."""
        return len(self._idle)

    def take(self) -> pykka.ActorRef[ActorThread]:
        """The one that was used last, or a new one. Raises RuntimeError when the system has none to give."""
        with self.lock:
            if self._idle:
                return self._idle.pop().actor_ref
        return ActorThread.start(self)

    def give_back(self, thread: ActorThread) -> bool:
        """Keep one for the next activation, under the lock; False when there are enough."""
        if len(self._idle) >= self._most_idle:
            return False
        self._idle.append(thread)
        return True

    def end_idle(self) -> None:
        """End those that wait."""
        with self.lock:
            idle, self._idle = self._idle, []
        for thread in idle:
            thread.stop()


THREADS = Threads()
"""The process's."""


class ActorThread(pykka.ThreadingActor):
    """A thread with an inbox, of one mailbox after the other. It is a daemon: work that hangs must not keep a process from
    ending after its drain time."""

    use_daemon_thread = True

    def __init__(self, threads: Threads) -> None:
        super().__init__()
        self._threads = threads
        self._own_name = f"actor-{next(_NUMBERS)}"
        self._mailbox: Mailbox | None = None
        """Whose items come."""

    @staticmethod
    def _create_actor_inbox() -> ActorInbox:
        # queue.SimpleQueue is written in C: a put and a get cost a tenth of queue.Queue's. Bounds are kept in
        # `Intake`, where a full mailbox is an answer and not a wait.
        inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        return inbox

    def _start_actor_loop(self) -> None:
        try:
            super()._start_actor_loop()
        except RuntimeError:
            pykka.ActorRegistry.unregister(self.actor_ref)
            raise

    def on_start(self) -> None:
        threading.current_thread().name = self._own_name

    def on_receive(self, message: Any) -> None:
        mailbox = self._mailbox
        if type(message) is Mailbox:
            if message.begun and message is not mailbox:
                return  # it was asked to leave, and had done so
            mailbox = message
            if not mailbox.begun:
                self._begin(mailbox)
        elif mailbox is not None:
            mailbox.tenant.handle(message)
        if mailbox is not None and mailbox.tenant.closed:
            self._leave(mailbox)

    def _begin(self, mailbox: Mailbox) -> None:
        self._mailbox, mailbox.begun = mailbox, True
        threading.current_thread().name = mailbox.tenant.name
        if not mailbox.tenant.closed:
            mailbox.tenant.begin()

    def _leave(self, mailbox: Mailbox) -> None:
        threading.current_thread().name = self._own_name
        self._mailbox = None
        with self._threads.lock:
            mailbox.left = True
            kept = self._threads.give_back(self)
        if mailbox.waiter is not None:
            mailbox.waiter.set()
        if not kept:
            self.stop()


class Mailbox:
    """The way into a thread for one activation, for its `Intake`."""

    __slots__ = ("_inbox", "_threads", "begun", "left", "put", "tenant", "waiter")

    def __init__(self, tenant: Tenant, threads: Threads | None = None) -> None:
        """Have a thread begin. Raises RuntimeError when the system has none to give."""
        self.tenant = tenant
        self.begun = False
        self.left = False
        """Whether the thread is another one's by now, or nobody's."""
        self.waiter: threading.Event | None = None
        self._threads = threads or THREADS
        ref = self._threads.take()
        self._inbox: Any = ref.actor_inbox
        self.put = ref.tell
        self.put(self)

    def drain(self) -> list[Any]:
        """Take out everything that waits; while the activation has the thread."""
        taken = []
        with contextlib.suppress(queue.Empty):  # the thread itself may take what was there a moment ago
            while not self._inbox.empty():
                taken.append(self._inbox.get_nowait().message)
        return taken

    def stop(self) -> None:
        """Let the thread leave after the item that it handles, if it has not."""
        with self._threads.lock:
            if not self.left:
                self.put(self)

    def wait_stopped(self, timeout: float) -> None:
        """Wait until the thread has ended its last item and is left."""
        with self._threads.lock:
            if self.left:
                return
            self.waiter = self.waiter or threading.Event()
        self.waiter.wait(timeout)
