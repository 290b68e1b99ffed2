"""Ten thousand inputs for each reader, the same in every run; `./try fuzz` goes on with others (`run.py`)."""

from __future__ import annotations

import zlib

import pytest

from tests.fuzz.corpus import corpus_of
from tests.fuzz.mutation import Mutator
from tests.fuzz.targets import TARGETS

INPUTS = 10_000
"""A second or two for each reader on an idle machine."""


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_ends_with_a_value_or_an_error_of_ours(name: str) -> None:
    target, corpus = TARGETS[name], corpus_of(name)
    for text in corpus:
        target(text)
    mutated = iter(Mutator(corpus, zlib.crc32(name.encode())))
    for _ in range(INPUTS):
        text = next(mutated)
        try:
            target(text)
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error} for {text[:2000]!a}")


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_has_something_that_the_reader_takes(name: str) -> None:
    assert any(TARGETS[name](text).startswith("value") for text in corpus_of(name))


def test_the_same_seed_gives_the_same_inputs() -> None:
    def some(seed: int) -> list[str]:
        mutated = iter(Mutator(["[1, 2]"], seed))
        return [next(mutated) for _ in range(50)]

    assert some(1) == some(1) != some(2)
