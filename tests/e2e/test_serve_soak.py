"""A server under a mixed load: streams that are read or cut off, whole answers, what is malformed; and with its engine
killed in the middle.

Nothing may be lost or leak: what is not cut off ends as it would alone, and the server holds no more than before.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from vcore.testing.server_process import ServerProcess, write_byte_checkpoint

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
SMALL = ("--model-name", "bytes", "--set", "runtime.device=cpu", "--set", "runtime.num_threads=1")
FEW_BLOCKS = ("--set", "cache.num_blocks=300")
"""Too few for all at once, so that requests wait and are preempted."""
HI = [{"role": "user", "content": "hi"}]
DEEP = {"$ref": "#/$defs/0", "$defs": {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(5000)}}


def raw(content: bytes) -> tuple[str, dict[str, Any]]:
    return COMPLETIONS, {"content": content, "headers": {"Content-Type": "application/json"}}


MALFORMED: list[tuple[str, dict[str, Any]]] = [
    raw(b"{"),
    raw(b"[" * 100_000),
    raw(b'{"prompt": "\xff"}'),
    raw(b""),
    (COMPLETIONS, {"json": {"prompt": 5}}),
    (COMPLETIONS, {"json": {"prompt": "a", "temperature": -1}}),
    (COMPLETIONS, {"json": {"prompt": [-1]}}),
    (COMPLETIONS, {"json": {"prompt": [260]}}),
    (COMPLETIONS, {"json": {"prompt": "x" * 5000}}),
    raw(rb'{"prompt": "\ud800"}'),
    raw(b'{"prompt": NaN}'),
    raw(b'{"prompt": ' + b"9" * 5000 + b"}"),
    (COMPLETIONS, {"json": {"prompt": "a", "model": "other"}}),
    (COMPLETIONS, {"json": {"prompt": "a", "stream": True, "stop": [""]}}),
    (COMPLETIONS, {"json": {"prompt": "a", "n": 10**30}}),
    (COMPLETIONS, {"json": {"prompt": "a", "logit_bias": {"a": 1}}}),
    (COMPLETIONS, {"json": {"prompt": "a", "bad_words": ["w"] * 50_000}}),
    (COMPLETIONS, {"json": {"prompt": "a", "guided_regex": "("}}),
    (COMPLETIONS, {"json": {"prompt": "a", "guided_regex": "(ab)?" * 10_000}}),
    (CHAT, {"json": {"messages": HI * 20_000}}),
    (CHAT, {"json": {"messages": HI, "tools": [{}]}}),
    (CHAT, {"json": {"messages": HI, "guided_json": DEEP}}),
    ("/nothing", {"json": {}, "headers": {"Host": "[", "X-Request-Id": "x\ty", "traceparent": "00-0-0-0"}}),
    (COMPLETIONS, {"json": {"prompt": "a"}, "headers": {"X-Many": "x" * 300_000}}),
    raw(b" " * (16 * 2**20 + 1)),
]
REFUSED = (400, 404, 413, 431)
UNAVAILABLE = ("engine_unavailable", "engine_restarting")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_byte_checkpoint(tmp_path_factory.mktemp("soak") / "model")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    # oneDNN, and what of torch calls it, keep 1,024 kernels each, one a size of batch that was seen: hundreds of
    # megabytes, which no warm-up gets to the end of, and in which a leak would not show.
    env = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "0", "LRU_CACHE_CAPACITY": "1"}
    with ServerProcess(["-m", str(folder), *SMALL, *FEW_BLOCKS], env=env) as server:
        yield server


def body_of(kind: int) -> dict[str, Any]:
    """One of a few requests, each with an answer of its own: greedy ones, seeded ones, several samples, forms."""
    body = {"prompt": f"request {kind} " * (1 + kind), "max_tokens": 20 + 3 * kind, "seed": kind, "ignore_eos": True}
    if kind % 3 == 0:
        body["temperature"] = 0
    if kind == 4:
        body["n"] = 3
    if kind == 7:
        body |= {"guided_regex": "[a-z]{40}", "ignore_eos": False}
    return body


def texts_of(chunks: list[dict[str, Any]]) -> dict[int, str]:
    """By choice, each of which has one end."""
    texts: dict[int, str] = {}
    ends: Counter[int] = Counter()
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
            ends[choice["index"]] += choice["finish_reason"] is not None
    assert set(ends.values()) == {1}
    return texts


class Killed(Exception):
    """The request ended, as it should, with an error that says that the engine is gone."""

    def __init__(self, error: dict[str, Any]) -> None:
        assert error["type"] == "server_error"
        assert error["code"] in UNAVAILABLE, error
        assert "SIGKILL" in error["message"], error


async def whole(client: httpx.AsyncClient, kind: int) -> dict[int, str]:
    response = await client.post(COMPLETIONS, json=body_of(kind))
    if response.status_code == 503:
        assert int(response.headers["retry-after"]) > 0
        raise Killed(response.json()["error"])
    assert response.status_code == 200, response.text
    return texts_of([response.json()])


async def streamed(client: httpx.AsyncClient, kind: int, cut_after: int | None = None) -> dict[int, str] | None:
    """The texts of a stream; None if the client leaves after so many lines."""
    lines: list[str] = []
    async with client.stream("POST", COMPLETIONS, json=body_of(kind) | {"stream": True}) as response:
        if response.status_code == 503:
            raise Killed(json.loads(await response.aread())["error"])
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if cut_after is not None and len(lines) >= cut_after:
                return None
            if line:
                lines.append(line.removeprefix("data: "))
    assert lines.pop() == "[DONE]"
    if "error" in (last := json.loads(lines[-1])):
        raise Killed(last["error"])
    return texts_of(list(map(json.loads, lines)))


async def malformed(client: httpx.AsyncClient, number: int) -> None:
    path, options = MALFORMED[number % len(MALFORMED)]
    try:
        response = await client.post(path, **options)
    except (httpx.ReadError, httpx.WriteError):  # the connection was closed while the head was being sent
        assert "X-Many" in options["headers"]
        return
    assert response.status_code in REFUSED, response.text
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert len(response.text) < 2000


async def load(address: str, num_requests: int, num_connections: int, expected: list[dict[int, str]]) -> Counter[str]:
    """Send a mix of requests, at most one a connection at a time."""
    rng = random.Random(0)
    numbers = iter(range(num_requests))
    done: Counter[str] = Counter()

    async def worker() -> None:
        async with httpx.AsyncClient(base_url=address, timeout=300) as client:
            for number in numbers:
                kind = rng.randrange(len(expected))
                if number % 3 == 0:
                    got = await streamed(client, kind, cut_after=rng.randrange(12))
                    assert got in (None, expected[kind])
                    done["cut" if got is None else "complete"] += 1
                elif number % 10 == 1:
                    await malformed(client, number // 10)
                    done["refused"] += 1
                else:
                    assert await (streamed if number % 2 else whole)(client, kind) == expected[kind]
                    done["complete"] += 1

    await asyncio.gather(*(worker() for _ in range(num_connections)))
    return done


def held(server: ServerProcess) -> tuple[int, int, int]:
    """File descriptors, threads, and resident memory in MiB, of both processes."""
    pids = [server.pid, *server.children]
    num_files = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
    num_threads = sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids)
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    kib = sum(int(status.partition("VmRSS:")[2].split()[0]) for status in statuses)
    return num_files, num_threads, kib // 1024


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


async def alone(server: ServerProcess) -> list[dict[int, str]]:
    """What each kind of request answers when there is no other."""
    async with httpx.AsyncClient(base_url=server.address, timeout=300) as client:
        expected = [await whole(client, kind) for kind in range(8)]
    assert len({text for texts in expected for text in texts.values()}) == 10
    return expected


async def soak(server: ServerProcess, num_requests: int, num_connections: int, warm_up: int) -> None:
    expected = await alone(server)
    async with httpx.AsyncClient(base_url=server.address, timeout=300) as client:
        await asyncio.gather(*(malformed(client, number) for number in range(len(MALFORMED))))
    await load(server.address, warm_up, num_connections, expected)
    await settle(server)
    files, threads, memory = held(server)
    done = await load(server.address, num_requests, num_connections, expected)
    await settle(server)
    print(f"{done}; before: {files} files, {threads} threads, {memory} MiB; after: {held(server)}")
    assert done.total() == num_requests
    assert done["cut"] > num_requests // 5
    files_after, threads_after, memory_after = held(server)
    assert files_after <= files + 2
    assert threads_after <= threads
    assert memory_after <= memory + 24
    health = server.get("/health")
    assert (health["status"], health["restarts"], health["failed_steps"]) == ("ready", 0, 0)
    assert "Traceback" not in server.log
    assert "libtorch" not in Path(f"/proc/{server.pid}/maps").read_text(), "the HTTP process computes nothing"


def test_a_mixed_load(server: ServerProcess) -> None:
    asyncio.run(soak(server, num_requests=160, num_connections=32, warm_up=64))


@pytest.mark.soak
def test_a_long_mixed_load(server: ServerProcess) -> None:
    asyncio.run(soak(server, num_requests=2000, num_connections=64, warm_up=500))


# Deaths in the middle


def wait_until_gone(pid: int) -> None:
    """Until a process that need not be a child of ours has ended."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([watched], [], [], 30)[0], f"process {pid} still runs"
    finally:
        os.close(watched)


