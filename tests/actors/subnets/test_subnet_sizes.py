"""Subnets of any size: what a pool costs does not depend on how many addresses its subnet has. Compared within one run, pool
by pool in turn, so that a slow or busy machine slows all alike."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

from actors.subnets.messages import Ensured
from tests.support.subnet_rig import application, auto_pool, subnet, subnet_rig

ROUNDS = 15
SIZES = {
    "small": subnet("small", "10.5.0.1-10.5.0.254", cidr="10.5.0.0/24"),
    "eight": subnet("eight", "11.0.0.1-11.255.255.254", cidr="11.0.0.0/8"),
    "six": subnet("six", "fd00:6::1-fd00:6:0:ffff:ffff:ffff:ffff:ffff", cidr="fd00:6::/48"),
}


def test_a_huge_subnet_costs_what_a_small_one_does(tmp_path: Path) -> None:
    took: dict[str, list[float]] = {name: [] for name in SIZES}
    with subnet_rig(tmp_path, *SIZES.values()) as one:
        for number in range(ROUNDS):
            for name in SIZES:
                asked = auto_pool(
                    application(f"{name}-{number}", f"{number:05}"), 10, family=6 if name == "six" else 4
                )
                began = time.monotonic()
                assert one.ensure(asked, name) == Ensured(asked.name, 10), name
                took[name].append(time.monotonic() - began)
        assert one.subnet("eight").total == (1 << 24) - 2
        assert one.subnet("six").total == 2**63 - 1
        assert one.subnet("six").allocated == 10 * ROUNDS

    times = {name: median(seconds) for name, seconds in took.items()}
    # A loop over the addresses of either would take minutes.
    assert times["eight"] < 5 * times["small"] + 5, times
    assert times["six"] < 5 * times["small"] + 5, times


def test_a_subnet_can_be_given_out_to_one_pool_whole(tmp_path: Path) -> None:
    with subnet_rig(tmp_path, SIZES["eight"]) as one:
        whole = (1 << 24) - 2
        asked = auto_pool(application(), whole)

        assert one.ensure(asked, "eight") == Ensured(asked.name, whole)
        assert one.ensure(auto_pool(application(), 1), "eight") == Ensured(asked.name, 1)
        assert one.share(asked.name, "eight") == ["11.0.0.1"]
