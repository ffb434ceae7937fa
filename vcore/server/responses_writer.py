"""`ResponsesWriter`: from the engine's outputs to the answer of ``/v1/responses``, whole or as named events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vcore.outputs import CompletionOutput, RequestOutput
from vcore.server.chat_parser import ChatParser
from vcore.server.errors import ApiError
from vcore.server.protocol.responses import ResponseObject, ResponseUsage
from vcore.server.response_items import Event, ResponseItems
from vcore.server.sse import named_event
from vcore.server.usage import UsageCount

if TYPE_CHECKING:
    from vcore.server.chat_plan import ChatPlan
    from vcore.server.generation import Generation
    from vcore.server.protocol.responses import ResponsesRequest

__all__ = ["ResponsesWriter"]


@dataclass(slots=True)
class ResponsesWriter:
    """Writes one answer. Whole, it is made by the events that a stream would have told."""

    generation: Generation
    plan: ChatPlan
    body: ResponsesRequest
    _items: ResponseItems = field(default_factory=ResponseItems)
    _usage: UsageCount = field(default_factory=UsageCount)
    _created: int = field(default_factory=lambda: int(time.time()))
    _num_events: int = 0
    _finish_reason: str | None = None

    async def whole(self) -> ResponseObject:
        """Run to the end, and answer."""
        [output] = await self.generation.results()
        for _ in self._take(output, self.plan.new_parser()):
            pass
        return self._response(self._status())

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Run, and tell what is new as events."""
        parser = self.plan.new_parser()
        started = [{"type": f"response.{what}", "response": self._response("in_progress")} for what in _BEGINNING]
        async with aclosing(self.generation.outputs("delta")) as outputs:
            async for _, output in outputs:
                if data := self._encode([*started, *self._take(output, parser)]):
                    yield data
                started = []
        status = self._status()
        yield self._encode([{"type": f"response.{status}", "response": self._response(status)}])

    def failure(self, error: ApiError) -> bytes:
        """The event that tells of an error in mid-stream."""
        response = self._response("failed")
        response["error"] = {"code": error.code or error.type, "message": error.message}
        return self._encode([{"type": "response.failed", "response": response}])

    def _take(self, output: RequestOutput, parser: ChatParser) -> Iterator[Event]:
        self._usage.add(0, output)
        for sample in output.outputs:
            yield from self._take_sample(sample, parser)

    def _take_sample(self, sample: CompletionOutput, parser: ChatParser) -> Iterator[Event]:
        deltas = parser.feed(sample.text)
        ended = sample.finish_reason is not None
        if ended:
            deltas += parser.finish()
        logprobs = self.plan.logprobs(sample)
        yield from self._items.add(self.plan.told(deltas), () if logprobs is None else logprobs["content"])
        if ended:
            self._finish_reason = sample.finish_reason
            yield from self._items.finish("completed" if self._status() == "completed" else "incomplete")

    def _num_reasoning_tokens(self) -> int:
        """Of the reasoning's text by itself: where a token lies on the border, nobody could say whose it is."""
        texts = [item["content"][0]["text"] for item in self._items.items if item["type"] == "reasoning"]
        encode = self.plan.context.engine.encode
        return sum(len(encode(text, add_special_tokens=False)) for text in texts)

    def _status(self) -> str:
        return "incomplete" if self._finish_reason == "length" else "completed"

    def _encode(self, events: Iterable[Event]) -> bytes:
        encoded = []
        for event in events:
            encoded.append(named_event({**event, "sequence_number": self._num_events}))
            self._num_events += 1
        return b"".join(encoded)

    def _response(self, status: Any) -> ResponseObject:
        body, params = self.body, self.plan.params
        return {
            "id": self.generation.request_id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": self.plan.model,
            "output": list(self._items.items),
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "store": False,
            "temperature": params.temperature,
            "text": {"format": (body.text and body.text.format) or {"type": "text"}},
            "tool_choice": body.tool_choice or "auto",
            "tools": body.tools or [],
            "top_p": params.top_p,
            "truncation": "disabled",
            "usage": None if status == "in_progress" else self._response_usage(),
        }

    def _response_usage(self) -> ResponseUsage:
        usage = self._usage.usage()
        return {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": usage["prompt_tokens_details"]["cached_tokens"]},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": self._num_reasoning_tokens()},
            "total_tokens": usage["total_tokens"],
        }


_BEGINNING = ("created", "in_progress")
"""What is told first."""
