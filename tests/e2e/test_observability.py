"""What a server tells of itself against what its clients saw, with a real engine behind it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from vcore import AsyncLLM
from vcore.config import ServerSettings
from vcore.server import create_app
from vcore.testing import TinyCheckpoint
from vcore.testing.scripted_engine import byte_tokenizer

BLOCK_SIZE = 4
CONFIG = {"cache": {"num_blocks": 64, "block_size": BLOCK_SIZE}, "runtime": {"device": "cpu", "num_threads": 1}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama over bytes."""
    from transformers import LlamaConfig

    folder = tmp_path_factory.mktemp("tiny")
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    TinyCheckpoint(config, folder)
    (folder / "tokenizer.json").write_text(byte_tokenizer().to_json())
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>"}))
    return folder


def metrics_of(text: str) -> dict[str, float]:
    """Values by name; by name and reason, for those that have one."""
    found = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            reason = one.labels.get("finished_reason")
            found[one.name + (f":{reason}" if reason else "")] = one.value
    return found


async def converse(model: Path) -> dict[str, Any]:
    """Several requests, and what server and client know of them afterwards."""
    async with AsyncLLM(str(model), config=CONFIG, in_process=True) as engine:
        app = create_app(engine, ServerSettings(enable_trace=True, model_names=("tiny",)))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:

            async def ask(prompt: str, **options: Any) -> dict[str, Any]:
                body = {"prompt": prompt, "temperature": 0, "ignore_eos": True, **options}
                response = await client.post("/v1/completions", json=body)
                assert response.status_code == 200, response.text
                return response.json()

            answers = [await ask("a prompt of some length", max_tokens=5)]
            answers.append(await ask("a prompt of some length, and more", max_tokens=3, n=2))
            answers += await asyncio.gather(*(ask(f"{number} prompt", max_tokens=7) for number in range(4)))
            paths = ("/metrics", "/trace?seconds=600", "/ui/state", "/ui/blocks")
            told = [await client.get(path) for path in paths]
        return {"answers": answers, "metrics": metrics_of(told[0].text), "trace": told[1].json()} | {
            "state": told[2].json(),
            "blocks": told[3],
        }


@pytest.fixture(scope="module")
def told(model: Path) -> dict[str, Any]:
    return asyncio.run(converse(model))


@pytest.fixture(scope="module")
def usage(told: dict[str, Any]) -> dict[str, int]:
    usages = [answer["usage"] for answer in told["answers"]]
    return {
        "prompt": sum(one["prompt_tokens"] for one in usages),
        "output": sum(one["completion_tokens"] for one in usages),
        "cached": sum(one["prompt_tokens_details"]["cached_tokens"] for one in usages),
    }


def test_metrics_agree_with_what_clients_were_told(told: dict[str, Any], usage: dict[str, int]) -> None:
    metrics = told["metrics"]
    assert metrics["vcore:generation_tokens_total"] == usage["output"] == 5 + 6 + 28
    assert metrics["vcore:request_generation_tokens_sum"] == usage["output"]
    assert metrics["vcore:request_prompt_tokens_sum"] == usage["prompt"]
    assert metrics["vcore:request_success_total:length"] == 7
    assert metrics["vcore:e2e_request_latency_seconds_count"] == 6
    assert metrics["vcore:time_to_first_token_seconds_count"] == 6
    assert metrics["vcore:num_requests_running"] == metrics["vcore:num_requests_waiting"] == 0
    assert metrics["vcore:kv_cache_usage_perc"] == 0
    assert usage["cached"] > 0
    assert metrics["vcore:prefix_cache_hits_total"] >= usage["cached"]
    assert metrics["vcore:prefix_cache_queries_total"] >= usage["prompt"]


def test_the_timeline_has_every_step_and_request(told: dict[str, Any], usage: dict[str, int]) -> None:
    spans = [event for event in told["trace"]["traceEvents"] if event["ph"] == "X"]
    steps = [one for one in spans if one["pid"] == 1]
    assert len(steps) == told["metrics"]["vcore:iteration_tokens_total_count"]
    requests = {one["tid"]: one for one in spans if one["name"] == "request"}
    assert sum(one["args"]["output_tokens"] for one in requests.values()) == usage["output"]
    for one in spans:
        if one["pid"] != 2 or one["name"] == "request":
            continue
        around = requests[one["tid"]]
        assert around["ts"] <= one["ts"]
        assert one["ts"] + one["dur"] <= around["ts"] + around["dur"] + 0.2
    phases = {name: sum(one["name"] == name and one["pid"] == 2 for one in spans) for name in ("prefill", "decode")}
    assert phases == {"prefill": 6, "decode": 6}


def test_the_page_is_told_the_same(told: dict[str, Any], usage: dict[str, int]) -> None:
    state = told["state"]
    assert state["model"]["name"] == "tiny"
    assert state["tokens"]["output"] == usage["output"]
    assert state["requests"]["finished"] == {"stop": 0, "length": 7, "abort": 0, "error": 0}
    assert (state["cache"]["used"], state["cache"]["free"]) == (0, 63)
    assert state["cache"]["block_size"] == str(BLOCK_SIZE)
    kinds = {plugin["kind"] for plugin in state["plugins"]}
    assert {"model", "attention_backend", "scheduling_policy", "eviction_policy", "executor"} <= kinds
    states = [(byte >> shift) & 3 for byte in told["blocks"].content for shift in (0, 2, 4, 6)][:64]
    assert told["blocks"].headers["x-num-blocks"] == "64"
    assert states.count(2) == state["cache"]["cached"] > 0
