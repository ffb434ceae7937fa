"""What the generating endpoints have in common: sampling fields, stream options, usage."""

from __future__ import annotations

import logging
from typing import Annotated, Any, NotRequired, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from typing_extensions import TypedDict

from vcore.errors import RequestError
from vcore.sampling_params import MAX_LOGPROBS, MAX_SECONDS, MAX_TENANT_CHARACTERS, LogitsProcessorRequest
from vcore.server.protocol.lists import MAX_BIASES, TokenIds, Word, Words
from vcore.server.protocol.numbers import Count, Int32, Natural, Real, Seed, Whole
from vcore.server.structured_output import GUIDED_FIELDS, from_response_format
from vcore.structured_output import StructuredOutput

__all__ = [
    "MAX_SAMPLES",
    "CommonAnswer",
    "PromptTokensDetails",
    "RequestModel",
    "SamplingFields",
    "StreamOptions",
    "StructuredFields",
    "TopLogprobs",
    "Usage",
]

logger = logging.getLogger(__name__)

MAX_SAMPLES = 128
"""The largest `n`."""

TopLogprobs = Annotated[Whole, Field(ge=0, le=MAX_LOGPROBS)]
"""How many alternatives a token."""


Seconds = Annotated[Real, Field(gt=0.0, le=MAX_SECONDS)]
"""At most a week."""
Bias = Annotated[Real, Field(ge=-100.0, le=100.0)]


class RequestModel(BaseModel):
    """The base of what comes in. Types are strict: a number in quotes is no number.

    Fields that are not known are ignored, as clients send each other's extensions, and logged at debug level.
    """

    model_config = ConfigDict(extra="allow", strict=True, use_attribute_docstrings=True, hide_input_in_errors=True)

    @model_validator(mode="after")
    def _note_ignored(self) -> Self:
        if self.model_extra and logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s: ignored fields: %s", type(self).__name__, ", ".join(map(repr, self.model_extra)))
        return self


class StreamOptions(RequestModel):
    """What a stream tells besides the text."""

    include_usage: bool | None = None
    """End with a chunk that has no choices, and the usage of the whole request."""
    continuous_usage_stats: bool | None = None
    """Tell the usage so far in every chunk."""


class StructuredFields(RequestModel):
    """What form the text must have: at most one of these."""

    response_format: dict[str, Any] | None = None
    """``{"type": "text"}``, ``{"type": "json_object"}`` or ``{"type": "json_schema", "json_schema": {...}}``."""
    structured_outputs: dict[str, Any] | None = None
    """One of ``json``, ``json_object``, ``regex``, ``choice``, ``grammar``, ``structural_tag``."""
    guided_json: dict[str, Any] | str | None = None
    """A JSON schema, or its text."""
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None

    @property
    def form_field(self) -> str | None:
        """The field that asks for the form; None if none does."""
        names = ("response_format", "structured_outputs", *GUIDED_FIELDS)
        return next((name for name in names if getattr(self, name) is not None), None)

    def structured_output(self) -> StructuredOutput | None:
        """The form; None if none was asked for.

        Raises:
            RequestError: it is malformed, or there are several.
        """
        guided = {name: getattr(self, name) for name in GUIDED_FIELDS}
        return from_response_format(self.response_format, structured_outputs=self.structured_outputs, **guided)


