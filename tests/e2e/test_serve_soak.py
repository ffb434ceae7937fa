"""A server under a mixed load: streams that are read to the end or cut off, whole answers, malformed requests.

Nothing may be lost or leak: the rest complete as they would alone, and the server holds no more than before.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from vcore.testing.server_process import ServerProcess, write_byte_checkpoint

COMPLETIONS = "/v1/completions"
MALFORMED: list[dict[str, Any]] = [
    {"content": b"{"},
    {"json": {"prompt": 5}},
    {"json": {"prompt": "a", "temperature": -1}},
    {"json": {"prompt": "x" * 5000}},
    {"json": {"prompt": "a", "model": "other"}},
    {"json": {"prompt": "a", "stream": True, "stop": [""]}},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = write_byte_checkpoint(tmp_path_factory.mktemp("soak") / "model")
    arguments = ["--model-name", "bytes", "--set", "runtime.device=cpu", "--set", "runtime.num_threads=1"]
    with ServerProcess(["-m", str(folder), *arguments, "--set", "cache.num_blocks=300"]) as server:
        yield server


def body_of(kind: int) -> dict[str, Any]:
    """One of a few requests, each with an answer of its own."""
    return {"prompt": f"request {kind} " * (1 + kind), "max_tokens": 20 + 3 * kind, "seed": kind, "ignore_eos": True}


async def whole(client: httpx.AsyncClient, kind: int) -> str:
    response = await client.post(COMPLETIONS, json=body_of(kind))
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["text"])


async def streamed(client: httpx.AsyncClient, kind: int, cut_after: int | None = None) -> str | None:
    """The text of a stream; None if the client leaves after so many lines."""
    text, num_lines, ended = "", 0, False
    async with client.stream("POST", COMPLETIONS, json=body_of(kind) | {"stream": True}) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            num_lines += 1
            if cut_after is not None and num_lines > cut_after:
                return None
            if line == "data: [DONE]":
                ended = True
            elif line:
                text += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
    assert ended
    return text


async def load(address: str, num_requests: int, num_connections: int, expected: dict[int, str]) -> Counter[str]:
    """Send a mix of requests, at most one a connection at a time."""
    rng = random.Random(0)
    numbers = iter(range(num_requests))
    done: Counter[str] = Counter()

    async def worker() -> None:
        async with httpx.AsyncClient(base_url=address, timeout=300) as client:
            for number in numbers:
                kind = rng.randrange(len(expected))
                if number % 3 == 0:
                    assert await streamed(client, kind, cut_after=rng.randrange(12)) in (None, expected[kind])
                    done["cut"] += 1
                elif number % 10 == 1:
                    response = await client.post(COMPLETIONS, **MALFORMED[number // 10 % len(MALFORMED)])
                    assert response.status_code in (400, 404), response.text
                    done["refused"] += 1
                else:
                    text = await (streamed if number % 2 else whole)(client, kind)
                    assert text == expected[kind]
                    done["complete"] += 1

    await asyncio.gather(*(worker() for _ in range(num_connections)))
    return done


def num_files(server: ServerProcess) -> int:
    """Open file descriptors of both processes."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in [server.pid, *server.children])


def memory(pid: int) -> int:
    """What a process has in memory, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024


def gauges(server: ServerProcess) -> dict[str, float]:
    """Requests running and waiting, and the share of blocks in use."""
    text = httpx.get(f"{server.address}/metrics").text
    wanted = ("vcore:num_requests_running", "vcore:num_requests_waiting", "vcore:kv_cache_usage_perc")
    lines = [line for line in text.splitlines() if line.startswith(wanted)]
    assert len(lines) == len(wanted)
    return {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines}


async def settle(server: ServerProcess) -> None:
    """Until nothing is left to do: the last aborts arrive a step after their clients have left."""
    async with asyncio.timeout(60), httpx.AsyncClient(base_url=server.address) as client:
        while any(gauges(server).values()):
            await client.post(COMPLETIONS, json={"prompt": "a", "max_tokens": 1})


async def soak(server: ServerProcess, num_requests: int, num_connections: int, warm_up: int) -> None:
    async with httpx.AsyncClient(base_url=server.address, timeout=300) as client:
        expected = {kind: await whole(client, kind) for kind in range(8)}
    assert len(set(expected.values())) == len(expected)
    await load(server.address, warm_up, num_connections, expected)
    await settle(server)
    [engine] = server.children
    before = num_files(server), memory(server.pid), memory(engine)
    done = await load(server.address, num_requests, num_connections, expected)
    await settle(server)
    assert done.total() == num_requests
    after = num_files(server), memory(server.pid), memory(engine)
    assert after[0] <= before[0] + 2
    assert after[1] <= before[1] + 16
    assert after[2] <= before[2] + 160  # torch keeps what it made for each shape of a batch, up to a number of shapes
    health = server.get("/health")
    assert (health["status"], health["restarts"], health["failed_steps"]) == ("ready", 0, 0)


def test_a_mixed_load(server: ServerProcess) -> None:
    asyncio.run(soak(server, num_requests=240, num_connections=32, warm_up=64))


@pytest.mark.soak
def test_a_long_mixed_load(server: ServerProcess) -> None:
    asyncio.run(soak(server, num_requests=2000, num_connections=64, warm_up=500))
