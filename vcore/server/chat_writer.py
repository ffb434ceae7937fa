"""`ChatWriter`: from the engine's outputs to the answer of ``/v1/chat/completions``, whole or in pieces."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Literal, cast

from vcore.interfaces.chat_format import ReasoningDelta, TextDelta
from vcore.outputs import CompletionOutput, RequestOutput
from vcore.server.chat_parser import ChatAnswer, ChatDelta, ChatParser
from vcore.server.chunks import stream_chunks
from vcore.server.context import FINGERPRINT
from vcore.server.protocol.chat import (
    AssistantMessage,
    ChatCompletion,
    ChatCompletionChoice,
    ChatCompletionChunk,
    ChatCompletionChunkChoice,
    ChatLogprobs,
    FinishReason,
    MessageDelta,
    ToolCallDelta,
)
from vcore.server.usage import UsageCount

if TYPE_CHECKING:
    from vcore.server.chat_plan import ChatPlan
    from vcore.server.generation import Generation
    from vcore.server.protocol.common import StreamOptions

__all__ = ["ChatWriter"]


@dataclass(slots=True)
class _Choice:
    """A choice that is told in pieces."""

    parser: ChatParser
    finished: bool = False


@dataclass(slots=True)
class ChatWriter:
    """Writes one answer."""

    generation: Generation
    plan: ChatPlan
    _choices: dict[int, _Choice] = field(default_factory=dict)
    _created: int = field(default_factory=lambda: int(time.time()))

    async def whole(self) -> ChatCompletion:
        """Run to the end, and answer."""
        [output] = await self.generation.results()
        usage = UsageCount()
        usage.add(0, output)
        choices = list(map(self._whole_choice, output.outputs))
        return {**self._head(), "choices": choices, "usage": usage.usage(), "object": "chat.completion"}

    def stream(self, options: StreamOptions | None) -> AsyncGenerator[bytes, None]:
        """Run, and tell what is new as events."""
        return stream_chunks(self.generation, self._head(), self._all_pieces, UsageCount(), options)

    def _head(self) -> ChatCompletionChunk:
        return {
            "id": self.generation.request_id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self.plan.model,
            "system_fingerprint": FINGERPRINT,
            "choices": [],
        }

    def _whole_choice(self, sample: CompletionOutput) -> ChatCompletionChoice:
        parser = self.plan.new_parser()
        answer = ChatAnswer.of(self.plan.told([*parser.feed(sample.text), *parser.finish()]))
        message: AssistantMessage = {"role": "assistant", "content": answer.content, "refusal": None}
        if answer.content is None and not answer.tool_calls:
            message["content"] = ""
        if answer.reasoning is not None:
            message["reasoning_content"] = answer.reasoning
        if answer.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in answer.tool_calls
            ]
        return {
            "index": sample.index,
            "message": message,
            "logprobs": self.plan.logprobs(sample),
            "finish_reason": _finish_reason(sample, parser),
            "stop_reason": sample.stop_reason,
        }

    def _all_pieces(self, index: int, output: RequestOutput) -> Iterator[ChatCompletionChunkChoice]:
        """Of the one prompt that a chat has."""
        return chain.from_iterable(map(self._pieces, output.outputs))

    def _pieces(self, sample: CompletionOutput) -> Iterator[ChatCompletionChunkChoice]:
        """What is new of a choice: its role, pieces of its message, its end."""
        choice = self._choices.get(sample.index)
        if choice is None:
            choice = self._choices[sample.index] = _Choice(self.plan.new_parser())
            yield _piece(sample.index, {"role": "assistant", "content": ""})
        if choice.finished:
            return
        ended = sample.finish_reason is not None
        deltas = choice.parser.feed(sample.text)
        if ended:
            deltas += choice.parser.finish()
        logprobs = self.plan.logprobs(sample)
        told = list(map(_message_delta, self.plan.told(deltas)))
        if not told and logprobs is not None and logprobs["content"]:
            told = [{"content": ""}]
        for position, delta in enumerate(told):
            yield _piece(sample.index, delta, logprobs if position == 0 else None)
        if ended:
            choice.finished = True
            last = _piece(sample.index, {})
            last["finish_reason"] = _finish_reason(sample, choice.parser)
            last["stop_reason"] = sample.stop_reason
            yield last


def _piece(index: int, delta: MessageDelta, logprobs: ChatLogprobs | None = None) -> ChatCompletionChunkChoice:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}


def _message_delta(delta: ChatDelta) -> MessageDelta:
    if isinstance(delta, TextDelta):
        return {"content": delta.text}
    if isinstance(delta, ReasoningDelta):
        return {"reasoning_content": delta.text}
    call: ToolCallDelta = {"index": delta.index, "function": {"arguments": delta.arguments}}
    if delta.name is not None:
        call = {
            "index": delta.index,
            "id": delta.id or "",
            "type": "function",
            "function": {"name": delta.name, "arguments": delta.arguments},
        }
    return {"tool_calls": [call]}


def _finish_reason(sample: CompletionOutput, parser: ChatParser) -> FinishReason:
    reason = cast(Literal["stop", "length"], sample.finish_reason)
    return "tool_calls" if reason == "stop" and parser.num_calls else reason
