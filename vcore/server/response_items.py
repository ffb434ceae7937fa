"""`ResponseItems`: the items of a response as they grow, and the events that tell of it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from vcore.interfaces.chat_format import ReasoningDelta, TextDelta, ToolDelta
from vcore.server.chat_parser import ChatDelta
from vcore.server.context import new_id
from vcore.server.protocol.chat import ChatLogprob

__all__ = ["Event", "ResponseItems"]

Event = dict[str, Any]
"""Of a stream, but for its number."""

_COMPLETED, _IN_PROGRESS = "completed", "in_progress"


@dataclass(slots=True)
class ResponseItems:
    """At most one item is open, the last one; a delta of another sort closes it and opens the next.

    reasoning      added ── reasoning_text.delta ... ── reasoning_text.done ── done
    message        added ── content_part.added ── output_text.delta ... ── output_text.done
                         ── content_part.done ── done
    function_call  added ── function_call_arguments.delta ... ── function_call_arguments.done ── done
    """

    items: list[dict[str, Any]] = field(default_factory=list)
    _logprobs: list[ChatLogprob] = field(default_factory=list)
    """Of tokens that were not told yet; the next text tells them, those of reasoning before it, too."""
    _open: bool = False
    _call: int | None = None
    """Which call of the answer the open item is."""

    def add(self, deltas: Iterable[ChatDelta], logprobs: Iterable[ChatLogprob] = ()) -> Iterator[Event]:
        """Take the next pieces of the answer."""
        self._logprobs += logprobs
        for delta in deltas:
            if isinstance(delta, ToolDelta):
                yield from self._add_call(delta)
            elif isinstance(delta, TextDelta):
                yield from self._add_text(delta.text)
            else:
                yield from self._add_reasoning(delta)

    def finish(self, status: str = _COMPLETED) -> Iterator[Event]:
        """The answer has ended; an answer without any item gets an empty message."""
        if not self.items:
            yield from self._add_text("")
        yield from self._close(status)

    def _add_text(self, text: str) -> Iterator[Event]:
        if not self._is_open("message"):
            yield from self._open_item({"type": "message", "role": "assistant", "content": []}, "msg_")
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            self.items[-1]["content"].append(part)
            yield self._event("response.content_part.added", content_index=0, part=copy.deepcopy(part))
        part = self.items[-1]["content"][0]
        part["text"] += text
        logprobs, self._logprobs = self._logprobs, []
        part["logprobs"] += logprobs
        if text or logprobs:
            yield self._event("response.output_text.delta", content_index=0, delta=text, logprobs=logprobs)

    def _add_reasoning(self, delta: ReasoningDelta) -> Iterator[Event]:
        if not self._is_open("reasoning"):
            content = [{"type": "reasoning_text", "text": ""}]
            yield from self._open_item({"type": "reasoning", "summary": [], "content": content}, "rs_")
        self.items[-1]["content"][0]["text"] += delta.text
        yield self._event("response.reasoning_text.delta", content_index=0, delta=delta.text)

    def _add_call(self, delta: ToolDelta) -> Iterator[Event]:
        if not self._is_open("function_call") or self._call != delta.index:
            item = {"type": "function_call", "call_id": delta.id or "", "name": delta.name or "", "arguments": ""}
            yield from self._open_item(item, "fc_")
            self._call = delta.index
        if delta.arguments:
            self.items[-1]["arguments"] += delta.arguments
            yield self._event("response.function_call_arguments.delta", delta=delta.arguments)

    def _is_open(self, kind: str) -> bool:
        return self._open and self.items[-1]["type"] == kind

    def _open_item(self, item: dict[str, Any], prefix: str) -> Iterator[Event]:
        yield from self._close()
        self.items.append({"id": new_id(prefix), "status": _IN_PROGRESS, **item})
        self._open = True
        yield {"type": "response.output_item.added", "output_index": len(self.items) - 1, "item": self._snapshot()}

    def _close(self, status: str = _COMPLETED) -> Iterator[Event]:
        if not self._open:
            return
        self._open = False
        item = self.items[-1]
        item["status"] = status
        if item["type"] == "message":
            part = item["content"][0]
            part["logprobs"] += self._logprobs
            self._logprobs = []
            done = {"text": part["text"], "logprobs": part["logprobs"]}
            yield self._event("response.output_text.done", content_index=0, **done)
            yield self._event("response.content_part.done", content_index=0, part=part)
        elif item["type"] == "reasoning":
            text = item["content"][0]["text"]
            yield self._event("response.reasoning_text.done", content_index=0, text=text)
        else:
            arguments = {"name": item["name"], "arguments": item["arguments"]}
            yield self._event("response.function_call_arguments.done", **arguments)
        yield {"type": "response.output_item.done", "output_index": len(self.items) - 1, "item": self._snapshot()}

    def _snapshot(self) -> dict[str, Any]:
        return copy.deepcopy(self.items[-1])

    def _event(self, kind: str, **fields: Any) -> Event:
        return {"type": kind, "item_id": self.items[-1]["id"], "output_index": len(self.items) - 1, **fields}
