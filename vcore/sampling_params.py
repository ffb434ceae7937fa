"""`SamplingParams`: how one request's tokens are chosen and when it ends. Checked when made, frozen after."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vcore.params_error import params_error
from vcore.structured_output import StructuredOutput

__all__ = ["LogitsProcessorRequest", "SamplingParams"]

MAX_LOGPROBS = 100
"""The most alternatives a request may ask for at one position."""
MAX_SECONDS = 604_800.0
"""Of targets and times to live: a week."""
MAX_TENANT_CHARACTERS = 256
"""Of a tenant's name."""


class LogitsProcessorRequest(BaseModel):
    """A logits-processor plugin that a request asks for, by name, with the arguments for this request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class SamplingParams(BaseModel):
    """How one request's tokens are chosen and when it ends.

    Raises:
        RequestError: a value is out of range, two contradict each other, or a name is unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)

    n: Annotated[int, Field(ge=1, le=1024)] = 1
    """How many samples of the prompt to return."""
    temperature: Annotated[float, Field(ge=0.0, le=100.0, allow_inf_nan=False)] = 1.0
    """Divides the logits; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Keep the most likely tokens whose probabilities sum to at least this."""
    top_k: Annotated[int, Field(ge=-1)] = 0
    """Keep so many of the most likely tokens; 0 and -1 keep all."""
    min_p: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Keep tokens at least this fraction as likely as the most likely one."""
    presence_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] = 0.0
    """Subtracted from the logit of every token generated already."""
    frequency_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] = 0.0
    """Subtracted once for each time the token was generated."""
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100.0)] = 1.0
    """Positive logits of tokens in prompt or output are divided by it, negative ones multiplied. The bounds keep
    logits finite in float32."""
    seed: int | None = None
    """The same seed gives the same sample, whatever else is in the batch; None draws one."""
    stop: tuple[str, ...] = ()
    """Strings that end the request."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end the request, beside the model's own ends of sequence."""
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: Annotated[int, Field(ge=1)] | None = 16
    """The most tokens to generate; None for as many as the model's length allows."""
    min_tokens: Annotated[int, Field(ge=0)] = 0
    """EOS, stop tokens and stop strings do not count before so many tokens."""
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    """So many alternatives a generated token (the token itself comes besides); None for no logprobs."""
    prompt_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    """The same for the prompt."""
    logit_bias: dict[int, Annotated[float, Field(ge=-100.0, le=100.0)]] | None = None
    """Added to the logits of these token ids."""
    allowed_token_ids: tuple[int, ...] | None = None
    """If given, no other token is sampled."""
    bad_words: tuple[str, ...] = ()
    """Words that are never generated."""
    detokenize: bool = True
    skip_special_tokens: bool = True
    priority: int = 0
    """For policies that use it: lower is more urgent."""
    tenant: Annotated[str, Field(min_length=1, max_length=MAX_TENANT_CHARACTERS)] | None = None
    """Who asks, for scheduling policies that share between tenants."""
    ttft_target_s: Annotated[float, Field(gt=0.0, le=MAX_SECONDS)] | None = None
    """Seconds from arrival within which the first token is wanted, for scheduling policies that use it."""
    itl_target_s: Annotated[float, Field(gt=0.0, le=MAX_SECONDS)] | None = None
    """Mean seconds between tokens that are wanted at most, for scheduling policies that use it."""
    expected_tokens: Annotated[int, Field(ge=1)] | None = None
    """How many tokens the request is likely to generate, for scheduling policies that use it; it limits nothing."""
    cache_salt: str | None = None
    """Only requests with the same salt share cached prefixes."""
    cache_ttl: Annotated[float, Field(gt=0.0, le=MAX_SECONDS)] | None = None
    """Seconds after its last use for which the request wants its prefix kept, for eviction policies that use it."""
    logits_processors: tuple[LogitsProcessorRequest, ...] = ()
    structured_output: StructuredOutput | None = None
    """The form that the text must have: a JSON schema, a regular expression, one of several texts, a grammar."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise params_error(SamplingParams, error) from None

    @field_validator("stop", "bad_words", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        if value is None:
            return ()
        return (value,) if isinstance(value, str) else value

    @field_validator("stop_token_ids", mode="before")
    @classmethod
    def _none_is_empty(cls, value: object) -> object:
        return () if value is None else value

    @field_validator("logits_processors", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        if value is None:
            return ()
        if isinstance(value, str | dict | LogitsProcessorRequest):
            value = (value,)
        if not isinstance(value, list | tuple):
            return value
        return tuple({"name": item} if isinstance(item, str) else item for item in value)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens={self.min_tokens} is more than max_tokens={self.max_tokens}")
        if any(not text for text in self.stop):
            raise ValueError("stop has an empty string, which would end every request at once")
        if self.stop and not self.detokenize:
            raise ValueError("stop strings are looked for in text: they need detokenize=True")
        if any(not word.strip() for word in self.bad_words):
            raise ValueError("bad_words has an empty word")
        if self.structured_output is not None and self.min_tokens:
            raise ValueError(
                f"min_tokens={self.min_tokens} and structured_output contradict each other: a text ends where its "
                "form is complete"
            )
        names = [processor.name for processor in self.logits_processors]
        if len(set(names)) < len(names):
            raise ValueError(f"logits_processors names one twice ({', '.join(names)}); each serves a request once")
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise ValueError("allowed_token_ids is empty, so no token could be sampled; leave it out to allow all")
        return self

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken."""
        return self.temperature == 0.0
