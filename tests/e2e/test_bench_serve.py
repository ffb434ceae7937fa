"""``vcore bench serve`` from end to end: a server of its own, the engine without one, and the offline engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SIZES = [(5, 3), (40, 6), (17, 1), (9, 12)]
"""Prompt and output tokens."""


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``config.json``, whose weights are made up, and prompts."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 97,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
    }
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    rows = [{"prompt_token_ids": list(range(size)), "max_tokens": wanted} for size, wanted in SIZES]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def bench(folder: Path, *arguments: str) -> dict[str, Any]:
    settings = ["model.load_format=dummy", "model.skip_tokenizer=true", "runtime.device=cpu"]
    settings += ["runtime.num_threads=1", "cache.num_blocks=200"]
    command = [sys.executable, "-m", "vcore", "bench", "serve", "--model", str(folder), "--json"]
    command += [word for setting in settings for word in ("--set", setting)]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def counts(load: dict[str, Any]) -> tuple[int, int, int]:
    assert load["errors"] == {}
    assert load["short_outputs"] == 0
    assert load["unstated_usage"] == 0
    return load["completed"], load["input_tokens"], load["output_tokens"]


ALL = (len(SIZES), sum(size for size, _ in SIZES), sum(wanted for _, wanted in SIZES))


def test_a_server_of_its_own_against_the_offline_engine(tiny_folder: Path) -> None:
    prompts = ["--prompts", str(tiny_folder / "prompts.jsonl")]
    offline = ["--compare-offline", "--offline-runs", "1", "--max-concurrency", "3"]
    answer = bench(tiny_folder, *prompts, *offline, "--rate", "50", "--num-requests", "4")
    assert answer["target"].startswith("http://127.0.0.1:")
    assert counts(answer["offline"]) == ALL
    assert answer["offline"]["peak_in_flight"] == 3
    [load] = answer["loads"]
    assert counts(load) == ALL
    assert load["itl_s"] is not None  # tokens came one after another, though they have no text
    assert answer["comparison"]["llm"] > 0
    assert answer["comparison"]["ratio"] == answer["comparison"]["served"] / answer["comparison"]["llm"]


def test_the_engine_without_a_server_at_fractions_of_its_throughput(tiny_folder: Path) -> None:
    prompts = ["--prompts", str(tiny_folder / "prompts.jsonl")]
    fractions = ["--rate-of-offline", "0.5,0.9", "--offline-runs", "1", "--slo", "ttft=1000", "--num-requests", "4"]
    answer = bench(tiny_folder, "--in-process", *prompts, *fractions)
    assert answer["target"] == "in-process"
    assert [load["of_offline"] for load in answer["loads"]] == [0.5, 0.9]
    for load in [answer["offline"], *answer["loads"]]:
        assert counts(load) == ALL
        assert load["goodput"]["share"] == 1.0
        assert set(load["queue_s"]) == {"p50", "p90", "p99", "mean"}
