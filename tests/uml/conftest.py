"""The tests in this folder run on a kernel of their own, in User-Mode Linux, and are reported as if they ran here.

How it works. Outside, a file's tests are handed as a whole to a pytest inside a guest, which writes each report to a
shared file; every report is then passed on under the test's own name, with its duration, output and traceback. Inside,
the same files run as they stand.
What must always hold: a test without a report fails, with what the guest said; without User-Mode Linux the tests are
skipped, with what would bring it; each waits a bounded time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import uml
from tests.tools.gomodule import ProgramMissing

HERE = Path(__file__).parent
REPORTS = "reports"
"""The file that is shared."""
TIMEOUT_INSIDE, TIMEOUT, TIMEOUT_OUTSIDE = 900, 960.0, 1020
"""Seconds for one test: after the first, what hangs inside is told with its stack; after the second the guest is given up;
the third is pytest's own. Long, because the slowest test took 47 seconds at a load of 8 on two cores, and 120 at 20."""
_PASSED_ON = ("CNI_BIN", "HOME", "HYPOTHESIS_PROFILE", "LANG", "ORBWEAVER_", "PYTHON", "VIRTUAL_ENV", "XDG_")


class Files:
    """The guests, one for each file of tests, and what they have reported."""

    def __init__(self, config: pytest.Config, kernel: uml.Kernel, items: list[pytest.Item]) -> None:
        self._config, self._kernel = config, kernel
        self._items: dict[Path, list[str]] = {}
        for item in items:
            self._items.setdefault(item.path, []).append(item.nodeid)
        self._guests: dict[Path, uml.Guest] = {}

    def reports(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        """The reports of one test, up to that of its teardown, as they arrive."""
        guest = self._guests.get(item.path) or self._boot(item.path)
        seen = 0
        waiting_since = time.monotonic()
        while True:
            ended = guest.status() is not None
            lines = _lines(guest.shared / REPORTS)
            for line in lines[seen:]:
                data = json.loads(line)
                if data["nodeid"] == item.nodeid:
                    if isinstance(data["longrepr"], list):  # of a skip; JSON has no tuples
                        data["longrepr"] = tuple(data["longrepr"])
                    report = pytest.TestReport._from_json(data)
                    yield report
                    if report.when == "teardown":
                        return
            seen = len(lines)
            assert not ended, f"the guest did not report on this test; {guest.said()}"
            assert time.monotonic() - waiting_since < TIMEOUT, f"the guest hangs; {guest.said()}"
            time.sleep(0.05)

    def _boot(self, path: Path) -> uml.Guest:
        arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--timeout={TIMEOUT_INSIDE}"]
        environment = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
        guest = uml.Guest(
            self._kernel,
            [sys.executable, "-P", "-m", "pytest", *arguments, *self._items[path]],
            self._config.rootpath,
            environment,
        )
        self._guests[path] = guest
        return guest

    def close(self) -> None:
        for guest in self._guests.values():
            guest.close()


def _lines(path: Path) -> list[str]:
    """The whole ones."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


_FILES = pytest.StashKey[Files]()


def pytest_collection_finish(session: pytest.Session) -> None:
    mine = [item for item in session.items if item.path.is_relative_to(HERE)]
    if uml.INSIDE in os.environ or not mine:
        return
    try:
        kernel = uml.find()
    except ProgramMissing as missing:
        for item in mine:
            item.add_marker(pytest.mark.skip(reason=str(missing)))
    else:
        for item in mine:
            item.add_marker(pytest.mark.timeout(TIMEOUT_OUTSIDE))
        session.config.stash[_FILES] = Files(session.config, kernel, mine)


def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    files = item.config.stash.get(_FILES, None)
    if files is None or not item.path.is_relative_to(HERE):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    try:
        for report in files.reports(item):
            item.ihook.pytest_runtest_logreport(report=report)
    except ProgramMissing as missing:
        why = (str(item.path), item.location[1] or 0, f"Skipped: {missing}")
        skipped = pytest.TestReport(item.nodeid, item.location, {}, "skipped", why, "call")
        item.ihook.pytest_runtest_logreport(report=skipped)
    except AssertionError as error:
        lost = pytest.TestReport(item.nodeid, item.location, {}, "failed", str(error), "call")
        item.ihook.pytest_runtest_logreport(report=lost)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_sessionfinish(session: pytest.Session) -> None:
    files = session.config.stash.get(_FILES, None)
    if files is not None:
        files.close()


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    shared = os.environ.get(uml.INSIDE)
    if shared is not None:
        with Path(shared, REPORTS).open("a") as file:
            file.write(json.dumps(report._to_json()) + "\n")
