"""The quick starts of docs/: their commands are run from the page, and what they print is compared with the page."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.deployment import CONFLIST, POOL, VALUES, helm, records, release
from tests.support.helm import CHART
from tests.tools.gomodule import ROOT

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

PAGES = sorted((ROOT / "docs" / "en").glob("*.md"))
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What is another one on each cluster and each time.
_MASKS = (
    (r"-[0-9a-f]{8,10}-[a-z0-9]{5}\b", "-POD"),
    (r"\b(auto[46]-[a-z0-9-]+)-[0-9a-f]{5}\b", r"\1-SUFFIX"),
    (r"\b(\d+d)?(\d+h)?(\d+m)?\d+s\b|\b\d+m\b", "AGE"),
    (r"[\d.]+/[\d.]+/[\d.]+ ms", "TIMES"),
    (r"\bn[12]\b", "NODE"),
    (r" from [\w-]+ namespace$", ""),
    # The pods' ping is that of the machine's busybox or of iputils, which say the same in other words.
    (r":? 56(\(84\) bytes of data\.| data bytes)$", " DATA"),
    (r"(\d+) (packets )?received, (\d+% packet loss)(, time \d+\s*\w+)?$", r"\1 received, \3"),
    (r"^(rtt|round-trip) min/avg/max(/mdev)? = .*$", "TIMES"),
)


def fences(page: Path) -> list[tuple[str, str]]:
    """Each block of code with its language."""
    return [(match[1], match[2]) for match in _FENCE.finditer(page.read_text())]


def comparable(text: str, *, repeated: bool = False) -> list[str]:
    """Its lines in an order that does not depend on which pod was first, without what differs each time. `repeated`: some
    pod's start was, which gave it another address than the page has."""
    masks = (*_MASKS, (r"\b10(\.\d+){3}\b", "ADDRESS")) if repeated else _MASKS
    lines = []
    for line in text.splitlines():
        line = line.rstrip()
        for pattern, mask in masks:
            line = re.sub(pattern, mask, line)
        if line.split():
            lines.append(" ".join(line.split()))
    return sorted(lines)


@pytest.fixture(scope="module")
def programs(deployed: Cluster) -> Iterator[Path]:
    """A directory with kubectl and helm for the cluster; afterwards the cluster is as it was."""
    directory = deployed.directory / "page-bin"
    directory.mkdir()
    values = {key: value for key, value in VALUES.items() if key != "clusterDefaultPool"}
    (deployed.directory / "page-values.json").write_text(json.dumps(values))
    # A subnet that lacks the addresses of a pool in its CIDR would be refused, and readers have no such pool.
    deployed.kubectl("delete", "spiderippool", POOL["metadata"]["name"], "--timeout=180s")
    inside = f"nsenter --net=/run/netns/{deployed.netns}"
    command = Path(__file__).parents[1] / "support" / "helm_command.py"
    for name, program in {
        "kubectl": f"{inside} {deployed.programs.kubectl}",
        "helm": f"{inside} {sys.executable} -P {command}",
    }.items():
        script = directory / name
        script.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    yield directory
    with helm(deployed) as asked:
        asked.ask(
            "upgrade", chart=str(CHART), values=VALUES, timeout=600, wait="watcher", **release(deployed)
        )


def run(cluster: Cluster, programs: Path, commands: str) -> str:
    """What the commands print."""
    environment = {
        "PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(cluster.directory),  # kubectl keeps what it learnt below it
        "KUBECONFIG": str(cluster.kubeconfig("admin")),
        "HELM_VALUES": str(cluster.directory / "page-values.json"),
    }
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", commands],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def failed_starts(cluster: Cluster) -> int:
    """How often a kubelet had to repeat a pod's start, so far."""
    reason = "reason=FailedCreatePodSandBox"
    return sum(event.get("count") or 1 for event in cluster.items("events", "--field-selector", reason))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_commands_print_what_it_says(deployed: Cluster, programs: Path, page: Path) -> None:
    printed, before = "", failed_starts(deployed)
    try:
        for language, text in fences(page):
            match language:
                case "sh":
                    printed = run(deployed, programs, text)
                case "text":
                    repeated = failed_starts(deployed) > before  # the machine stood still
                    assert comparable(printed, repeated=repeated) == comparable(text, repeated=repeated)
                case "json":
                    configuration = json.loads(text.replace('"calico"', '"bridge"'))
                    for node in deployed.nodes.values():
                        node.configure(configuration)
    except BaseException:
        deployed.kubectl("delete", "deployments,statefulsets,daemonsets,pods", "--all", check=False)
        raise
    finally:
        for node in deployed.nodes.values():
            node.configure(CONFLIST)
    deployed.wait("no pod is left", lambda: not deployed.items("pods"), 180)
    deployed.wait("nothing is recorded any more", lambda: records(deployed) == [])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_chinese_page_has_the_same_commands_and_headings(page: Path) -> None:
    chinese = ROOT / "docs" / "zh" / page.name
    levels = re.compile(r"^#+(?= )", re.MULTILINE)

    assert fences(chinese) == fences(page)
    outside = [_FENCE.sub("", one.read_text()) for one in (page, chinese)]
    assert levels.findall(outside[0]) == levels.findall(outside[1])
    assert re.search(r"[\u4e00-\u9fff]", outside[1])
