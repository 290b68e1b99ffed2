"""The whole allocator against a model: pods, repeated ADD, late DEL, StatefulSets, exact addresses, overlapping pools
that are edited meanwhile, and a store that loses a reply now and then. After each step the answer is what the model
says it must be, and the store agrees."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actors.errors import AddressTaken, NoAddress
from tests.support.checker import eventually, prove_records, records
from tests.support.faulty_store import Fault, How, Write
from tests.support.rig import Rig, pod, pool, rig, sandbox, statefulset

# Two pools that overlap, across the border of two blocks (10.6.0.63 | 10.6.0.64).
FIRST, LAST = 60, 67
PODS = [f"p{number}" for number in range(6)]
ORDINALS = ["db-0", "db-1"]


def text(last: int) -> str:
    return f"10.6.0.{last}"


class Allocation(RuleBasedStateMachine):
    one: Rig

    @initialize()
    def begin(self) -> None:
        self.stack = ExitStack()
        self.directory = Path(tempfile.mkdtemp(prefix="orbweaver-test-"))
        self.stack.callback(shutil.rmtree, self.directory)
        self.fault: How | None = None
        objects = [
            pool("a", "10.6.0.0/16", f"{text(60)}-{text(64)}"),
            pool("b", "10.6.0.0/16", f"{text(63)}-{text(67)}"),
            statefulset("db", len(ORDINALS)),
            *(pod(name, statefulset="db") for name in ORDINALS),
        ]
        self.one = self.stack.enter_context(rig(self.directory, *objects, plan=self.plan))
        self.ranges = {"a": range(60, 65), "b": range(63, 68)}
        self.disabled = {"a": False, "b": False}
        self.held: dict[str, tuple[str, str]] = {}
        """Container to (pod, address)."""
        self.kept: dict[str, str] = {}
        """StatefulSet's pod to the address kept for it."""
        self.containers = 0

    def plan(self, write: Write) -> Fault | None:
        fault, self.fault = self.fault, None
        return Fault(fault) if fault is not None else None

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            try:
                self.one.prove()
            finally:
                self.stack.close()

    # What the model knows.

    def usable(self, *names: str) -> set[str]:
        enabled = [name for name in names or self.ranges if not self.disabled[name]]
        return {text(last) for name in enabled for last in self.ranges[name]}

    def free(self) -> set[str]:
        return self.usable() - {address for _, address in self.held.values()} - set(self.kept.values())

    def running(self, name: str) -> bool:
        return any(pod == name for pod, _ in self.held.values())

    # What happens.

    @rule(name=st.sampled_from(PODS))
    def add(self, name: str) -> None:
        self.containers += 1
        container = f"c{self.containers}"
        free = self.free()
        try:
            (address,) = self.one.add(sandbox(container, pod=name))
        except NoAddress:
            assert not free, f"refused while {sorted(free)} are free"
            self.one.journal.doubtful.clear()
        else:
            assert address in free
            self.held[container] = (name, address)

    @rule(name=st.sampled_from(ORDINALS))
    def add_ordinal(self, name: str) -> None:
        if self.running(name):
            return
        self.containers += 1
        container = f"c{self.containers}"
        mine = self.kept.get(name)
        # Its own again, if any pool has it, also a disabled one; else it goes back.
        free = self.free()
        again = mine in {text(last) for ranges in self.ranges.values() for last in ranges}
        try:
            (address,) = self.one.add(sandbox(container, pod=name))
        except NoAddress:
            assert not again
            assert not free
            self.one.journal.doubtful.clear()
            self.settle_kept(name)
        else:
            if again:
                assert address == mine
            else:
                assert address in free
            self.kept.pop(name, None)
            self.held[container] = (name, address)
            self.journal_kept()

    def settle_kept(self, name: str) -> None:
        """A refused pod may have given back an address that no pool gives out any more, or not."""
        mine = self.kept.get(name)
        if mine is not None and mine not in records(self.one.inner):
            del self.kept[name]
        self.journal_kept()

    def journal_kept(self) -> None:
        self.one.journal.kept = {address: f"default/{name}" for name, address in self.kept.items()}

    @rule(name=st.sampled_from(PODS), last=st.integers(FIRST, LAST))
    def add_exact(self, name: str, last: int) -> None:
        self.containers += 1
        container, wanted = f"c{self.containers}", text(last)
        free = self.free()
        try:
            (address,) = self.one.add(sandbox(container, pod=name), exact=[wanted])
        except (AddressTaken, NoAddress):
            assert wanted not in free
            self.one.journal.doubtful.clear()
        else:
            assert address == wanted
            assert wanted in free
            self.held[container] = (name, wanted)

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        if self.held:
            container = data.draw(st.sampled_from(sorted(self.held)))
            name, address = self.held[container]
            assert self.one.add(sandbox(container, pod=name)) == [address]

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if self.held:
            container = data.draw(st.sampled_from(sorted(self.held)))
            name, address = self.held.pop(container)
            assert self.one.delete(sandbox(container, pod=name)) == 1
            if name in ORDINALS:
                self.kept[name] = address
                self.journal_kept()

    @rule(data=st.data())
    def delete_again(self, data: st.DataObject) -> None:
        """A late DEL of a container that is gone, under any pod's name."""
        if self.containers:
            container = f"c{data.draw(st.integers(1, self.containers))}"
            if container not in self.held:
                assert (
                    self.one.delete(sandbox(container, pod=data.draw(st.sampled_from(PODS + ORDINALS)))) == 0
                )

    @rule(name=st.sampled_from("ab"), first=st.integers(FIRST, LAST), last=st.integers(FIRST, LAST))
    def edit(self, name: str, first: int, last: int) -> None:
        first, last = min(first, last), max(first, last)
        self.one.edit_pool(name, ips=[f"{text(first)}-{text(last)}"])
        self.ranges[name] = range(first, last + 1)
        eventually(lambda: self.seen(name))

    @rule(name=st.sampled_from("ab"), disabled=st.booleans())
    def disable(self, name: str, disabled: bool) -> None:
        self.one.edit_pool(name, disable=disabled)
        self.disabled[name] = disabled
        eventually(lambda: self.seen(name))

    @rule(how=st.sampled_from([How.BEFORE, How.AFTER]))
    def the_next_write_fails(self, how: How) -> None:
        self.fault = how

    def seen(self, name: str) -> None:
        found = self.one.agent.catalog.pools().pools[name]
        assert found.version == self.one.inner.get("SpiderIPPool", name)["metadata"]["resourceVersion"]

    @invariant()
    def the_store_agrees(self) -> None:
        if hasattr(self, "held"):
            prove_records(self.one.inner, self.one.journal)
            held = {address: container for container, (_, address) in self.held.items()}
            found = {address: one.get("container", "") for address, one in records(self.one.inner).items()}
            assert found == held | dict.fromkeys(self.kept.values(), "")


TestAllocation = Allocation.TestCase
TestAllocation.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
