"""Foreign JSON: read within bounds, or refused in one clause, in time that grows with its length only."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.resources.fields import shown
from actors.resources.json_text import UnreadableText, read_json, read_shallow, showable

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


def deep(levels: int) -> str:
    return '{"a":[' * (levels // 2) + "1" + "]}" * (levels // 2)


@given(VALUES)
def test_whatever_can_be_shown_is_read_as_json_reads_it(value: object) -> None:
    text = json.dumps(value)
    try:
        assert read_json(text, deepest=99, only_showable=False) == value
    except UnreadableText:
        assert "\\ud" in text


@pytest.mark.parametrize("levels", [18, 900, 30000])
def test_nesting_is_refused_before_it_is_parsed(levels: int) -> None:
    with pytest.raises(UnreadableText, match="nested deeper than 16"):
        read_json(deep(levels), longest=10**6)


def test_brackets_in_texts_are_no_nesting() -> None:
    assert read_json(json.dumps(["[{" * 50, '\\"[' * 50])) == ["[{" * 50, '\\"[' * 50]


def test_a_text_over_its_bound_is_refused_by_its_bytes() -> None:
    assert read_json('"' + "a" * 8 + '"', longest=10) == "a" * 8
    with pytest.raises(UnreadableText, match="it has 12 bytes, but may have 10"):
        read_json('"' + "ä" * 5 + '"', longest=10)
    with pytest.raises(UnreadableText, match="it has 11 bytes"):
        read_json("\ud800" * 3 + "aa", longest=10)


@pytest.mark.parametrize("text", ['"\\ud800"', '{"\\udc00":1}', '["a\\u0000"]', '"\\u001b[2J"', '"\\u200e"'])
def test_what_cannot_be_shown_is_refused(text: str) -> None:
    with pytest.raises(UnreadableText, match="control character"):
        read_json(text)


def test_others_may_write_control_characters_but_nothing_without_an_encoding() -> None:
    assert read_json('"a\\nb"', only_showable=False) == "a\nb"
    with pytest.raises(UnreadableText):
        read_json('"\\udc00"', only_showable=False)


@pytest.mark.parametrize(
    "text", ['"' + '\\"' * 32000, "[" * 32000 + '"', '["' * 20000, "\\" * 60000, '{"a":"\\' * 9000]
)
def test_the_time_grows_with_the_length_only(text: str) -> None:
    def cpu(given: str) -> float:
        began = time.process_time()
        with pytest.raises(UnreadableText):
            read_json(given, longest=10**7)
        return time.process_time() - began

    short = max(cpu(text), 0.001)
    # The least of some: a collection of the interpreter's garbage falls into one now and then.
    assert min(cpu(text * 8) for _ in range(5)) < 8 * 8 * short


def test_one_deep_object_in_an_answer_costs_itself() -> None:
    answer = f'{{"items":[{{"name":"a","x":{deep(40000)}}},{{"name":"b","y":[[1]]}}]}}'

    found = read_shallow(answer.encode())
    assert [one["name"] for one in found["items"]] == ["a", "b"]
    assert found["items"][1]["y"] == [[1]]
    assert len(json.dumps(found)) < 2000


@pytest.mark.parametrize("answer", [b"[" * 5000, b"]" * 5000 + b"[" * 5000, b"", b"\xff"])
def test_what_is_no_answer_is_an_error_of_the_value(answer: bytes) -> None:
    with pytest.raises(ValueError):
        read_shallow(answer)


def test_a_refusal_can_show_anything() -> None:
    nested: object = 1
    for _ in range(5000):
        nested = [nested]

    assert shown(nested) == "a list that is nested too deep to be shown"
    assert shown("\ud800\x1b") == '"\\ud800\\u001b"'
    assert showable("a\ud800\n") == "a\\ud800\\n"
    assert len(shown("x" * 10**6)) == 120


@pytest.mark.parametrize("value", [1 << 100_000, [1 << 100_000], {"vlan": -(1 << 100_000)}], ids=type)
def test_an_integer_of_more_digits_than_python_prints_can_be_refused(value: object) -> None:
    """YAML has them in hexadecimal, so a manifest of 25 kB ended `apply` with a traceback."""
    assert shown(value) == f"a {type(value).__name__} that is too large to be shown"
