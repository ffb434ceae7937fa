"""`StructuredOutput`: what a request may say of the form of its text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from vcore import SamplingParams, StructuredOutput
from vcore.errors import RequestError
from vcore.structured_output import StructuralTag, Tag


class Person(BaseModel):
    """A model whose schema is asked for."""

    zeta: int
    alpha: str


def test_a_schema_is_kept_as_text_with_its_keys_in_order() -> None:
    schema = {"type": "object", "properties": {"z": {"const": "é"}, "a": {}}}
    form = StructuredOutput(json_schema=schema)
    assert form.json_schema == '{"type": "object", "properties": {"z": {"const": "é"}, "a": {}}}'
    assert StructuredOutput(json_schema=form.json_schema) == form
    assert hash(form) == hash(StructuredOutput(json_schema=schema))
    assert StructuredOutput(json_schema=True).json_schema == "true"
    assert list(json.loads(StructuredOutput(json_schema=Person).json_schema or "")["properties"]) == ["zeta", "alpha"]


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        ("json_schema", {"json_schema": "{}"}),
        ("json_object", {"json_object": True}),
        ("regex", {"regex": "a+", "after": "</think>"}),
        ("choice", {"choice": ["a", "b"]}),
        ("grammar", {"grammar": "start: /a/"}),
        ("structural_tag", {"structural_tag": {"structures": [{"begin": "<a>", "schema": {}, "end": "</a>"}]}}),
    ],
)
def test_it_says_its_form_and_crosses_as_plain_data(form: str, fields: dict[str, Any]) -> None:
    structured = StructuredOutput(**fields)
    assert structured.form == form
    params = SamplingParams(structured_output=structured)
    assert SamplingParams(**json.loads(params.model_dump_json(exclude_defaults=True))) == params
    assert SamplingParams(**params.model_dump()) == params


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({}, "structured_output", "exactly one of .*got none"),
        ({"regex": "a", "json_object": True}, "structured_output", "got json_object and regex"),
        ({"rejex": "a"}, "structured_output.rejex", "is no field; known: json_schema"),
        ({"json_schema": "{"}, "structured_output.json_schema", "no JSON"),
        ({"json_schema": "[]"}, "structured_output.json_schema", "an object, true or false, got list"),
        ({"json_schema": 3}, "structured_output.json_schema", "got int"),
        ({"json_schema": {"a": {1}}}, "structured_output.json_schema", "cannot be written as JSON"),
        ({"json_schema": "[" * 100_000}, "structured_output.json_schema", "no JSON"),
        ({"regex": ""}, "structured_output.regex", "at least 1 character"),
        ({"regex": "a" * (1 << 21)}, "structured_output.regex", "at most 1048576 characters"),
        ({"choice": []}, "structured_output", "choice is empty"),
        ({"choice": [""]}, "structured_output.choice.0", "at least 1 character"),
        ({"structural_tag": {"structures": []}}, "structured_output.structural_tag.structures", "at least 1 item"),
        (
            {"structural_tag": {"structures": [{"begin": "<a>", "schema": {}}], "triggers": ["<b>"]}},
            "structured_output.structural_tag",
            "begins with none of",
        ),
    ],
)
def test_what_is_wrong_is_a_request_error(fields: dict[str, Any], param: str, message: str) -> None:
    for make in (lambda: StructuredOutput(**fields), lambda: SamplingParams(structured_output=fields)):
        with pytest.raises(RequestError, match=message) as caught:
            make()
        assert caught.value.param == param
        assert len(str(caught.value)) < 1000


def test_a_least_length_contradicts_a_form() -> None:
    with pytest.raises(RequestError, match="min_tokens=3 and structured_output contradict each other"):
        SamplingParams(min_tokens=3, structured_output={"regex": "a"})


def test_a_tag_is_triggered_by_the_longest_of_its_triggers() -> None:
    tags = [Tag(begin="<ab>", json_schema="{}"), Tag(begin="<c>", json_schema="{}")]
    structural = StructuralTag(structures=tuple(tags), triggers=("<", "<a"))
    assert [structural.trigger_of(tag) for tag in tags] == ["<a", "<"]
    assert StructuralTag(structures=tuple(tags)).trigger_of(tags[0]) == "<ab>"