async def load_and_kill(server: ServerProcess, expected: list[dict[int, str]]) -> Counter[str]:
    """Forty clients, each of which wants its answer; the engine is killed once some are served."""
    [engine] = server.children
    done: Counter[str] = Counter()

    async def want(number: int) -> None:
        kind = number % len(expected)
        async with httpx.AsyncClient(base_url=server.address, timeout=300) as client:
            while True:
                try:
                    assert await (streamed if number % 2 else whole)(client, kind) == expected[kind]
                except Killed:
                    done["told"] += 1
                    await asyncio.sleep(0.1)  # as a client that tries again
                    continue
                done["complete"] += 1
                if done["complete"] == 10:
                    os.kill(engine, signal.SIGKILL)
                return

    await asyncio.gather(*map(want, range(40)))
    wait_until_gone(engine)
    return done


def test_the_engine_is_killed_under_load(server: ServerProcess) -> None:
    async def main() -> None:
        restarts = server.get("/health")["restarts"]
        expected = await alone(server)
        before = held(server)
        done = await load_and_kill(server, expected)
        assert done["complete"] == 40
        assert done["told"] > 0
        await settle(server)
        assert await alone(server) == expected
        assert server.get("/health")["restarts"] == restarts + 1
        assert len(server.children) == 1
        assert held(server)[0] <= before[0] + 2

    asyncio.run(main())


def test_the_engine_does_not_outlive_its_server(folder: Path) -> None:
    with ServerProcess(["-m", str(folder), *SMALL]) as server:
        [engine] = server.children
        body = {"prompt": "a", "stream": True, "max_tokens": 4000, "ignore_eos": True}
        with httpx.stream("POST", f"{server.address}{COMPLETIONS}", json=body) as response:
            assert next(response.iter_lines()).startswith("data:")
            server.signal(signal.SIGKILL)
            wait_until_gone(engine)
        assert server.wait() == -signal.SIGKILL
