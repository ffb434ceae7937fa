"""The part of ``vcore bench overhead`` that times eviction policies."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from vcore.bench import eviction
from vcore.bench.eviction import TimedEviction, measure_eviction
from vcore.cli.bench import app
from vcore.config import EngineConfig
from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.simulate.cache_replay import CacheReplay
from vcore.simulate.cache_report import find_evictions


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction, "MIN_REQUESTS", 5)


def test_each_block_of_each_event_counts_once() -> None:
    [(_, make)] = find_evictions(EngineConfig(), ["lru"])
    timed: list[TimedEviction] = []

    def watch(context: EvictionContext) -> EvictionPolicy:
        timed.append(TimedEviction(make(context)))
        return timed[0]

    cache = CacheReplay(3, 4, watch, eviction_name="lru")
    cache.serve([1, 2, 3])
    assert timed[0].events == 3 + 3
    cache.serve([1, 2, 4])
    assert timed[0].events == 6 + 2 + 1 + 3 + 1, "two hit, one is new, three are freed, one is evicted"
    assert timed[0].seconds > 0
    timed[0].reset()
    assert (timed[0].events, timed[0].seconds) == (0, 0.0)


def test_every_policy_has_a_row() -> None:
    rows = measure_eviction(EngineConfig(), ["lru", "prefix_aware"], num_blocks=200)
    assert [(row["eviction"], row["num_blocks"]) for row in rows] == [("lru", 200), ("prefix_aware", 200)]
    assert all(row["events"] > 0 for row in rows)
    assert all(row["us_per_event"] * row["events_per_s"] == pytest.approx(1e6) for row in rows)


def test_the_command_adds_the_rows_to_its_json() -> None:
    arguments = ["overhead", "--num-requests", "2", "--cached-blocks", "0", "--steps", "3", "--json"]
    result = CliRunner().invoke(app, [*arguments, "--eviction", "fifo", "--eviction-blocks", "100"])
    assert result.exit_code == 0, result.output
    [row] = json.loads(result.stdout)["eviction"]
    assert row["eviction"] == "fifo"
