"""``priority`` of requests, through HTTP and a whole engine that runs one request at a time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httpx
import pytest

from vcore import AsyncLLM
from vcore.config import ServerSettings
from vcore.server import create_app
from vcore.testing.server_process import write_byte_checkpoint

CONFIG = {
    "cache": {"num_blocks": 1000, "block_size": 16},
    "runtime": {"device": "cpu", "num_threads": 1},
    "scheduler": {"max_num_seqs": 1},
}
MOST_URGENT = -100
ENDPOINTS = {
    "/v1/completions": {"prompt": "hi"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_byte_checkpoint(tmp_path_factory.mktemp("bytes") / "model", max_model_len=8192))


async def order_of_ends(folder: str, policy: str, priorities: list[int | None]) -> list[int | None]:
    """Who ends first of requests that arrive one after another while another one runs, by their priorities."""
    ended: list[int | None] = []
    async with AsyncLLM(folder, config=CONFIG, in_process=True, **{"scheduler.policy": policy}) as engine:
        transport = httpx.ASGITransport(create_app(engine, ServerSettings()))
        async with httpx.AsyncClient(transport=transport, base_url="http://server", timeout=60) as client:

            async def ask(path: str, priority: int | None, max_tokens: int) -> None:
                given = {} if priority is None else {"priority": priority}
                body: dict[str, Any] = ENDPOINTS[path] | given | {"max_tokens": max_tokens, "ignore_eos": True}
                response = await client.post(path, json=body)
                assert response.status_code == 200, response.text
                ended.append(priority)

            async def until(running: int, waiting: int) -> None:
                while ((stats := await engine.stats()).running, stats.waiting) != (running, waiting):
                    pass

            first = asyncio.create_task(ask("/v1/completions", MOST_URGENT, 8000))
            await until(1, 0)
            tasks = []
            for number, priority in enumerate(priorities):
                tasks.append(asyncio.create_task(ask(list(ENDPOINTS)[number % 2], priority, 3)))
                await until(1, number + 1)
            first.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await first
            await asyncio.gather(*tasks)
    return ended


def test_more_urgent_requests_overtake_those_that_wait(folder: str) -> None:
    assert asyncio.run(order_of_ends(folder, "priority", [5, None, -5, 7, -6])) == [-6, -5, None, 5, 7]


def test_where_the_policy_knows_no_priority_it_is_ignored(folder: str) -> None:
    assert asyncio.run(order_of_ends(folder, "fcfs", [5, None, -5])) == [5, None, -5]
