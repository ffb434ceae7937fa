"""A server over a scripted engine, and clients for it that need no socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from vcore.config import ServerSettings
from vcore.server import create_app
from vcore.testing.scripted_engine import ScriptedEngine

Call = Callable[..., httpx.Response]


class Server:
    """An application over a scripted engine. Each call runs in an event loop of its own."""

    def __init__(self, engine: ScriptedEngine | None = None, **settings: Any) -> None:
        self.engine = engine or ScriptedEngine()
        self.app = create_app(self.engine, ServerSettings(**settings))

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server", **options) as client:
            yield client

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            self.engine.may_step = asyncio.Event()
            self.engine.may_step.set()
            async with self.client() as client:
                return await client.request(method, path, **options)

        return asyncio.run(run())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.request("POST", path, json=body, **options)

    def stream(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The chunks of a stream, which ends with [DONE]."""
        response = self.post(path, body | {"stream": True})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        return events(response.text)


def events(text: str) -> list[dict[str, Any]]:
    """The payloads of events, without the [DONE] that must end them."""
    assert text.endswith("data: [DONE]\n\n")
    payloads = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert payloads.pop() == "[DONE]"
    return [json.loads(payload) for payload in payloads]


@pytest.fixture
def server() -> Iterator[Server]:
    """Whatever a test does, this server holds nothing afterwards."""
    server = Server()
    yield server
    assert server.engine.open_ids == []
    assert server.app.state.context.admission.num_requests == 0


@pytest.fixture(scope="session")
def make_server() -> type[Server]:
    return Server


@pytest.fixture(scope="session")
def scripted() -> type[ScriptedEngine]:
    return ScriptedEngine
