"""Errors in the words of the client's request."""

from __future__ import annotations

import pytest

from vcore.errors import RequestError, RequestTooLargeError
from vcore.server.errors import ApiError
from vcore.server.field_names import FieldNames

NAMES = FieldNames((("prompt(?:_token_ids)?", "input"), (r"(tools\[\d+\])\.function", r"\1"), ("max_tokens", "limit")))


@pytest.mark.parametrize(
    ("message", "param", "expected"),
    [
        ("prompt_token_ids has 9", "prompt_token_ids", ("input has 9", "input")),
        ("the prompt is empty", "prompt", ("the prompt is empty", "input")),
        ("tools[3].function.name is 1", "tools[3].function.name", ("tools[3].name is 1", "tools[3].name")),
        ("4 + 5; lower max_tokens", "max_tokens", ("4 + 5; lower limit", "limit")),
        ("max_tokens_more is wrong", "max_tokens_more", ("max_tokens_more is wrong", "max_tokens_more")),
        ("top_p: is wrong", "top_p", ("top_p: is wrong", "top_p")),
        ("SamplingParams: n=1 contradicts", None, ("n=1 contradicts", None)),
        ("SamplingParams.n: is wrong", "n", ("n: is wrong", "n")),
        ("prompt_token_ids", None, ("prompt_token_ids", None)),
    ],
)
def test_names_are_exchanged(message: str, param: str | None, expected: tuple[str, str | None]) -> None:
    assert NAMES.reworded(message, param) == expected


def test_what_a_block_raises_keeps_its_kind_and_its_cause() -> None:
    first = RequestTooLargeError("4 + 5 is too much for max_tokens", param="max_tokens")
    with pytest.raises(RequestTooLargeError, match="too much for limit") as caught, NAMES.applied():
        raise first
    assert caught.value.param == "limit"
    assert caught.value.__cause__ is first
    same = RequestError("top_p is wrong", param="top_p")
    with pytest.raises(RequestError) as caught, NAMES.applied():
        raise same
    assert caught.value is same
    answer = ApiError(400, "prompt_token_ids is wrong", param="prompt_token_ids")
    with pytest.raises(ApiError) as told, NAMES.applied():
        raise answer
    assert (told.value.message, told.value.param) == ("input is wrong", "input")


def test_the_form_has_the_name_of_the_field_that_asked_for_it() -> None:
    assert NAMES.of_form(None) is NAMES
    names = NAMES.of_form("guided_regex")
    assert names.reworded("structured_output.regex: bad", "structured_output.regex") == (
        "guided_regex: bad",
        "guided_regex",
    )
    assert names.reworded("prompt_token_ids has 9", "prompt_token_ids")[1] == "input"
