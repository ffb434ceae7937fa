"""`CompletionWriter`: from the engine's outputs to the answer of ``/v1/completions``, whole or in pieces.

Both are made by the same code, an answer that is whole being one piece, so that they cannot differ.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from vcore.outputs import CompletionOutput, Logprob, RequestOutput
from vcore.server.chunks import stream_chunks, tells_counts
from vcore.server.context import FINGERPRINT
from vcore.server.logprob_format import CompletionLogprobWriter
from vcore.server.protocol.completions import (
    Completion,
    CompletionChoice,
    CompletionChunk,
    CompletionChunkChoice,
    CompletionLogprobs,
    FinishReason,
)
from vcore.server.usage import UsageCount

if TYPE_CHECKING:
    from vcore.server.engine_client import EngineClient
    from vcore.server.generation import Generation
    from vcore.server.protocol.common import StreamOptions

__all__ = ["CompletionForm", "CompletionWriter"]

_MANY_POSITIONS = 250
"""Of prompts with log probabilities: more of them are written in a thread, for they would hold the event loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionForm:
    """How a client wants its answer."""

    model: str
    echo: bool = False
    logprobs: int | None = None
    """Alternatives a token; None for no logprobs."""
    discard_output: bool = False
    """`max_tokens` is 0: the engine generates one token, which is not shown."""


@dataclass(slots=True)
class _Choice:
    """What is known of a choice that is told in pieces."""

    echoes: bool
    """Whether the prompt has yet to be shown."""
    logprobs: CompletionLogprobWriter | None
    finished: bool = False


@dataclass(slots=True)
class CompletionWriter:
    """Writes one answer."""

    engine: EngineClient
    generation: Generation
    form: CompletionForm
    _choices: dict[int, _Choice] = field(default_factory=dict)
    _tells_counts: bool = False
    """Whether every piece says how many tokens there were so far."""
    _created: int = field(default_factory=lambda: int(time.time()))

    async def whole(self) -> Completion:
        """Run to the end, and answer."""
        results = await self.generation.results()
        if sum(len(output.prompt_logprobs or ()) for output in results) < _MANY_POSITIONS:
            return self._write(results)
        return await asyncio.to_thread(self._write, results)

    def _write(self, results: Sequence[RequestOutput]) -> Completion:
        usage = self._new_usage()
        choices: list[CompletionChoice] = []
        for index, output in enumerate(results):
            usage.add(index, output)
            choices += cast("list[CompletionChoice]", list(self._pieces(index, output)))
        return {**self._head(), "choices": choices, "usage": usage.usage(), "object": "text_completion"}

    def stream(self, options: StreamOptions | None) -> AsyncGenerator[bytes, None]:
        """Run, and tell what is new as events."""
        self._tells_counts = tells_counts(options)
        return stream_chunks(self.generation, self._head(), self._pieces, self._new_usage(), options)

    def _new_usage(self) -> UsageCount:
        return UsageCount(count_output=not self.form.discard_output)

    def _head(self) -> CompletionChunk:
        return {
            "id": self.generation.request_id,
            "object": "text_completion",
            "created": self._created,
            "model": self.form.model,
            "system_fingerprint": FINGERPRINT,
            "choices": [],
        }

    def _pieces(self, index: int, output: RequestOutput) -> Iterator[CompletionChunkChoice]:
        """What `output` brings, for each choice of which there is something to tell."""
        for sample in output.outputs:
            number = index * self.generation.params.n + sample.index
            choice = self._choices.get(number)
            if choice is None:
                logprobs = None if self.form.logprobs is None else CompletionLogprobWriter(self.form.logprobs)
                choice = self._choices[number] = _Choice(self.form.echo, logprobs)
            if not choice.finished and (piece := self._piece(number, choice, output, sample)) is not None:
                yield piece

    def _piece(
        self, number: int, choice: _Choice, output: RequestOutput, sample: CompletionOutput
    ) -> CompletionChunkChoice | None:
        logprobs = self._logprobs(choice, output, sample)
        text = "" if self.form.discard_output else sample.text
        if choice.echoes:
            text = self._prompt_text(output) + text
            choice.echoes = False
        finish_reason = sample.finish_reason
        counted = self._tells_counts and bool(sample.token_ids)  # a count is news, even of tokens without text
        if finish_reason is None and not text and not logprobs and not counted:
            return None
        if finish_reason is not None:
            choice.finished = True
            finish_reason = "length" if self.form.discard_output else finish_reason
        return {
            "index": number,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": cast("FinishReason | None", finish_reason),
            "stop_reason": None if self.form.discard_output else sample.stop_reason,
        }

    def _prompt_text(self, output: RequestOutput) -> str:
        if output.prompt is not None:
            return output.prompt
        skip = self.generation.params.skip_special_tokens
        return self.engine.decode(output.prompt_token_ids, skip_special_tokens=skip)

    def _logprobs(self, choice: _Choice, output: RequestOutput, sample: CompletionOutput) -> CompletionLogprobs | None:
        """Of the tokens of this piece; the prompt's first, if it is shown."""
        if choice.logprobs is None:
            return None
        token_ids: list[int] = []
        positions: list[dict[int, Logprob] | None] = []
        if choice.echoes and output.prompt_logprobs is not None:
            token_ids += output.prompt_token_ids
            positions += output.prompt_logprobs
        if not self.form.discard_output and sample.logprobs is not None:
            token_ids += sample.token_ids
            positions += sample.logprobs
        return choice.logprobs.write(token_ids, positions, self._token_text) if token_ids else None

    def _token_text(self, token_id: int) -> str:
        return self.engine.get_tokenizer().id_to_text(token_id)
