"""``vcore simulate --cache-only``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vcore.cli.main import run


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "trace.jsonl"
    prompts = [[0, 1, 2], [3, 4], [0, 1, 5], [0, 1, 2]]
    lines = [
        {"timestamp": 10 * number, "input_length": 16 * len(ids), "output_length": 1, "hash_ids": ids}
        for number, ids in enumerate(prompts)
    ]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return file


def arguments(trace: Path, *more: str) -> list[str]:
    return ["simulate", "--trace", str(trace), "--cache-only", *more]


def test_json_has_a_row_for_each_size_and_policy(trace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    more = ("--num-blocks", "3", "--num-blocks", "50", "--eviction", "lru", "--eviction", "lfu", "--json")
    assert run(arguments(trace, *more)) == 0
    printed = json.loads(capfd.readouterr().out)
    rows = printed.pop("rows")
    assert [(row["num_blocks"], row["eviction"]) for row in rows] == [(3, "lru"), (3, "lfu"), (50, "lru"), (50, "lfu")]
    # Of 0 1 2 the first stays beside 3 4, then 0 1 5 are kept, of which the last request hits two.
    assert [row["hit_rate"] for row in rows] == pytest.approx([3 / 11, 3 / 11, 5 / 11, 5 / 11])
    assert [row["optimum"] for row in rows] == pytest.approx([5 / 11] * 4)
    assert printed.pop("hit_rate") == pytest.approx(3 / 11)
    expected = {"trace": "trace.jsonl", "num_requests": 4, "prompt_blocks": 11, "block_size": 16}
    assert printed == expected | {"ideal": pytest.approx(5 / 11)}


def test_the_table_names_policy_and_rates(trace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(arguments(trace, "--num-blocks", "3", "--eviction", "fifo")) == 0
    printed = capfd.readouterr().out
    assert "fifo" in printed
    assert "0.4545" in printed


def test_the_configured_policy_and_its_options_count(trace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    choice = 'cache.eviction={"name": "slru", "options": {"protected": 1.5}}'
    assert run(arguments(trace, "--num-blocks", "3", "--set", choice)) != 0
    assert "protected" in capfd.readouterr().err
    choice = choice.replace("1.5", "0.5")
    assert run(arguments(trace, "--num-blocks", "3", "--set", choice, "--json")) == 0
    assert json.loads(capfd.readouterr().out)["rows"][0]["eviction"] == "slru"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "--num-blocks"),
        (("--num-blocks", "3", "--eviction", "lrv"), "lru"),
        (("--num-blocks", "3", "--scheduling", "fcfs", "--plot", "x.png"), "leave --scheduling, --plot out"),
        (
            ("--num-blocks", "3", "--rate", "2", "--replicas", "2", "--known-lengths"),
            "--replicas, --known-lengths out",
        ),
        (("--num-blocks", "3", "--seed", "1"), "--cache-only is of the cache alone: leave --seed out"),
    ],
)
def test_what_is_missing_or_unknown_is_said(
    trace: Path, more: tuple[str, ...], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments(trace, *more)) != 0
    assert message in capfd.readouterr().err


def test_a_time_to_live_counts_from_arrival(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "trace.csv"
    rows = ["arrival_s,input_length,output_length,cache_ttl,hash_ids", "0,32,3,100,1 2", "1,32,3,,3 4", "2,32,3,,1 2"]
    file.write_text("\n".join(rows), encoding="utf-8")
    policies = ("--eviction", "lru", "--eviction", "ttl", "--json")
    assert run(arguments(file, "--num-blocks", "2", *policies)) == 0
    rates = {row["eviction"]: row["hit_rate"] for row in json.loads(capfd.readouterr().out)["rows"]}
    assert rates == pytest.approx({"lru": 0.0, "ttl": 2 / 6})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--calibrate", "FOLDER"), "is a folder, expected the name of a file"),
        (("overload", "--trace", "TRACE", "--slo", "ttft=1", *["--scheduling", "fcfs"] * 2), "nothing to compare"),
        (("compare", "--trace", "TRACE", "--load", "0"), "--load: found 0, expected a number above 0"),
        (("compare", "--trace", "TRACE", "--load", "inf"), "--load: found inf"),
        (("sweep", "--trace", "TRACE", "--load", "1,inf"), "--load: found inf"),
        (("sweep", "--trace", "TRACE", "--num-blocks", "2,1e30"), "expected from 1 to 100,000,000"),
        (("--trace", "TRACE", "--cache-only", "--num-blocks", "1000000000000"), "expected from 1 to 100,000,000"),
        (("--trace", "TRACE", "--length-scale", "1e7"), "the cache has 0 blocks"),
        (("overload", "--trace", "TRACE", "--slo", "ttft=1", "--times", "inf"), "--times and --near above 0"),
        (("overload", "--trace", "TRACE", "--slo", "ttft=1", "--near", "inf"), "--times and --near above 0"),
    ],
)
def test_what_cannot_end_well_is_refused_at_once(
    trace: Path, words: tuple[str, ...], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    two = ("--scheduling", "fcfs", "--scheduling", "priority")
    named = {"TRACE": str(trace), "FOLDER": str(trace.parent)}
    more = two if words[0] in ("overload", "compare") and "--scheduling" not in words else ()
    assert run(["simulate", *(named.get(word, word) for word in words), *more]) == 2
    assert message in capfd.readouterr().err


def test_an_slo_longer_than_a_request_may_state_is_no_bound(trace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "--trace", str(trace), "--slo", "ttft=1e7,itl=1e7", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["goodput"]["share"] == 1
