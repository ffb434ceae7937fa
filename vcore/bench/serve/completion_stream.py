"""`CompletionStream`: counts the tokens in a stream of OpenAI's completion or chat chunks, and checks the count.

A server that honours ``continuous_usage_stats`` says with each chunk how many tokens there were so far: that is exact,
however many a chunk holds, and even if they have no text yet. From others a chunk with text counts as one token, until
the usage at the end says how many there were.
"""

from __future__ import annotations

from typing import Any

import msgspec

from vcore.bench.serve.record import RequestRecord
from vcore.bench.serve.sse import EventStream
from vcore.bench.serve.target import TargetError

__all__ = ["CompletionStream", "error_message"]

_FAILED = ("error", "abort")
"""Finish reasons that are failures."""


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Chunk)


class CompletionStream:
    """One streamed answer with one choice."""

    __slots__ = ("_continuous", "_counted", "_done", "_events", "_record", "_usage")

    def __init__(self, record: RequestRecord) -> None:
        self._record = record
        self._events = EventStream()
        self._counted = 0
        self._continuous = False
        self._done = False
        self._usage: _Usage | None = None

    def feed(self, piece: bytes, now: float) -> None:
        """Take a piece of the body that came at `now`.

        Raises:
            TargetError: an event is no chunk (``malformed``), or says that the server failed (``stream_error``).
        """
        for event in self._events.feed(piece):
            if event == b"[DONE]":
                self._done = True
            else:
                self._take(event, now)

    def _take(self, event: bytes, now: float) -> None:
        try:
            chunk = _decoder.decode(event)
        except msgspec.MsgspecError as error:
            raise TargetError("malformed", f"no chunk of a completion: {error}: {event[:200]!r}") from None
        if chunk.error is not None:
            raise TargetError("stream_error", error_message(event))
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.choices:
            self._count(chunk.choices[0], chunk.usage, now)

    def _count(self, choice: _Choice, usage: _Usage | None, now: float) -> None:
        stated = None if usage is None else usage.completion_tokens
        last = choice.finish_reason is not None
        if last:
            self._record.finish_reason = choice.finish_reason
            if choice.finish_reason in _FAILED:
                raise TargetError(str(choice.finish_reason), str(choice.stop_reason or "the server gave up on it"))
        if stated is not None and (not last or self._continuous or not self._counted):
            self._continuous = self._continuous or not last
            if stated > self._counted:
                self._record.add(now, stated - self._counted)
                self._counted = stated
        elif not self._continuous and _has_output(choice):
            self._record.add(now, 1)
            self._counted += 1

    def finish(self) -> None:
        """The body has ended: state the counts.

        Raises:
            TargetError: the stream did not end as one does (``cut``), or its tokens are not as many as its usage
                says (``token_count``).
        """
        record = self._record
        if not self._done and record.finish_reason is None:
            raise TargetError("cut", f"the stream ended without [DONE]; the last of it: {self._events.rest[-200:]!r}")
        usage = self._usage or _Usage()
        record.num_prompt_tokens = usage.prompt_tokens
        if usage.prompt_tokens_details is not None:
            record.num_cached_tokens = usage.prompt_tokens_details.cached_tokens or 0
        record.usage_stated = usage.completion_tokens is not None
        record.num_output_tokens = self._counted if usage.completion_tokens is None else usage.completion_tokens
        stated = record.num_output_tokens
        if stated < self._counted or (self._continuous and stated > self._counted):
            raise TargetError("token_count", f"usage says {stated} tokens, streamed were {self._counted}")
        if stated > record.num_wanted_tokens:
            raise TargetError("token_count", f"{stated} tokens, but only {record.num_wanted_tokens} were asked for")


def _has_output(choice: _Choice) -> bool:
    if choice.text:
        return True
    delta = choice.delta
    return delta is not None and bool(
        delta.content or delta.reasoning_content or delta.reasoning or delta.refusal or delta.tool_calls
    )


def error_message(body: bytes) -> str:
    """What an error in OpenAI's shape says; of any other, its beginning."""
    try:
        found = msgspec.json.decode(body)
        message = found["error"]["message"]
    except (msgspec.MsgspecError, KeyError, TypeError):
        message = body.decode("utf-8", "replace")
    return str(message)[:500]
