"""From what a client of the OpenAI API asks for to a `StructuredOutput`: `response_format`, and the guided fields.

    {"type": "text"}                                              none
    {"type": "json_object"}                                       any JSON object
    {"type": "json_schema", "json_schema": {"schema": {...}}}     a schema
    {"type": "regex" | "grammar" | "choice" | ..., ...}           see `StructuredOutput`

Guided fields, which OpenAI's API does not have: ``structured_outputs``, an object with the fields of
`StructuredOutput` (and ``json`` for ``json_schema``), or ``guided_json``, ``guided_regex``, ``guided_choice``,
``guided_grammar``, each with the value itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vcore.errors import RequestError
from vcore.structured_output import STRUCTURED_OUTPUT_FORMS, StructuredOutput

__all__ = ["GUIDED_FIELDS", "from_response_format"]

GUIDED_FIELDS: Mapping[str, str] = {
    "guided_json": "json_schema",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
}
"""Fields of a request, with the form that each states."""
_TYPES = ("text", *STRUCTURED_OUTPUT_FORMS)


def from_response_format(
    response_format: Mapping[str, Any] | None = None,
    *,
    structured_outputs: Mapping[str, Any] | None = None,
    **guided: Any,
) -> StructuredOutput | None:
    """The form that a request asks for; None if it asks for none.

    Args:
        response_format: as OpenAI's API has it.
        structured_outputs: fields of `StructuredOutput`.
        guided: those of `GUIDED_FIELDS` that the request has; None counts as absent.

    Raises:
        RequestError: it is malformed, or several were given; `param` names the field.
    """
    asked: dict[str, StructuredOutput] = {}
    if response_format is not None and (found := _of_response_format(response_format)) is not None:
        asked["response_format"] = found
    if structured_outputs is not None:
        fields = _object(structured_outputs, "structured_outputs")
        if "json" in fields:
            fields = {"json_schema": fields["json"], **{key: one for key, one in fields.items() if key != "json"}}
        asked["structured_outputs"] = _make("structured_outputs", fields)
    for field, value in guided.items():
        if field not in GUIDED_FIELDS:
            raise TypeError(f"{field!r} is no guided field; known: {', '.join(GUIDED_FIELDS)}")
        if value is not None:
            asked[field] = _make(field, {GUIDED_FIELDS[field]: value})
    if len(asked) > 1:
        first, second, *_ = asked
        raise RequestError(f"{first} and {second} were both given; leave one out", param=second)
    return next(iter(asked.values()), None)


def _of_response_format(value: Mapping[str, Any]) -> StructuredOutput | None:
    fields = _object(value, "response_format")
    kind = fields.pop("type", None)
    if kind not in _TYPES:
        raise RequestError(
            f"response_format.type is {kind!r:.80}; expected one of {', '.join(_TYPES)}", param="response_format.type"
        )
    if kind == "text":
        return None
    if kind == "json_object":
        return StructuredOutput(json_object=True)
    if kind == "json_schema":
        return _of_json_schema(fields.get("json_schema"))
    if kind == "structural_tag" and kind not in fields:
        fields = {kind: fields}
    if kind not in fields:
        raise RequestError(
            f"response_format.{kind} is missing; expected it beside the type", param=f"response_format.{kind}"
        )
    return _make("response_format", fields)


def _of_json_schema(value: object) -> StructuredOutput:
    """OpenAI wraps the schema with a name and more; the schema alone will do, if it is told by ``schema``."""
    param = "response_format.json_schema"
    wrapper = _object(value, param)
    if "schema" not in wrapper:
        raise RequestError(f'{param}.schema is missing; expected {{"name": ..., "schema": {{...}}}}', param=param)
    return _make(f"{param}.schema", {"json_schema": wrapper["schema"]})


def _make(param: str, fields: Mapping[str, Any]) -> StructuredOutput:
    try:
        return StructuredOutput(**fields)
    except RequestError as error:
        message = str(error).removeprefix("structured_output").lstrip(".: ")  # which no request has a field for
        raise RequestError(f"{param}: {message}", param=param) from None


def _object(value: object, param: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise RequestError(f"{param} must be an object, got {type(value).__name__}", param=param)
    return dict(value)
