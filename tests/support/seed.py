"""The seed of a test that takes random decisions; it stands in the test's id, so that a failure can be repeated."""

from __future__ import annotations

import os
import random


def fresh_seed() -> int:
    """Another one in every run, and the same in all worker processes of one: they must agree on the tests' ids."""
    return random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID")).randrange(1_000_000)
