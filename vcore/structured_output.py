"""`StructuredOutput`: the form that a request's text must have. Data alone: a logits-processor plugin enforces it.

Texts of schemas are kept as JSON text, so that the object is frozen, hashable and small on a wire.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vcore.errors import RequestError

__all__ = ["STRUCTURED_OUTPUT_FORMS", "StructuralTag", "StructuredOutput", "Tag"]

STRUCTURED_OUTPUT_FORMS = ("json_schema", "json_object", "regex", "choice", "grammar", "structural_tag")
"""The ways to state a form, of which a `StructuredOutput` has exactly one."""

MAX_TEXT = 1 << 20
"""Most characters of a schema, expression or grammar."""

Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]


class Tag(BaseModel):
    """One tagged part of a text: what begins it, what JSON stands in it, what ends it."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    begin: Text
    """Such as ``<tool_call>{"name": "f", "arguments": ``."""
    json_schema: Text = Field(alias="schema")
    """JSON text of the schema of what stands between; an object or a boolean is written as text."""
    end: str = ""
    """Such as ``}</tool_call>``."""

    @field_validator("json_schema", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return schema_text(value)

    @property
    def schema_value(self) -> Any:
        """The schema, parsed."""
        return json.loads(self.json_schema)


class StructuralTag(BaseModel):
    """Text with tagged parts in it, such as calls of tools among prose.

    Without `required`, any text may stand before, between and after the tags; where one of `triggers` appears in
    it, one of `structures` (one that begins with the trigger) must follow. With `required`, there is at least one
    tag and nothing but `prefix`, tags with `separator` between them, and `suffix`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    structures: Annotated[tuple[Tag, ...], Field(min_length=1)]
    triggers: tuple[Text, ...] = ()
    """Beginnings of the structures; without any, a structure's whole `begin` is its trigger."""
    required: bool = False
    prefix: str = ""
    """With `required`: what stands before the first tag."""
    separator: str = ""
    """With `required`: what stands between tags."""
    suffix: str = ""
    """With `required`: what stands after the last."""
    most: Annotated[int, Field(ge=1)] | None = None
    """With `required`: the most tags; None for any number."""

    @model_validator(mode="after")
    def _triggers_fit(self) -> Self:
        for tag in self.structures:
            if self.triggers and not any(tag.begin.startswith(trigger) for trigger in self.triggers):
                raise ValueError(f"the structure that begins with {tag.begin!r} begins with none of {self.triggers!r}")
        return self

    def trigger_of(self, tag: Tag) -> str:
        """What, when it appears in free text, must go on as `tag` or another of the same trigger."""
        return max((one for one in self.triggers if tag.begin.startswith(one)), key=len, default=tag.begin)


class StructuredOutput(BaseModel):
    """The form that a request's text must have: exactly one of the first six fields.

    Generation ends where the form is complete, and not before. Raises `RequestError`, as `SamplingParams` does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    json_schema: Text | None = None
    """A JSON schema: an object, a boolean, a pydantic model, or JSON text. Kept as text, keys in their order."""
    json_object: bool = False
    """Any JSON object."""
    regex: Text | None = None
    """A regular expression that the whole text matches."""
    choice: tuple[Text, ...] | None = None
    """One of these texts."""
    grammar: Text | None = None
    """A context-free grammar in the dialect of the plugin that serves it (Lark or GBNF)."""
    structural_tag: StructuralTag | None = None
    """Text with tagged parts."""
    after: str = ""
    """If given, any text may come first; the form is that of what follows the first appearance of `after`, such as
    ``</think>``."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _request_error(error) from None

    @field_validator("json_schema", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return None if value is None else schema_text(value)

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [form for form in STRUCTURED_OUTPUT_FORMS if getattr(self, form) not in (None, False)]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of {', '.join(STRUCTURED_OUTPUT_FORMS)}, got {' and '.join(given) or 'none'}"
            )
        if self.choice is not None and not self.choice:
            raise ValueError("choice is empty, so no text could be chosen")
        return self

    @property
    def form(self) -> str:
        """Which of the fields states the form, such as ``"json_schema"``."""
        return next(form for form in STRUCTURED_OUTPUT_FORMS if getattr(self, form) not in (None, False))


def schema_text(value: object) -> str:
    """A JSON schema as JSON text; text is checked to be JSON and returned as it is.

    Raises:
        ValueError: it is no JSON, or neither an object nor a boolean.
    """
    if isinstance(value, type) and issubclass(value, BaseModel):
        value = value.model_json_schema()
    if isinstance(value, str):
        text = value
    elif isinstance(value, Mapping | bool):
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"the schema cannot be written as JSON: {error}") from None
    else:
        raise ValueError(f"a schema is an object, true, false, or JSON text, got {type(value).__name__}")
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the schema is no JSON: {error}") from None
    if not isinstance(parsed, dict | bool):
        raise ValueError(f"a schema is an object, true or false, got {type(parsed).__name__}")
    return text


def _request_error(error: ValidationError) -> RequestError:
    first = error.errors()[0]
    location = ".".join(("structured_output", *map(str, first["loc"])))
    if first["type"] == "extra_forbidden":
        known = ", ".join(StructuredOutput.model_fields)
        return RequestError(f"{location} is no field; known: {known}", param=location)
    message = first["msg"].removeprefix("Value error, ")
    return RequestError(f"{location}: {message}, got {first['input']!r:.200}", param=location)
