"""The line of those who wait: it stands as one made anew from who came and who left."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.allocation.waiting_line import Waiter, WaitingLine

requests = st.sampled_from("abcd")


class Lines(RuleBasedStateMachine):
    """`came`: who came and did not leave, in the order in which they came."""

    def __init__(self) -> None:
        super().__init__()
        self.line: WaitingLine[int] = WaitingLine()
        self.came: list[Waiter[int]] = []
        self.left: list[Waiter[int]] = []
        self.count = 0

    def _groups(self) -> list[list[Waiter[int]]]:
        """Those of one ADD together, where the first of them stands."""
        first = {
            each.request: min(other.number for other in self.came if other.request == each.request)
            for each in self.came
        }
        return [
            [each for each in sorted(self.came, key=lambda one: one.number) if each.request == request]
            for request, _ in sorted(first.items(), key=lambda item: item[1])
        ]

    def _leave(self, jobs: set[int]) -> None:
        self.came = [each for each in self.came if each.job not in jobs]

    @rule(request=requests, together=st.integers(1, 2), until=st.integers(1, 9))
    def join(self, request: str, together: int, until: int) -> None:
        self.count += 1
        waiter = Waiter(self.count, request, together, float(until), self.count)
        self.line.join(waiter)
        self.came.append(waiter)

    @precondition(lambda self: self.line.head())
    @rule()
    def the_head_goes(self) -> None:
        group = self.line.head()
        self.line.go()
        self.left = [*group]
        self._leave({each.job for each in group})

    @precondition(lambda self: self.left)
    @rule()
    def one_that_went_comes_again(self) -> None:
        """The address that it was to have was somebody else's: it stands where it stood."""
        waiter = self.left.pop()
        self.line.join(waiter)
        self.came.append(waiter)

    @rule(request=requests)
    def withdraw(self, request: str) -> None:
        gone = self.line.withdraw(request)
        assert {each.job for each in gone} == {each.job for each in self.came if each.request == request}
        self._leave({each.job for each in gone})

    @rule(now=st.integers(0, 9))
    def expire(self, now: int) -> None:
        late = {each.request for each in self.came if each.until <= now}
        gone = self.line.expire(now)
        assert {each.job for each in gone} == {each.job for each in self.came if each.request in late}
        self._leave({each.job for each in gone})

    @rule(most=st.integers(0, 6))
    def cut(self, most: int) -> None:
        expected: set[int] = set()
        groups = self._groups()
        while sum(map(len, groups)) > most:
            expected |= {each.job for each in groups.pop()}
        gone = {each.job for each in self.line.cut(most)}
        assert gone == expected
        self._leave(gone)

    @invariant()
    def it_stands_in_the_order_in_which_they_came(self) -> None:
        groups = self._groups()
        assert len(self.line) == len(self.came)
        head = [each.job for each in self.line.head()]
        first = groups[0] if groups else []
        whole = bool(first) and len(first) >= self.line_together(first)
        assert sorted(head) == sorted(each.job for each in first if whole)
        ends = [each.until for each in self.came]
        assert (self.line.first_end, self.line.last_end) == (min(ends, default=None), max(ends, default=None))

    def line_together(self, group: list[Waiter[int]]) -> int:
        return group[0].together


TestLines = Lines.TestCase
TestLines.settings = settings(max_examples=150, stateful_step_count=30)