class SamplingFields(StructuredFields):
    """How tokens are chosen and when a choice ends; None is the default of `SamplingParams`."""

    n: Annotated[Whole, Field(ge=1, le=MAX_SAMPLES)] | None = None
    """How many choices for each prompt."""
    temperature: Annotated[Real, Field(ge=0.0, le=100.0)] | None = None
    """0 takes the likeliest token; 1 by default."""
    top_p: Annotated[Real, Field(gt=0.0, le=1.0)] | None = None
    top_k: Annotated[Int32, Field(ge=-1)] | None = None
    """0 and -1 keep all tokens."""
    min_p: Annotated[Real, Field(ge=0.0, le=1.0)] | None = None
    presence_penalty: Annotated[Real, Field(ge=-2.0, le=2.0)] | None = None
    frequency_penalty: Annotated[Real, Field(ge=-2.0, le=2.0)] | None = None
    repetition_penalty: Annotated[Real, Field(ge=0.01, le=100.0)] | None = None
    seed: Seed | None = None
    """The same seed gives the same text."""
    stop: Word | Words | None = None
    """Strings that end a choice; the text ends before them."""
    stop_token_ids: TokenIds | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: Natural | None = None
    logit_bias: Annotated[dict[str, Bias], Field(max_length=MAX_BIASES)] | None = None
    """By token id."""
    allowed_token_ids: TokenIds | None = None
    bad_words: Words | None = None
    skip_special_tokens: bool | None = None
    priority: Int32 | None = None
    """For scheduling policies that use it: lower is more urgent."""
    tenant: Annotated[str, Field(min_length=1, max_length=MAX_TENANT_CHARACTERS)] | None = None
    """Who asks, for scheduling policies that share between tenants."""
    ttft_target_s: Seconds | None = None
    """Seconds within which the first token is wanted, for scheduling policies that use it."""
    itl_target_s: Seconds | None = None
    """Mean seconds between tokens that are wanted at most, for scheduling policies that use it."""
    expected_tokens: Count | None = None
    """How many tokens the request is likely to generate, for scheduling policies that use it; it limits nothing."""
    cache_salt: str | None = None
    """Only requests with the same salt share cached prefixes."""
    cache_ttl: Seconds | None = None
    """Seconds after its last use for which its prefix shall be kept, for eviction policies that use it."""
    logits_processors: list[str | dict[str, Any]] | None = None
    """Logits-processor plugins, by name or as ``{"name": ..., "options": {...}}``; only if the server allows it."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    """Ignored."""

    @field_validator("stream_options")
    @classmethod
    def _only_for_streams(cls, value: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if value is not None and not info.data.get("stream"):
            raise ValueError("is only for stream=true")
        return value

    def sampling_values(self) -> dict[str, Any]:
        """The fields that were given, as keywords of `SamplingParams`.

        Raises:
            RequestError: a key of `logit_bias` is no token id, a logits processor has no name, or the form that is
                demanded is malformed.
        """
        values = {name: value for name in _PASSED_ON if (value := getattr(self, name)) is not None}
        if self.logit_bias is not None:
            values["logit_bias"] = {_token_id(key): bias for key, bias in self.logit_bias.items()}
        if self.logits_processors is not None:
            values["logits_processors"] = tuple(map(_processor, self.logits_processors))
        if (form := self.structured_output()) is not None:
            values["structured_output"] = form
        return values


_PASSED_ON = (
    "n",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "min_tokens",
    "allowed_token_ids",
    "bad_words",
    "skip_special_tokens",
    "priority",
    "tenant",
    "ttft_target_s",
    "itl_target_s",
    "expected_tokens",
    "cache_salt",
    "cache_ttl",
)


def _token_id(key: str) -> int:
    if key.isascii() and key.isdigit() and len(key) <= len(str(2**31)):
        return int(key)
    raise RequestError(f"a key of logit_bias must be a token id such as '50256', got {key!r}", param="logit_bias")


def _processor(asked: str | dict[str, Any]) -> LogitsProcessorRequest:
    if isinstance(asked, str):
        return LogitsProcessorRequest(name=asked)
    name, options = asked.get("name"), asked.get("options") or {}
    if not isinstance(name, str) or not isinstance(options, dict) or asked.keys() - {"name", "options"}:
        raise RequestError(
            "a logits processor is a name or {'name': ..., 'options': {...}}, "
            f"got an object with {', '.join(map(repr, asked)) or 'nothing'}",
            param="logits_processors",
        )
    return LogitsProcessorRequest(name=name, options=options)


class PromptTokensDetails(TypedDict):
    """Of the prompt's tokens."""

    cached_tokens: int
    """Those that came from the prefix cache."""


class Usage(TypedDict):
    """Tokens of a request."""

    prompt_tokens: int
    """Each prompt counts once, however many samples there are."""
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class CommonAnswer(TypedDict):
    """What every answer of the generating endpoints begins with."""

    id: str
    created: int
    """Seconds since 1970."""
    model: str
    system_fingerprint: str
    usage: NotRequired[Usage | None]
