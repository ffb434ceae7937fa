"""`JsonScanner` against Python's own parser: where a value ends, and that it is none."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vcore_model_zoo.chat_formats.json_scanner import JsonScanner, Step

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
BROKEN = st.text(alphabet='{}[]",:\\ntrue1-.e0 u', max_size=14)


def scan(text: str) -> tuple[Step, int]:
    """What ended the scan, and how many characters were taken; `Step.MORE` if nothing did."""
    scanner = JsonScanner()
    for position, character in enumerate(text):
        step = scanner.push(character)
        if step is not Step.MORE:
            return step, position + (step is Step.DONE)
    return Step.MORE, len(text)


@given(value=VALUES, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_value_ends_where_it_ends(value: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    step, taken = scan(f" \n{text} ...")
    assert step in (Step.DONE, Step.PAST)
    assert taken == len(text) + 2


@given(text=BROKEN)
@settings(max_examples=400, deadline=None)
def test_it_agrees_with_the_parser_on_what_is_json(text: str) -> None:
    """What ends is JSON; what is bad is the beginning of none; what goes on is not complete, but for a number."""
    step, taken = scan(text)
    if step in (Step.DONE, Step.PAST):
        json.loads(text[:taken], strict=False)
        return
    if step is Step.BAD:
        with pytest.raises(ValueError):
            json.loads(text, strict=False)
        return
    with contextlib.suppress(ValueError):
        assert isinstance(json.loads(text, strict=False), int | float)


@pytest.mark.parametrize(
    "text",
    ["]", "{,", "{'a'", '{"a" 1', '{"a":1,}', "[1,]", "01 ", "1.e ", "- ", "nul1", "tru]",
     r'"\x', r'"\u12g', "+1", "NaN"],
)  # fmt: skip
def test_what_begins_no_json_is_bad(text: str) -> None:
    assert scan(text)[0] is Step.BAD


def test_control_characters_may_stand_in_strings_and_it_says_when_it_is_in_one() -> None:
    scanner = JsonScanner()
    inside = []
    for character in '{"a\n":"\t\\u00e9","b":[1]}':
        inside.append(scanner.in_string)
        step = scanner.push(character)
    assert step is Step.DONE
    assert "".join("^" if one else "." for one in inside) == "..^^^..^^.....^..^^....."
