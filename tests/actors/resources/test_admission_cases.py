"""`admit` decides the cases that the CRDs and policies of `deploy/` decide, in the same way."""

from __future__ import annotations

import pytest

from tests.actors.resources.admission_cases import CASES, Case, judged, titles


@pytest.mark.parametrize("case", CASES, ids=titles(CASES))
def test_a_case_is_decided_as_the_table_says(case: Case) -> None:
    said = judged(case)

    assert bool(said) == bool(case.names), said
    assert case.names in said
