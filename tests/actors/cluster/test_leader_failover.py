"""What a task asks of its leader, while the answers come in from other threads."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.cluster.leader_failover import LeaderAllocator
from actors.cluster.lease import Holder
from actors.runtime import ObjectRef
from tests.support.rig import rig


class AnsweredBetweenLooks(ObjectRef[str]):
    """Its answer comes behind the first look at it, from another thread as it were."""

    def done(self) -> bool:
        was_done = super().done()
        self.complete("granted")
        return was_done


@pytest.mark.parametrize("enough", [None, 1, 2])
def test_an_answer_that_comes_between_two_looks_is_waited_for_no_more(tmp_path: Path, enough: int | None):
    with rig(tmp_path) as one:
        leader = LeaderAllocator(one.system, Holder("controller", "127.0.0.1:1"), 60)
        refs = [AnsweredBetweenLooks() for _ in range(2)]

        leader.settle(refs, enough=enough)

        assert [ref.result() for ref in refs] == ["granted", "granted"]
        assert not leader.failed
