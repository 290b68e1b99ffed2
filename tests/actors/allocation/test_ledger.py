"""The Ledger and the Block actor together: what is believed follows what is written, whatever was said in between."""

from __future__ import annotations

from pathlib import Path

from actors.allocation.messages import Occupancy
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.block import (
    Block,
    Claim,
    ClearSuspect,
    Granted,
    Release,
    Released,
    SuspicionChanged,
    Taken,
)
from actors.resources.blocks.record import Fence, Record
from actors.resources.blocks.suspect import Suspect
from actors.runtime import get
from tests.support.blocks import recorded
from tests.support.checker import eventually, records
from tests.support.rig import Rig, pool, rig, sandbox

ADDRESS = 0x0A060001
BLOCK = "block/v4-0a060000"
RANGE = ((ADDRESS - 1, ADDRESS + 62),)


def record(container: str = "c1", pod: str = "default/web", owner: str = "") -> Record:
    return Record("blue", pod, "u1", container, "eth0", "node1", owner, "2025-01-31T12:00:00Z")


def claim(one: Rig, mine: Record, value: int = ADDRESS, instead_of: Fence | None = None) -> Granted | Taken:
    found: Granted | Taken = get(one.system.get_actor(BLOCK).claim.remote(Claim(value, mine, instead_of)), 60)
    return found


def release(one: Rig, mine: Record, *, keep: bool = False) -> Released:
    asked = Release(ADDRESS, Fence.of(mine), 1_700_000_000.0, keep)
    found: Released = get(one.system.get_actor(BLOCK).release.remote(asked), 60)
    return found


def of_pod(one: Rig, pod: str = "default/web") -> tuple[Allocation, ...]:
    found: tuple[Allocation, ...] = get(one.system.get_actor("ledger/local").of_pod.remote(pod), 60)
    return found


def occupancy(one: Rig, since: int) -> Occupancy:
    found: Occupancy = get(one.system.get_actor("ledger/local").occupancy.remote(4, RANGE, since), 60)
    return found


def test_what_a_block_has_answered_the_ledger_knows(tmp_path: Path):
    with rig(tmp_path) as one:
        assert claim(one, record()) == Granted(ADDRESS, record())
        assert of_pod(one) == (Allocation(4, ADDRESS, record()),)
        assert claim(one, record()) == Granted(ADDRESS, record(), fresh=False)
        assert claim(one, record("c2")) == Taken(ADDRESS, record())
        assert not release(one, record("c2")).done
        assert release(one, record()).done
        assert of_pod(one) == ()


def test_it_tells_what_changed_and_everything_to_whoever_is_behind(tmp_path: Path):
    with rig(tmp_path) as one:
        empty = occupancy(one, -1)
        assert (empty.whole, empty.changes) == (True, ())
        claim(one, record())

        news = occupancy(one, empty.sequence)

        assert (news.whole, [change.value for change in news.changes]) == (False, [ADDRESS])
        assert occupancy(one, news.sequence).changes == ()
        assert occupancy(one, -1).changes == news.changes


def test_a_restart_believes_the_store(tmp_path: Path):
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9")) as one:
        one.add(sandbox("c1"))
        one.add(sandbox("c2"))
        one.delete(sandbox("c1"))
        before = occupancy(one, -1)
    with rig(tmp_path) as one:
        after = occupancy(one, -1)

    assert [(change.value, change.record) for change in before.changes] == [
        (change.value, change.record) for change in after.changes
    ]
    assert after.sequence > before.sequence, (
        "a pool that learned from the one before must not think it is up to date"
    )


def test_a_block_that_somebody_else_wrote_is_read_before_it_is_written(tmp_path: Path):
    with rig(tmp_path) as one:
        claim(one, record())
        found = Block.from_object(one.inner.get("SpiderIPBlock", "v4-0a060000"))
        found.release(Release(ADDRESS, Fence.of(record()), 1.0))
        found.claim(Claim(ADDRESS + 1, record("other", "default/other")))
        one.inner.update(found.to_object())

        outcome = claim(one, record("c2", "default/two"), ADDRESS + 1)

        assert outcome == Taken(ADDRESS + 1, record("other", "default/other"))
        claim(one, record("c3", "default/three"), ADDRESS + 3)
        held = set(records(one.inner))
        assert {"10.6.0.2", "10.6.0.4"} <= held
        assert "10.6.0.1" not in held
        eventually(lambda: _knows(one))


def _knows(one: Rig) -> None:
    assert of_pod(one) == ()
    assert [held.value for held in of_pod(one, "default/other")] == [ADDRESS + 1]


def test_a_damaged_block_is_left_out_and_left_alone(tmp_path: Path):
    """Its 64 addresses are not given out; the pool's others are."""
    damaged = Block(4, 0x0A060000).to_object()
    damaged["spec"]["records"] = "{"
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.62-10.6.0.65"), damaged) as one:
        assert one.add(sandbox("c1")) == ["10.6.0.64"]
        assert one.add(sandbox("c2")) == ["10.6.0.65"]

        assert one.inner.get("SpiderIPBlock", "v4-0a060000")["spec"]["records"] == "{"
        assert recorded([one.inner.get("SpiderIPBlock", "v4-0a060040")]).keys() == {"10.6.0.64", "10.6.0.65"}


def test_an_empty_block_goes_when_it_is_quiet(tmp_path: Path):
    """And not before: it remembers when its addresses were released."""
    with rig(tmp_path) as one:
        claim(one, record())
        release(one, record())  # in 2023, so it is quiet
        assert records(one.inner) == {}
        assert len(one.inner.list("SpiderIPBlock").items) == 1
    with rig(tmp_path) as one:
        assert one.inner.list("SpiderIPBlock").items == ()
        claim(one, record())
        assert release(one, record(), keep=True).done
    with rig(tmp_path) as one:
        assert [held.record.container for held in of_pod(one)] == [""]


def test_what_was_taken_by_force_is_suspect_until_somebody_vouches_for_it(tmp_path: Path):
    """Through restarts, and through holders who never found out."""

    def vouch(one: Rig, mine: Record) -> SuspicionChanged:
        found: SuspicionChanged = get(
            one.system.get_actor(BLOCK).clear_suspect.remote(ClearSuspect(ADDRESS, Fence.of(mine))), 60
        )
        return found

    mark = Suspect.of(record(), Fence.of(record()))
    with rig(tmp_path) as one:
        claim(one, record())
        by_force = Release(ADDRESS, Fence.of(record()), 1_700_000_000.0, forced=True)
        assert get(one.system.get_actor(BLOCK).release.remote(by_force), 60).done
        assert claim(one, record("c2"), ADDRESS + 1) == Granted(ADDRESS + 1, record("c2"))
        release(one, record("c2"))
    with rig(tmp_path) as one:
        assert claim(one, record("c3")) == Granted(ADDRESS, record("c3"), suspect=mark)
        assert claim(one, record("c3")) == Granted(ADDRESS, record("c3"), fresh=False, suspect=mark)
        assert release(one, record("c3")).done
    with rig(tmp_path) as one:
        assert claim(one, record("c4")) == Granted(ADDRESS, record("c4"), suspect=mark)
        assert not vouch(one, record("c3")).done, "it is not c3's to vouch for"
        assert vouch(one, record("c4")).done
        assert vouch(one, record("c4")).done
    with rig(tmp_path) as one:
        assert claim(one, record("c4")) == Granted(ADDRESS, record("c4"), fresh=False)
        assert "suspect" not in one.inner.get("SpiderIPBlock", "v4-0a060000")["spec"]
