"""Simulated time, and a process whose actors are the real ones.

How it works: `Kernel` is a heap of moments. A `Process` has one CPU, as CPython has; it hands one message after the other
to actors of the product, whose handlers run at once in real time and are charged a fixed cost in simulated time. What a
handler sets in motion (answers, messages, continuations) happens when its cost is paid and, if it called the store, when
the store has answered; until then that actor takes no other message. What is simulated is time; what is decided is not.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from actors.errors import DeadlineExceeded, OrbweaverError, Overloaded
from actors.runtime import Actor, ActorContext, ObjectRef
from actors.runtime.dispatch import LATE

SWITCH = 0.005
"""Seconds for which a thread goes on with its messages before another one's turn comes, as in CPython."""


class Kernel:
    """The clock and what is to happen."""

    def __init__(self) -> None:
        self.now = 0.0
        self.effects = 0.0
        """When what the code that runs now sets in motion takes place: not before `now`."""
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()

    def at(self, moment: float, action: Callable[[], object]) -> None:
        """Do it at a moment."""
        heapq.heappush(self._heap, (moment, next(self._numbers), action))

    def soon(self, action: Callable[[], object], delay: float = 0.0) -> None:
        """Do it when the effects of what runs now take place, and `delay` seconds later."""
        self.at(max(self.now, self.effects) + delay, action)

    def run(self, until: float) -> None:
        """Let everything happen up to a moment, or until nothing is left."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, action = heapq.heappop(self._heap)
            self.effects = self.now
            action()


class Servers:
    """Some CPUs with one queue before them: an API server."""

    def __init__(self, kernel: Kernel, cpus: int) -> None:
        self._kernel = kernel
        self._free = [0.0] * cpus
        self.busy = 0.0
        self.requests = 0
        self.octets = 0

    def serve(self, seconds: float, octets: int) -> float:
        """A request that arrives now: when it is answered, after `seconds` of CPU."""
        begins = max(self._kernel.effects, self._kernel.now, heapq.heappop(self._free))
        heapq.heappush(self._free, begins + seconds)
        self.busy += seconds
        self.requests += 1
        self.octets += octets
        return begins + seconds


class Timer:
    """A message to itself that an actor may take back."""

    over = False

    def cancel(self) -> None:
        self.over = True


class Cell:
    """One actor of a process: its mailbox, and whether it waits for the store."""

    def __init__(self, process: Process, name: str, bound: int) -> None:
        self.process = process
        self.name = name
        self.bound = bound
        self.mailbox: deque[Callable[[], object]] = deque()
        self.first: deque[Callable[[], object]] = deque()
        """Continuations, which are handled before the mailbox."""
        self.waiting = 0
        self.busy = False
        self.behind_until = 0.0
        self.turn = -SWITCH
        self.actor: Any = None

    def put(self, work: Callable[[], object]) -> None:
        self.mailbox.append(work)
        self.process.ready(self)

    def then(self, ref: ObjectRef[Any], function: Callable[..., object], extra: tuple[Any, ...]) -> None:
        def go_on() -> None:
            self.first.append(lambda: function(ref, *extra))
            self.process.ready(self)

        ref.subscribe(lambda _: self.process.kernel.soon(go_on))

    def post(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.put(lambda: function(*args))

    def after(self, seconds: float, function: Callable[..., object], args: tuple[Any, ...]) -> Timer:
        timer = Timer()

        def wake() -> None:
            if not timer.over:
                self.put(lambda: function(*args))

        self.process.kernel.soon(wake, seconds)
        return timer


class Process:
    """One process: actors by name, made on first use by `make(context, kind)`, and one CPU. `cost`: seconds of it for a
    message, and `refusal` for one that is refused or dropped. `bound`: messages that wait in one mailbox; one that has a
    deadline is begun within the part `start_fraction` of its time, or refused. Actors of the kinds in `at_once` answer within
    the message of whoever asks them, as a part of its cost."""

    def __init__(
        self,
        kernel: Kernel,
        make: Callable[[ActorContext], Actor],
        *,
        cost: float,
        refusal: float = 0.0,
        bound: int,
        start_fraction: float = 1.0,
        at_once: frozenset[str],
    ) -> None:
        self.kernel = kernel
        self.cells: dict[str, Cell] = {}
        self.handled = 0
        self._make = make
        self._cost = cost
        self._refusal = refusal
        self._start_fraction = start_fraction
        self._begun = self._paid = 0.0
        self._owed = 0.0
        """For what was refused before it came into a mailbox."""
        self.deadline: float | None = None
        """Of the message that is handled: calls made meanwhile inherit it."""
        self._bound = bound
        self._at_once = at_once
        self._queue: deque[Cell] = deque()
        self._running = False

    def get_actor(self, name: str) -> Any:
        return _Handle(self, name)

    def call(self, name: str, method: str, args: tuple[Any, ...], deadline: float | None) -> ObjectRef[Any]:
        """Send a message now. A mailbox that is full answers `Overloaded`, as the runtime's do."""
        ref: ObjectRef[Any] = ObjectRef(label=f"{name}.{method}")
        cell = self.cells.get(name) or self._open(name)
        if name.partition("/")[0] in self._at_once:
            self._answer(ref, cell, method, args)
        elif deadline is not None and self.kernel.now < cell.behind_until:
            self._owed += self._refusal
            ref.fail(Overloaded("behind"))
        elif cell.waiting >= cell.bound:
            self._owed += self._refusal
            ref.fail(Overloaded(f"the mailbox of {name} is full"))
        else:
            cell.waiting += 1
            sent = self.kernel.now
            cell.put(lambda: self._handle(cell, ref, method, args, sent, deadline))
        return ref

    def ready(self, cell: Cell) -> None:
        """Something waits in a mailbox."""
        if not cell.busy and len(cell.mailbox) + len(cell.first) == 1:
            self._queue.append(cell)
        self._go_on()

    def _open(self, name: str) -> Cell:
        cell = self.cells[name] = Cell(self, name, self._bound)
        kind, _, key = name.partition("/")
        cell.actor = self._make(ActorContext(cast("Any", self), name, kind, key, cast("Any", cell)))
        cell.actor.on_activate()
        return cell

    def _go_on(self) -> None:
        if self._running or not self._queue:
            return
        self._running = True
        self.kernel.at(self.kernel.now, self._step)

    def _step(self) -> None:
        kernel, cell = self.kernel, self._queue.popleft()
        work = (cell.first or cell.mailbox).popleft()
        cell.busy = True
        if kernel.now >= cell.turn + SWITCH:
            cell.turn = kernel.now
        self.handled += 1
        self._begun, self._owed = kernel.now + self._owed, 0.0
        self._paid = kernel.effects = self._begun + self._cost
        work()
        # The CPU is free when the cost is paid; the actor, when the store has answered too.
        kernel.at(self._paid, self._idle)
        kernel.at(kernel.effects, lambda: self._free(cell))

    def _idle(self) -> None:
        self._running = False
        self._go_on()

    def _free(self, cell: Cell) -> None:
        cell.busy = False
        if cell.mailbox or cell.first:
            if self.kernel.now < cell.turn + SWITCH:
                self._queue.appendleft(cell)
            else:
                self._queue.append(cell)
            self._go_on()

    def _handle(
        self,
        cell: Cell,
        ref: ObjectRef[Any],
        method: str,
        args: tuple[Any, ...],
        sent: float,
        deadline: float | None,
    ) -> None:
        cell.waiting -= 1
        now = self.kernel.now
        error: OrbweaverError | None = None
        if deadline is not None and deadline <= now:
            error = DeadlineExceeded("not begun before its deadline")
        elif deadline is not None and now - sent > self._start_fraction * (deadline - sent):
            error = Overloaded("waited for too long")
            cell.behind_until = now + LATE
        if error is not None:
            self._paid = self.kernel.effects = self._begun + self._refusal
            ref.fail(error)
        else:
            self.deadline = deadline
            self._answer(ref, cell, method, args)
            self.deadline = None

    @staticmethod
    def _answer(ref: ObjectRef[Any], cell: Cell, method: str, args: tuple[Any, ...]) -> None:
        try:
            result = getattr(cell.actor, method)(*args)
        except OrbweaverError as error:
            ref.fail(error)
            return
        if isinstance(result, ObjectRef):
            result.subscribe(ref.follow)
        else:
            ref.complete(result)


class _Handle:
    def __init__(self, process: Process, name: str) -> None:
        self._process = process
        self._name = name

    def __getattr__(self, method: str) -> _Method:
        return _Method(self._process, self._name, method)

    def __send__(
        self, method: str, timeout: float | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ObjectRef[Any]:
        return getattr(self, method).options(timeout=timeout).remote(*args, **kwargs)


class _Method:
    def __init__(self, process: Process, name: str, method: str) -> None:
        self._to = process, name, method

    def options(self, *, timeout: float | None) -> _Method:
        return self

    def remote(self, *args: Any) -> ObjectRef[Any]:
        process, name, method = self._to
        return process.call(name, method, args, process.deadline)
