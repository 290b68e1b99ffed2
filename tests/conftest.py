"""What every test may ask for, and the guard that the tests see the installed wheel."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import actors
from tests.tools import reference

_ROOT = Path(__file__).resolve().parent.parent
_CODE = Path(actors.__file__ or "").resolve()


def pytest_report_header() -> list[str]:
    try:
        plugins = str(reference.cni_bin())
    except reference.ProgramMissing as missing:
        plugins = f"none, {missing}"
    return [f"orbweaver: {_CODE.parent.parent}", f"CNI plugins: {plugins}"]


def pytest_configure() -> None:
    # A wheel that lacks a file passes every test that runs in the working tree.
    if os.environ.get("ORBWEAVER_TEST_INSTALLED") and _CODE.is_relative_to(_ROOT / "actors"):
        raise pytest.UsageError(f"the tests are to run on the installed wheel, but actors is {_CODE}")


@pytest.fixture(scope="session")
def cni_bin() -> Path:
    """The directory of the real reference plugins; without them the test is skipped and says why."""
    return _or_skip(reference.cni_bin)


@pytest.fixture(scope="session")
def cnitool() -> Path:
    """The real CNI client; without it the test is skipped and says why."""
    return _or_skip(reference.cnitool)


def _or_skip(find: Callable[[], Path]) -> Path:
    try:
        return find()
    except reference.ProgramMissing as missing:
        pytest.skip(str(missing))
