"""A server that sends what a test tells it to, byte by byte as it likes, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Answer = Callable[["Asked", asyncio.StreamWriter], Awaitable[bool]]
"""Writes the answer; whether the connection stays open."""


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class FakeServer:
    """What it was asked, and how it answers completions."""

    answer: Answer
    models: object = field(default_factory=lambda: {"data": [{"id": "tiny", "max_model_len": 64}]})
    asked: list[Asked] = field(default_factory=list)
    num_connections: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeServer]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while await self._answer_one(reader, writer):
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = first.split(" ")
        asked = Asked(method, path, headers, json.loads(body or b"{}"))
        if path == "/v1/models":
            write_whole(writer, 200, json.dumps(self.models).encode())
            return True
        if path == "/health":
            write_whole(writer, 200, b"")
            return True
        self.asked.append(asked)
        return await self.answer(asked, writer)


def write_whole(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    """An answer with its length."""
    writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def write_head(writer: asyncio.StreamWriter) -> None:
    """The beginning of a stream."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")


def write_piece(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """One piece of a stream; an empty one ends it."""
    writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")


def event(payload: object) -> bytes:
    """A server-sent event."""
    return b"data: " + (payload if isinstance(payload, bytes) else json.dumps(payload).encode()) + b"\n\n"


def chunk(text: str = "", *, finish: str | None = None, usage: int | None = None) -> bytes:
    """A chunk of a completion; `usage` is how many tokens there were so far."""
    payload: dict[str, Any] = {"choices": [{"index": 0, "text": text, "finish_reason": finish}]}
    if usage is not None:
        payload["usage"] = {"prompt_tokens": 5, "completion_tokens": usage, "total_tokens": 5 + usage}
    return event(payload)


def final_usage(count: int, *, cached: int | None = None) -> bytes:
    """The chunk without choices that ends a stream with usage."""
    usage: dict[str, Any] = {"prompt_tokens": 5, "completion_tokens": count, "total_tokens": 5 + count}
    if cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    return event({"choices": [], "usage": usage})


DONE = event(b"[DONE]")


def streams(*pieces: bytes) -> Answer:
    """Always the same stream, in these pieces."""

    async def answer(_: Asked, writer: asyncio.StreamWriter) -> bool:
        write_head(writer)
        for piece in pieces:
            write_piece(writer, piece)
            await writer.drain()
        write_piece(writer, b"")
        return True

    return answer


def refuses(status: int, body: bytes) -> Answer:
    """Always the same error."""

    async def answer(_: Asked, writer: asyncio.StreamWriter) -> bool:
        write_whole(writer, status, body)
        return True

    return answer


def writes(raw: bytes) -> Answer:
    """These bytes, and the connection is closed."""

    async def answer(_: Asked, writer: asyncio.StreamWriter) -> bool:
        writer.write(raw)
        return False

    return answer
