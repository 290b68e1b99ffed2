"""Many pods end and begin at once on an exact pool: all run in the end, nobody loses an address that he uses, and nothing
is left.

Nothing here is decided by speed, but for a limit that only starving pods exceed. `./try storms` runs the full size, each
storm beside the same one with host-local and a range that never runs short, and prints how the times compare.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from actors.resources.blocks.block import Block
from tests.cluster.cluster import Cluster
from tests.cluster.deployment import CONFLIST, PROGRAM
from tests.cluster.processes import ClusterFailed, run
from tests.cluster.storm import EVERYDAY, FULL, Pod, Sandboxes, Storm, Storms, host_local, orbweaver, storms
from tests.support import blocks

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

FIGURES = os.environ.get("ORBWEAVER_STORMS")
"""A file for the figures of the full size; without it the storms are small and alone."""
STORMS = storms(FULL if FIGURES else EVERYDAY)
PATIENCE = 150.0
"""Seconds. An address that is set aside for a while, or a probe that misleads, costs five minutes."""


@pytest.mark.parametrize("name", STORMS)
def test_after_a_storm_all_run_and_nobody_has_lost_what_he_used(deployed: Cluster, name: str) -> None:
    storm, cluster = STORMS[name], deployed
    figures = {}
    if FIGURES and storm.calm:
        # What it takes too long for is no fault of ours; there is no figure then.
        with contextlib.suppress(ClusterFailed), Storms(cluster).calm(storm, host_local) as before:
            figures["host-local"] = Storms(cluster).rage(storm, before, PATIENCE)
    pool = storm.pool["metadata"]["name"]
    cluster.apply(storm.pool)
    marks = {name: len(text) for name, text in logs(cluster).items()}
    sandboxes = Sandboxes(cluster)
    sandboxes.start()
    under_way = Storms(cluster)
    try:
        with under_way.calm(storm, lambda _: orbweaver(storm)) as before:
            exact(storm, before)
            try:
                figures["orbweaver"] = under_way.rage(storm, before, 2 * PATIENCE)
            finally:
                keep_logs(cluster, name, marks)
            exact(storm, under_way.pods(), before)
            recorded_as_they_run(cluster, under_way.pods(), sandboxes)
            if name == "agent-killed":
                # It wrote no view of what it was told in its last seconds; the leader's scan finds that, or a person does.
                with contextlib.suppress(ClusterFailed):
                    check(cluster, "--repair")
            cluster.wait("nothing is wrong, once the views have followed", lambda: check(cluster))
    finally:
        sandboxes.stop()
        for node in cluster.nodes.values():
            node.configure(CONFLIST)
        note(name, storm, figures)
    told = {name: text[marks[name] :] for name, text in logs(cluster).items()}
    assert taken_from_the_living(told, sandboxes.last_alive) == []
    assert [line for line in lines(told) if line["event"] == "another host uses an address"] == []
    cluster.wait("nothing is recorded any more", lambda: not recorded(cluster))
    cluster.wait("no SpiderEndpoint is left", lambda: not cluster.items("spiderendpoints"))
    cluster.wait(
        "no network is left", lambda: not any(one.pod_namespaces() for one in cluster.nodes.values())
    )
    assert not [one for one in found_blocks(cluster) if one.quarantines], "no other host was ever here"
    cluster.kubectl("delete", "spiderippool", pool, "--timeout=180s")


def exact(storm: Storm, pods: list[Pod], before: list[Pod] | None = None) -> None:
    """Each pod runs with an address of its own, out of the storm's pool; where it is fixed, with the one it had."""
    (ips,) = storm.pool["spec"]["ips"]
    low, high = (int(part.rpartition(".")[2]) for part in ips.split("-"))
    assert len(pods) == storm.pods
    held = {one.name: one.address for one in pods}
    assert len(set(held.values())) == storm.pods, held
    assert {address.rpartition(".")[0] for address in held.values()} == {
        ips.partition("-")[0].rpartition(".")[0]
    }
    assert all(low <= int(address.rpartition(".")[2]) <= high for address in held.values()), held
    if storm.keeps and before is not None:
        assert held == {one.name: one.address for one in before}


