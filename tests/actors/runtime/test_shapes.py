"""The check of what a peer sends against annotations."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from actors.errors import ProtocolError
from actors.runtime import get
from actors.runtime.shapes import fits
from tests.actors.runtime.cast import Colour, Point
from tests.actors.runtime.conftest import Place


@pytest.mark.parametrize(
    "value, annotation",
    [
        (1, int),
        (1, float),
        (1.5, float),
        (None, Optional[int]),  # noqa: UP045 - the other spelling
        ("a", str | None),
        ((), tuple[int, ...]),
        ((1, 2), tuple[int, ...]),
        ((4, 1, "7"), tuple[int, int, str]),
        ({"a": 1}, dict[str, int]),
        ([1.0], list[float]),
        (frozenset({"a"}), frozenset[str]),
        (Point(1, 2), Point),
        (Colour.RED, Colour),
        (object, Any),
    ],
)
def test_what_fits(value, annotation):
    assert fits(value, annotation)


@pytest.mark.parametrize(
    "value, annotation",
    [
        (True, int),
        (1, bool),
        ("1", int),
        (None, int),
        ([1], tuple[int, ...]),
        ((1, "2"), tuple[int, ...]),
        ((4, 1), tuple[int, int, str]),
        ({1: 1}, dict[str, int]),
        (Point(1, 2), Colour),
        ("red", Colour),
        (1, "an annotation that means nothing"),
    ],
)
def test_what_does_not(value, annotation):
    assert not fits(value, annotation)


def test_arguments_of_another_type_are_the_caller_s_fault(place: Place):
    """No handler meets them, so no actor crashes of them."""
    if place.served is None:
        pytest.skip("within a process the type checker stands for it")
    worker = place.actor("worker/typed")
    for ref in (worker.later.remote("soon", 1), worker.let_go.remote(1, 2), worker.crash.remote(text=3)):
        with pytest.raises(ProtocolError, match="came as"):
            get(ref, timeout=60)
    for ref in (worker.echo.remote(1, 2), worker.echo.remote(other=1), worker.not_a_message.remote()):
        with pytest.raises(ProtocolError):
            get(ref, timeout=60)
    assert get(worker.activations.remote(), timeout=60) == 1
