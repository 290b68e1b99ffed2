"""The free list: at every step it chooses what a list made anew from all that was said would choose."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.allocation.free_list import CHOICE_WINDOW, FreeList
from actors.allocation.messages import AddressChange
from actors.resources.blocks.block import base_of
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Record
from actors.resources.intervals import IntervalSet

LOW, HIGH = 60, 131  # the ends of two blocks, and one whole
MEMORY = 50.0
HOLDER = Record("blue", "default/web", "u1", "c1", "eth0", "node1", "", "2025-01-31T12:00:00Z")

values = st.integers(LOW, HIGH)
moments = st.integers(0, 20)
"""Few, so that several are released at once."""


@dataclass(frozen=True)
class Released:
    at: float


@dataclass(frozen=True)
class Quarantined:
    until: float


Fact = Released | Quarantined | None
"""What was said last of an address that is free; None: that it was never used."""


def since(fact: Fact) -> float | None:
    """The moment by which it is put in order among the released ones."""
    return fact.until if isinstance(fact, Quarantined) else fact.at if fact is not None else None


def holds(fact: Fact, now: float) -> bool:
    return isinstance(fact, Quarantined) and fact.until > now


class Lists(RuleBasedStateMachine):
    """`facts` is what is free and what was said of it last; the list made anew is sorted from that each time."""

    @initialize(usable=st.sets(values, min_size=1))
    def start(self, usable: set[int]) -> None:
        self.usable = usable
        self.free = FreeList(IntervalSet((value, value) for value in usable), memory=MEMORY)
        self.facts: dict[int, Fact] = dict.fromkeys(usable)
        self.pending: dict[int, float | None] = {}
        self.begin: int | None = None
        self.now = 100.0

    @rule(seconds=st.sampled_from([0.0, 1.0, 7.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(number=st.integers(0, CHOICE_WINDOW - 1), alone=st.booleans())
    def choose(self, number: int, alone: bool) -> None:
        for value, fact in self.facts.items():
            at = since(fact)
            if at is not None and at <= self.now - MEMORY:
                self.facts[value] = None
        expected = self._next(1 if alone or self.begin is None else 1 + number)

        chosen = self.free.choose(self.now, None if alone else lambda below: number % below)

        assert chosen == expected
        if chosen is not None:
            del self.facts[chosen]
            self.pending[chosen] = None

    def _next(self, window: int) -> int | None:
        never = sorted(value for value, fact in self.facts.items() if fact is None)
        if never:
            return next(
                (value for value in never if self.begin is not None and value >= self.begin), never[0]
            )
        released = sorted(
            (since(fact), value) for value, fact in self.facts.items() if not holds(fact, self.now)
        )
        return released[: min(window, len(released))][-1][1] if released else None

    @rule(value=values)
    def take_this_one(self, value: int) -> None:
        taken = self.free.take(value)

        assert taken == (value in self.usable and value not in self.pending)
        if taken:
            self.facts.pop(value, None)
            self.pending[value] = None

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), fails=st.booleans())
    def its_block_answers(self, data: st.DataObject, fails: bool) -> None:
        value = data.draw(st.sampled_from(sorted(self.pending)))

        assert self.free.answered(value) == self.pending.pop(value)
        if fails:
            self.free.cool(value, self.now)
            self._say(value, Released(self.now))

    @rule(value=values, before=moments)
    def released(self, value: int, before: int) -> None:
        if value not in self.pending:
            self.free.cool(value, self.now - before)
            self._say(value, Released(self.now - before))

    @rule(value=values, seconds=moments)
    def quarantined(self, value: int, seconds: int) -> None:
        if value not in self.pending:
            self.free.quarantine(value, Quarantine("02:00:00:00:00:99 answers for it", self.now + seconds))
            self._say(value, Quarantined(self.now + seconds))

    @rule(
        news=st.lists(st.tuples(values, st.sampled_from(["used", "released", "aside", "unknown"]), moments))
    )
    def the_ledger_tells_news(self, news: list[tuple[int, str, int]]) -> None:
        self._learn(news, whole=False)

    @rule(news=st.lists(st.tuples(values, st.sampled_from(["used", "released", "aside"]), moments)))
    def the_ledger_tells_everything(self, news: list[tuple[int, str, int]]) -> None:
        self._learn(news, whole=True)

    def _learn(self, news: list[tuple[int, str, int]], *, whole: bool) -> None:
        changes = []
        if whole:
            self.facts = {value: None for value in self.usable if value not in self.pending}
        for value, what, moment in news:
            at = self.now - moment
            match what:
                case "used":
                    changes.append(AddressChange(value, HOLDER))
                    self.facts.pop(value, None)
                case "released":
                    changes.append(AddressChange(value, None, at))
                    self._hear(value, at, Released(at))
                case "aside":
                    until = self.now + moment
                    changes.append(AddressChange(value, None, at, Quarantine("why", until)))
                    self._hear(value, at, Quarantined(until) if moment else Released(at))
                case _:
                    changes.append(AddressChange(value, None))
                    fact = self.facts.get(value)
                    if isinstance(fact, Quarantined):
                        fact = Released(
                            fact.until
                        )  # it goes where it would have gone, but nothing holds it back
                    self._hear(value, None, fact)
        self.free.learn(changes, self.now, whole=whole)

    def _hear(self, value: int, at: float | None, fact: Fact) -> None:
        if value in self.pending:
            self.pending[value] = at
        else:
            self._say(value, fact)

    def _say(self, value: int, fact: Fact) -> None:
        if value in self.usable:
            self.facts[value] = fact

    @rule(value=values)
    def leave_out_a_block(self, value: int) -> None:
        base = base_of(value)

        self.free.leave_out(base)

        self.facts = {value: fact for value, fact in self.facts.items() if base_of(value) != base}

    @rule(number=st.integers(0, 200))
    def somebody_was_faster(self, number: int) -> None:
        never = sorted(value for value, fact in self.facts.items() if fact is None)

        self.free.look_elsewhere(lambda below: number % below)

        self.begin = base_of(never[number % len(never)]) if never else 0

    @rule(usable=st.sets(values, min_size=1))
    def the_pool_is_edited(self, usable: set[int]) -> None:
        self.usable = usable
        self.free = self.free.over(IntervalSet((value, value) for value in usable))
        self.facts = {value: None for value in usable if value not in self.pending}

    @invariant()
    def it_says_what_it_has(self) -> None:
        assert dict(self.free.pending) == self.pending
        assert self.free.has_none(self.now) == all(holds(fact, self.now) for fact in self.facts.values())
        ready = sum(not holds(fact, self.now) for fact in self.facts.values())
        assert [self.free.ready(most, self.now) for most in (0, 3, 1000)] == [0, min(ready, 3), ready]
        held_back = sorted(value for value, fact in self.facts.items() if holds(fact, self.now))
        assert [value for value, _ in self.free.quarantined(self.now)] == held_back


TestLists = Lists.TestCase
TestLists.settings = settings(max_examples=200, stateful_step_count=40)


def test_an_address_released_twice_at_the_same_moment_is_one_address():
    """Taken by name in between, so that its first entry is still in the heap."""
    free = FreeList(IntervalSet(((1, 3),)), memory=MEMORY)
    for value in (1, 2, 3):
        free.cool(value, 10.0 + value)
    free.take(1)
    free.answered(1)
    free.cool(1, 11.0)
    free.look_elsewhere(lambda below: 0)

    assert free.choose(20.0, lambda below: 1) == 2, "the second of those released longest ago"
    assert [free.choose(20.0) for _ in range(3)] == [1, 3, None]