def recorded_as_they_run(cluster: Cluster, pods: list[Pod], sandboxes: Sandboxes) -> None:
    """What is recorded is what runs: each address for its pod, in a sandbox whose network is there."""
    wanted = {one.address: one.uid for one in pods}
    since = time.time()

    def so() -> bool:
        found = recorded(cluster)
        alive = all(sandboxes.last_alive.get(container, 0.0) > since for _, container in found.values())
        return alive and {address: uid for address, (uid, _) in found.items()} == wanted

    cluster.wait("what is recorded is what runs", so)


def recorded(cluster: Cluster) -> dict[str, tuple[str, str]]:
    """Address to UID and container, of all blocks."""
    found = blocks.recorded(cluster.items("spideripblocks"))
    return {address: (one.get("uid", ""), one.get("container", "")) for address, one in found.items()}


def found_blocks(cluster: Cluster) -> list[Block]:
    return [Block.from_object(one) for one in cluster.items("spideripblocks")]


def check(cluster: Cluster, *options: str) -> bool:
    """`orbweaver check` finds nothing; it exits with another status if it does, which is raised."""
    config = str(cluster.kubeconfig("admin"))
    namespace = f"--net=/run/netns/{cluster.netns}"
    run("nsenter", namespace, *PROGRAM, "check", "--kubeconfig", config, *options)
    return True


def logs(cluster: Cluster) -> dict[str, str]:
    """What our processes have logged so far."""
    found = {f"agent-{name}": node.agent_log() for name, node in cluster.nodes.items()}
    return found | {f"controller-{name}": node.controller_log() for name, node in cluster.nodes.items()}


def lines(told: dict[str, str]) -> list[dict[str, Any]]:
    return [json.loads(line) for text in told.values() for line in text.splitlines() if line.startswith("{")]


def taken_from_the_living(told: dict[str, str], last_alive: dict[str, float]) -> list[dict[str, Any]]:
    """The addresses that were reclaimed while the network of their sandbox was still there afterwards."""
    return [
        line
        for line in lines(told)
        if line["event"] in ("address reclaimed", "address kept for the pod's next sandbox")
        and last_alive.get(line["container"], 0.0) > datetime.fromisoformat(line["time"]).timestamp()
    ]


def keep_logs(cluster: Cluster, name: str, marks: dict[str, int]) -> None:
    """For whoever wants to know where the time went."""
    if FIGURES:
        folder = Path(FIGURES).with_suffix("") / name
        folder.mkdir(parents=True, exist_ok=True)
        for process, text in logs(cluster).items():
            (folder / f"{process}.log").write_text(text[marks[process] :])
        (folder / "events.txt").write_text(cluster.kubectl("get", "events", "-A", check=False))
        (folder / "pods.txt").write_text(cluster.kubectl("get", "pods", "-A", "-o", "wide", check=False))


def note(name: str, storm: Storm, figures: dict[str, float]) -> None:
    """A line in the output, and in the full size an entry in the file."""
    ours, theirs = figures.get("orbweaver"), figures.get("host-local")
    told = f"storm {name}: {storm.pods} pods on {storm.addresses} addresses"
    told += f": {ours:.1f} s" if ours is not None else ": not over in time"
    told += f", host-local {theirs:.1f} s" if theirs else ""
    told += f", ratio {ours / theirs:.2f}" if ours and theirs else ""
    print(told)
    if FIGURES:
        file = Path(FIGURES)
        entries = json.loads(file.read_text()) if file.exists() else []
        entries.append({"storm": name, "pods": storm.pods, "addresses": storm.addresses, "seconds": figures})
        file.write_text(json.dumps(entries, indent=1))
