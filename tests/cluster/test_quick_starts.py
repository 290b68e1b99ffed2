"""The quick starts of docs/: their commands are run from the page, and what they print is compared with the page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.deployment import CONFLIST, POOL, VALUES, helm, records, release
from tests.cluster.pages import FENCE, comparable, failed_starts, fences, run, write_programs
from tests.support.helm import CHART
from tests.tools.gomodule import ROOT

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

PAGES = sorted((ROOT / "docs" / "en").glob("*.md"))
RUN = [page for page in PAGES if not page.stem.startswith("takeover-")]
"""Without those that need another IPAM, which the tests of takeovers run."""


@pytest.fixture(scope="module")
def programs(deployed: Cluster) -> Iterator[Path]:
    """A directory with kubectl and helm for the cluster; afterwards the cluster is as it was."""
    # A subnet that lacks the addresses of a pool in its CIDR would be refused, and readers have no such pool.
    deployed.kubectl("delete", "spiderippool", POOL["metadata"]["name"], "--timeout=180s")
    yield write_programs(
        deployed, {key: value for key, value in VALUES.items() if key != "clusterDefaultPool"}
    )
    with helm(deployed) as asked:
        asked.ask(
            "upgrade", chart=str(CHART), values=VALUES, timeout=600, wait="watcher", **release(deployed)
        )


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
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
        clean_up(deployed, programs, page)
        raise
    finally:
        for node in deployed.nodes.values():
            node.configure(CONFLIST)
    deployed.wait("no pod is left", lambda: not deployed.items("pods"), 180)
    deployed.wait("nothing is recorded any more", lambda: records(deployed) == [])


def clean_up(deployed: Cluster, programs: Path, page: Path) -> None:
    """Delete what a page had made when it failed, as its own last commands do: no other test is to meet it."""
    deployed.kubectl("delete", "deployments,statefulsets,daemonsets,pods", "--all", check=False)
    for language, text in fences(page):
        for line in text.splitlines() if language == "sh" else ():
            if " delete " in line:
                run(deployed, programs, f"{line} || true")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_chinese_page_has_the_same_commands_and_headings(page: Path) -> None:
    chinese = ROOT / "docs" / "zh" / page.name
    levels = re.compile(r"^#+(?= )", re.MULTILINE)

    assert fences(chinese) == fences(page)
    outside = [FENCE.sub("", one.read_text()) for one in (page, chinese)]
    assert levels.findall(outside[0]) == levels.findall(outside[1])
    assert re.search(r"[\u4e00-\u9fff]", outside[1])
