"""`InputProcessor`: from a prompt and its parameters to `EngineRequest`s. Every user-input error is raised here.

It does not know the engine core. What passes it fits the model: ids are in the vocabulary, the prompt
leaves room for a token, words are tokens, plugin options are checked. Only what depends on the engine's
state (blocks, a policy that refuses) can still be refused later, by `EngineCore.add_request`.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vcore.engine.param_checks import (
    bad_words_token_ids,
    check_ids,
    check_params,
    check_something_is_left,
    check_text_fits,
)
from vcore.engine.pooling import NO_POOLING, ModelPooling
from vcore.engine.prompts import ParsedPrompt, check_text, parse_prompt
from vcore.engine.request import EngineRequest
from vcore.errors import RequestError, RequestTooLargeError
from vcore.pooling_params import PoolingParams
from vcore.sampling_params import LogitsProcessorRequest, SamplingParams
from vcore.structured_output import StructuredOutput

if TYPE_CHECKING:
    from vcore.tokenizer.tokenizer import Tokenizer

__all__ = ["FormProcessor", "InputProcessor", "ProcessedRequest", "ProcessorCheck"]

ProcessorCheck = Callable[[LogitsProcessorRequest], LogitsProcessorRequest]
"""Checks a request's logits processor: returns it with options checked and filled in, or raises `RequestError`."""

FormProcessor = Callable[[StructuredOutput], LogitsProcessorRequest]
"""The logits processor that keeps a text to a form; raises `RequestError` if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessedRequest:
    """A user's request, ready for the engine core: one engine request a sample."""

    request_id: str
    prompt: str | None
    """The text, if there was one."""
    prompt_token_ids: list[int]
    params: SamplingParams
    arrival_time: float
    """Seconds, monotonic."""
    engine_requests: tuple[EngineRequest, ...]
    pooling: PoolingParams | None = None
    """Complete; None for a request that generates."""


