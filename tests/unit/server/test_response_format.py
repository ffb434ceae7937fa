"""`from_response_format`: the ways in which a client of OpenAI's API asks for a form."""

from __future__ import annotations

from typing import Any

import pytest

from vcore import StructuredOutput
from vcore.errors import RequestError
from vcore.server.structured_output import from_response_format

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("asked", "form"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, {"json_object": True}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "strict": True, "schema": SCHEMA},
                }
            },
            {"json_schema": SCHEMA},
        ),
        ({"response_format": {"type": "regex", "regex": "a+"}}, {"regex": "a+"}),
        ({"response_format": {"type": "choice", "choice": ["a"]}}, {"choice": ["a"]}),
        ({"response_format": {"type": "grammar", "grammar": "start: /a/"}}, {"grammar": "start: /a/"}),
        (
            {"response_format": {"type": "structural_tag", "structures": [{"begin": "<", "schema": {}, "end": ">"}]}},
            {"structural_tag": {"structures": [{"begin": "<", "schema": {}, "end": ">"}]}},
        ),
        ({"structured_outputs": {"json": SCHEMA}}, {"json_schema": SCHEMA}),
        ({"structured_outputs": {"regex": "a"}}, {"regex": "a"}),
        ({"guided_json": SCHEMA}, {"json_schema": SCHEMA}),
        ({"guided_regex": "a", "guided_choice": None}, {"regex": "a"}),
        ({"guided_choice": ["a", "b"], "response_format": {"type": "text"}}, {"choice": ["a", "b"]}),
        ({"guided_grammar": "start: /a/"}, {"grammar": "start: /a/"}),
    ],
)
def test_what_is_asked_for(asked: dict[str, Any], form: dict[str, Any] | None) -> None:
    assert from_response_format(**asked) == (None if form is None else StructuredOutput(**form))


@pytest.mark.parametrize(
    ("asked", "param", "message"),
    [
        ({"response_format": "json"}, "response_format", "must be an object, got str"),
        ({"response_format": {}}, "response_format.type", "is None; expected one of text, json_schema"),
        ({"response_format": {"type": ["x"]}}, "response_format.type", "expected one of"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "got NoneType"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "response_format.json_schema",
            "schema is missing",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": 3}}},
            "response_format.json_schema.schema",
            "got int",
        ),
        ({"response_format": {"type": "regex"}}, "response_format.regex", "is missing"),
        ({"response_format": {"type": "regex", "regex": "a", "color": 1}}, "response_format", "color is no field"),
        ({"structured_outputs": ["a"]}, "structured_outputs", "must be an object"),
        ({"structured_outputs": {}}, "structured_outputs", "exactly one of"),
        ({"structured_outputs": {"regex": "a", "json": {}}}, "structured_outputs", "got json_schema and regex"),
        ({"guided_json": "{"}, "guided_json", "no JSON"),
        ({"guided_regex": "a", "guided_json": {}}, "guided_json", "guided_regex and guided_json were both given"),
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex", "both given"),
    ],
)  # fmt: skip
def test_what_is_wrong_names_the_field(asked: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        from_response_format(**asked)
    assert caught.value.param == param


def test_an_unknown_guided_field_is_the_callers_mistake() -> None:
    with pytest.raises(TypeError, match="'guided_poem' is no guided field"):
        from_response_format(guided_poem="x")
