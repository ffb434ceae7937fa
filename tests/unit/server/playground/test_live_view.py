"""What the page asks for every second."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcore.engine.records import EngineStatus, StepRecord
from vcore.errors import EngineError
from vcore.kv_cache.block_map import BlockMap
from vcore.plugins.resolved import ResolvedPlugin, ResolvedSet
from vcore.scheduler import SchedulerStats
from vcore.server.playground import block_picture
from vcore.server.playground.block_picture import BlockPicture, pack
from vcore.server.playground.rates import SECONDS, Rates

STATS = SchedulerStats(
    running=2,
    waiting=5,
    used_blocks=10,
    free_blocks=30,
    cached_blocks=20,
    prefix_query_tokens=100,
    prefix_hit_tokens=25,
    preemptions=3,
)


def step(end: float, prompt: int, output: int) -> StepRecord:
    return StepRecord(
        index=1,
        start=end - 0.1,
        end=end,
        num_prompt_tokens=prompt,
        num_decodes=output,
        num_requests=1,
        num_output_tokens=output,
        stats=STATS,
    )


def test_rates_are_of_whole_seconds_and_slots_are_used_again() -> None:
    now = 1000.5
    rates = Rates(clock=lambda: now)
    rates.on_step(step(998.1, 7, 1))
    rates.on_step(step(998.9, 0, 2))
    rates.on_step(step(999.0, 0, 4))
    rates.on_step(step(1000.2, 0, 50))
    series = rates.series()
    assert len(series["output"]) == SECONDS - 1
    assert series["output"][-2:] == [3, 4], "the running second is left out"
    assert series["prompt"][-2:] == [7, 0]
    now = 1000.5 + SECONDS
    rates.on_step(step(998.0 + SECONDS, 0, 9))
    assert [value for value in rates.series()["output"] if value] == [9]
    now += 10 * SECONDS
    assert not any(rates.series()["output"])


@given(st.lists(st.integers(0, 3), max_size=50))
def test_packed_states_are_read_as_the_page_reads_them(states: list[int]) -> None:
    packed = pack(bytes(states))
    assert len(packed) == -(-len(states) // 4)
    assert [(packed[block >> 2] >> ((block & 3) * 2)) & 3 for block in range(len(states))] == states


@dataclass
class Engine:
    """Counts how often it is asked for its blocks."""

    state: str = "ready"
    asked: int = 0

    def health(self) -> EngineStatus:
        return EngineStatus(state=self.state)  # type: ignore[arg-type]

    async def block_map(self) -> BlockMap:
        self.asked += 1
        await asyncio.sleep(0)
        return BlockMap(num_blocks=5, block_size=16, used=2, free=2, cached=1, states=bytes([0, 1, 2, 3, 0]))


def test_all_who_look_share_a_picture() -> None:
    now, engine = 0.0, Engine()
    picture = BlockPicture(engine, clock=lambda: now)  # type: ignore[arg-type]
    first = asyncio.run(picture.take())
    now = 0.9
    assert asyncio.run(picture.take()) == first == (5, bytes([0b11_10_01_00, 0]))
    assert engine.asked == 1
    now = 2.0

    async def all_at_once() -> None:
        await asyncio.gather(*(picture.take() for _ in range(5)))

    asyncio.run(all_at_once())
    assert engine.asked == 2


def test_an_engine_that_hangs_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_picture, "_PATIENCE_S", 0.0)
    now, engine = 0.0, Engine()
    picture = BlockPicture(engine, clock=lambda: now)  # type: ignore[arg-type]

    async def hang() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(engine, "block_map", hang)
    assert asyncio.run(picture.take()) == (0, b"")
    monkeypatch.undo()
    now = 2.0
    last = asyncio.run(picture.take())
    assert last[0] == 5
    monkeypatch.setattr(block_picture, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(engine, "block_map", hang)
    now = 4.0
    assert asyncio.run(picture.take()) == last


def test_an_engine_that_does_not_run_has_no_picture(server: Any) -> None:
    with pytest.raises(EngineError, match="restarting"):
        asyncio.run(BlockPicture(Engine("restarting")).take())  # type: ignore[arg-type]
    assert server.get("/ui/blocks").headers["x-num-blocks"] == "4"
    server.engine.status.state = "restarting"
    response = server.get("/ui/blocks")
    assert (response.status_code, response.headers["x-num-blocks"], response.content) == (200, "0", b"")


def test_the_state_holds_what_the_page_shows(make_server: Any) -> None:
    server = make_server(model_names=("my-model",))
    server.engine.scheduler_stats = STATS
    server.engine.plugins = ResolvedSet(
        (ResolvedPlugin(kind="model", name="llama", distribution="theirs", version="1.2", origin="entry point"),)
    )
    for listener in server.engine.listeners:
        listener.on_step(step(1.0, 7, 2))
    response = server.get("/ui/state")
    assert response.headers["cache-control"] == "no-store"
    state = response.json()
    assert state["engine"] == {"state": "ready", "reason": None, "restarts": 0, "failed_steps": 0, "faults": []}
    assert state["model"]["name"] == "my-model"
    assert state["model"]["path"] == "scripted"
    assert state["plugins"] == [
        {"kind": "model", "name": "llama", "distribution": "theirs", "version": "1.2", "origin": "entry point"}
    ]
    assert {name: state["requests"][name] for name in ("running", "waiting", "preemptions", "open")} == {
        "running": 2,
        "waiting": 5,
        "preemptions": 3,
        "open": 0,
    }
    assert state["requests"]["finished"] == {"stop": 0, "length": 0, "abort": 0, "error": 0}
    assert (state["tokens"]["prompt"], state["tokens"]["output"]) == (7, 2)
    cache = state["cache"]
    assert (cache["used"], cache["free"], cache["cached"]) == (10, 30, 20)
    assert (cache["query_tokens"], cache["hit_tokens"]) == (100, 25)


@pytest.mark.parametrize("state", ["restarting", "dead"])
def test_the_state_says_what_is_wrong(server: Any, state: str) -> None:
    server.engine.status.state = state
    server.engine.status.reason = "killed by signal 9"
    server.engine.status.faults = ("scheduling_policy/mine: raised",)
    told = server.get("/ui/state").json()
    assert (told["engine"]["state"], told["engine"]["reason"]) == (state, "killed by signal 9")
    assert told["engine"]["faults"] == ["scheduling_policy/mine: raised"]
    assert told["cache"] is None
    assert told["model"]["name"] == "scripted"


def test_an_engine_that_never_was_is_a_state_too(server: Any) -> None:
    server.engine.status.state = "starting"
    told = server.get("/ui/state").json()
    assert (told["model"], told["plugins"], told["cache"]) == (None, [], None)