class InputProcessor:
    """Checks and tokenises prompts. It keeps one counter, from which it draws seeds; otherwise it has no state."""

    def __init__(
        self,
        *,
        tokenizer: Tokenizer | None,
        vocab_size: int,
        max_model_len: int,
        eos_token_ids: tuple[int, ...] = (),
        seed: int = 0,
        check_processor: ProcessorCheck | None = None,
        form_processor: FormProcessor | None = None,
        pooling: ModelPooling = NO_POOLING,
    ) -> None:
        """Describe the model.

        Args:
            tokenizer: None if prompts must be token ids.
            vocab_size: how many rows the model's embedding has.
            max_model_len: most tokens of prompt and output together.
            eos_token_ids: the model's ends of sequence.
            seed: `runtime.seed`; the requests that give no seed get one each, drawn from it in their order.
            check_processor: None if there are no logits-processor plugins.
            form_processor: None if texts cannot be kept to a form.
            pooling: how the model makes embeddings, if it does.
        """
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._max_model_len = max_model_len
        self._eos_token_ids = eos_token_ids
        self._seed = seed
        self._check_processor = check_processor
        self._form_processor = form_processor
        self._pooling = pooling
        self._serial = itertools.count()

    def process(self, prompt: object, params: SamplingParams, *, request_id: str) -> ProcessedRequest:
        """Check and tokenise one prompt.

        Args:
            prompt: a string, a list of token ids, or a dictionary (`TextPrompt`, `TokensPrompt`).
            params: shared by all of the request's samples.
            request_id: unique among unfinished requests.

        Raises:
            RequestTooLargeError: the prompt leaves no room for a token, or none for `min_tokens`.
            RequestError: anything else that is wrong; the message says what, and `param` names the field.
        """
        arrival_time = time.monotonic()
        parsed, token_ids = self._tokens(prompt)
        check_params(params, self._vocab_size, self._tokenizer)
        params = self._with_checked_processors(params)
        max_tokens = self._max_tokens(len(token_ids), params)
        eos_token_ids = () if params.ignore_eos else self._eos_token_ids
        bad_words = self._bad_words(params.bad_words)
        check_something_is_left(params, bad_words, eos_token_ids)
        seed = self._draw_seed() if params.seed is None else params.seed % 2**63

        def sample(index: int) -> EngineRequest:
            return EngineRequest(
                request_id=request_id if params.n == 1 else f"{request_id}.{index}",
                prompt_token_ids=token_ids,
                params=params if index == 0 else _without_prompt_logprobs(params),
                max_tokens=max_tokens,
                arrival_time=arrival_time,
                eos_token_ids=eos_token_ids,
                seed=seed,
                sample_index=index,
                bad_words_token_ids=bad_words,
                extra_keys=_extra_keys(params),
            )

        return ProcessedRequest(
            request_id=request_id,
            prompt=parsed.text,
            prompt_token_ids=token_ids,
            params=params,
            arrival_time=arrival_time,
            engine_requests=tuple(map(sample, range(params.n))),
        )

    def process_embedding(self, prompt: object, params: PoolingParams, *, request_id: str) -> ProcessedRequest:
        """Check and tokenise one prompt that is to be embedded.

        Args:
            prompt: as for `process`.
            params: what is wanted of its embedding.
            request_id: unique among unfinished requests.

        Raises:
            RequestTooLargeError: the prompt is longer than the model takes.
            RequestError: the model makes no embeddings, or anything else that is wrong; `param` names the field.
        """
        arrival_time = time.monotonic()
        mode = self._pooling.require()
        params = self._pooling.complete(params)
        parsed, token_ids = self._tokens(prompt)
        if len(token_ids) > self._max_model_len:
            raise RequestTooLargeError(
                f"the prompt has {len(token_ids)} tokens, and at most max_model_len={self._max_model_len} fit. Shorten "
                "it, or embed it in parts",
                param="prompt",
            )
        request = EngineRequest(
            request_id=request_id,
            prompt_token_ids=token_ids,
            params=_scheduling_params(params),
            max_tokens=0,
            arrival_time=arrival_time,
            extra_keys=_extra_keys(params),
            pooling=mode,
        )
        return ProcessedRequest(
            request_id=request_id,
            prompt=parsed.text,
            prompt_token_ids=token_ids,
            params=request.params,
            arrival_time=arrival_time,
            engine_requests=(request,),
            pooling=params,
        )

    def _tokens(self, prompt: object) -> tuple[ParsedPrompt, list[int]]:
        parsed = parse_prompt(prompt)
        if parsed.token_ids is None:
            assert parsed.text is not None
            token_ids = self._encode(parsed.text)
        else:
            token_ids = parsed.token_ids
        if min(token_ids) < 0 or max(token_ids) >= self._vocab_size:
            check_ids(token_ids, self._vocab_size, "prompt_token_ids")
        return parsed, token_ids

    def _encode(self, text: str) -> list[int]:
        if self._tokenizer is None:
            raise RequestError(
                "the prompt is text, but this engine has no tokenizer (model.skip_tokenizer, or the model has "
                "none): pass a list of token ids",
                param="prompt",
            )
        check_text_fits(text, self._tokenizer, self._max_model_len, "prompt")
        token_ids = self._tokenizer.encode(text)
        if not token_ids:
            raise RequestError(f"the tokenizer turns the prompt {text!r} into no tokens", param="prompt")
        return token_ids

    def _max_tokens(self, num_prompt_tokens: int, params: SamplingParams) -> int:
        room = self._max_model_len - num_prompt_tokens
        if room < 1:
            raise RequestTooLargeError(
                f"the prompt has {num_prompt_tokens} tokens, and at most {self._max_model_len - 1} fit: "
                f"max_model_len={self._max_model_len} counts prompt and output together, and one token must be "
                "generated. Shorten the prompt, or raise max_model_len if the model allows it",
                param="prompt",
            )
        if params.min_tokens > room:
            raise RequestTooLargeError(
                f"min_tokens={params.min_tokens}, but beside a prompt of {num_prompt_tokens} tokens "
                f"max_model_len={self._max_model_len} leaves room for {room}",
                param="min_tokens",
            )
        return room if params.max_tokens is None else min(params.max_tokens, room)

    def _bad_words(self, words: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        if not words:
            return ()
        assert self._tokenizer is not None
        return bad_words_token_ids(words, self._tokenizer)

    def _with_checked_processors(self, params: SamplingParams) -> SamplingParams:
        if not params.logits_processors and params.structured_output is None:
            return params
        if params.logits_processors and self._check_processor is None:
            name = params.logits_processors[0].name
            raise RequestError(f"no logits processor {name!r}: this engine has none", param="logits_processors")
        checked = [self._check_processor(asked) for asked in params.logits_processors if self._check_processor]
        if params.structured_output is not None:
            checked.append(self._of_form(params.structured_output, params))
        return params.model_copy(update={"logits_processors": tuple(checked)})

    def _of_form(self, form: StructuredOutput, params: SamplingParams) -> LogitsProcessorRequest:
        """The processor of the request's form; it comes last, so that no other lifts its bans."""
        if self._form_processor is None:
            raise RequestError("structured_output: this engine has no plugin for it", param="structured_output")
        asked = self._form_processor(form)
        if any(other.name == asked.name for other in params.logits_processors):
            raise RequestError(
                f"structured_output is served by the logits processor {asked.name!r}, which the request also names in "
                "logits_processors; leave one out",
                param="logits_processors",
            )
        return asked

    def _draw_seed(self) -> int:
        """A seed that depends on `runtime.seed` and on how many were drawn before, and on nothing else."""
        digest = hashlib.sha256(f"{self._seed}:{next(self._serial)}".encode()).digest()
        return int.from_bytes(digest[:8], "little") >> 1


def _without_prompt_logprobs(params: SamplingParams) -> SamplingParams:
    """For all samples but the first: the prompt's logprobs are wanted once, and asking bypasses cache hits."""
    return params if params.prompt_logprobs is None else params.model_copy(update={"prompt_logprobs": None})


def _extra_keys(params: SamplingParams | PoolingParams) -> tuple[str, ...]:
    if params.cache_salt is None:
        return ()
    check_text(params.cache_salt, "cache_salt")
    return (f"salt:{params.cache_salt}",)


def _scheduling_params(params: PoolingParams) -> SamplingParams:
    """What policies and the cache read of a request, for one that samples nothing."""
    return SamplingParams(
        temperature=0.0,
        max_tokens=1,
        detokenize=False,
        priority=params.priority,
        tenant=params.tenant,
        cache_salt=params.cache_salt,
    )
