"""Benchmarks over a tiny model: every request is served, and the keys that others build on are there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only a ``config.json``; weights are made up."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 97,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
    }
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tiny_moe_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with experts."""
    config = json.loads((tiny_folder / "config.json").read_text(encoding="utf-8"))
    config |= {"architectures": ["MixtralForCausalLM"], "num_local_experts": 4, "num_experts_per_tok": 2}
    folder = tmp_path_factory.mktemp("tiny-moe")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def bench(tiny_folder: Path, *arguments: str) -> dict[str, object]:
    settings = ["--set", "model.load_format=dummy", "--set", "model.skip_tokenizer=true"]
    settings += ["--set", "runtime.device=cpu", "--set", "runtime.num_threads=1", "--set", "cache.num_blocks=2000"]
    command = [sys.executable, "-m", "vcore", "bench", *arguments, "--model", str(tiny_folder), *settings, "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    answer: dict[str, object] = json.loads(result.stdout)
    return answer


def test_throughput(tiny_folder: Path) -> None:
    result = bench(tiny_folder, "throughput", "--workload", "shared_prefix", "--num-requests", "3", "--runs", "2")
    assert result["num_requests"] == 3
    runs = result["runs"]
    assert isinstance(runs, list)
    assert [(run["input_tokens"], run["output_tokens"]) for run in runs] == [(3 * 2112, 3 * 64)] * 2
    assert all(run["cached_tokens"] >= 2 * 2048 for run in runs)
    assert result["output_tokens_per_s"] == max(run["output_tokens_per_s"] for run in runs)
    assert {"input_tokens_per_s", "elapsed_s", "startup_s"} <= set(result)
    assert result["moe_routing"] == "model"


def test_latency(tiny_folder: Path) -> None:
    sizes = ["--batch-size", "2", "--input-len", "5", "--output-len", "4", "--runs", "2"]
    result = bench(tiny_folder, "latency", *sizes)
    for key in ("e2e_s", "ttft_s", "itl_s"):
        percentiles = result[key]
        assert isinstance(percentiles, dict)
        assert set(percentiles) == {"p50", "p90", "p99", "mean"}
        assert 0 < percentiles["p50"] <= percentiles["p99"]


def test_uniform_routing_is_reported(tiny_moe_folder: Path) -> None:
    throughput = ["throughput", "--workload", "single", "--runs", "1", "--moe-routing", "uniform"]
    assert bench(tiny_moe_folder, *throughput)["moe_routing"] == "uniform"
    latency = ["latency", "--input-len", "5", "--output-len", "4", "--runs", "1"]
    assert bench(tiny_moe_folder, *latency, "--moe-routing", "uniform")["moe_routing"] == "uniform"


def test_startup(tiny_folder: Path) -> None:
    result = bench(tiny_folder, "startup", "--runs", "1")
    (run,) = result["runs"]  # type: ignore[misc]
    assert run["python_s"] + run["torch_s"] + run["engine_s"] < run["first_token_s"]
