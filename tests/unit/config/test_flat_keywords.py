"""Flat keywords map onto the tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vcore.config import EngineConfig, load_config
from vcore.config.flat_keywords import FLAT_KEYWORDS
from vcore.config.problems import dotted_keys
from vcore.errors import ConfigError


def read(config: EngineConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def test_every_keyword_stands_for_a_key_that_exists() -> None:
    assert set(FLAT_KEYWORDS.values()) <= set(dotted_keys(EngineConfig))


@pytest.mark.parametrize(
    ("keyword", "value", "key", "stored"),
    [
        ("dtype", "half", "model.dtype", "float16"),
        ("dtype", "float32", "model.dtype", "float32"),
        ("max_model_len", 99, "model.max_model_len", 99),
        ("gpu_memory_utilization", 0.5, "cache.memory_fraction", 0.5),
        ("enforce_eager", True, "runtime.enforce_eager", True),
        ("tensor_parallel_size", 2, "runtime.tensor_parallel_size", 2),
        ("device", "cuda:1", "runtime.device", "cuda:1"),
        ("seed", 7, "runtime.seed", 7),
        ("max_num_seqs", 3, "scheduler.max_num_seqs", 3),
        ("max_num_batched_tokens", 300, "scheduler.max_num_batched_tokens", 300),
        ("enable_prefix_caching", False, "cache.prefix_caching", False),
        ("block_size", 32, "cache.block_size", 32),
        ("num_gpu_blocks_override", 9, "cache.num_blocks", 9),
        ("skip_tokenizer_init", True, "model.skip_tokenizer", True),
        ("tokenizer", Path("tok"), "model.tokenizer", "tok"),
        ("enable_chunked_prefill", False, "scheduler.chunked_prefill", False),
        ("long_prefill_token_threshold", 64, "scheduler.long_prefill_threshold", 64),
        ("long_prefill_token_threshold", 0, "scheduler.long_prefill_threshold", None),
        ("model", Path("somewhere"), "model.path", "somewhere"),
    ],
)
def test_a_keyword_sets_its_key(keyword: str, value: object, key: str, stored: object) -> None:
    assert read(load_config(None, {keyword: value}), key) == stored


@pytest.mark.parametrize(
    ("keyword", "key"),
    [
        ("load_format", "model.load_format"),
        ("attention_backend", "attention.backend"),
        ("scheduling_policy", "scheduler.policy"),
    ],
)
def test_a_keyword_chooses_a_plugin(keyword: str, key: str) -> None:
    assert read(load_config(None, {keyword: "x"}), key).name == "x"
    assert read(load_config(None, {keyword: {"name": "x", "options": {"a": 1}}}), key).options == {"a": 1}


def test_torch_objects_are_understood() -> None:
    torch = pytest.importorskip("torch")
    loaded = load_config(None, {"dtype": torch.bfloat16, "device": torch.device("cpu")})
    assert (loaded.model.dtype, loaded.runtime.device) == ("bfloat16", "cpu")


def test_none_counts_as_not_given() -> None:
    assert load_config({"model.max_model_len": 8}, {"max_model_len": None, "seed": None}) == load_config(
        {"model.max_model_len": 8}
    )


def test_trust_remote_code_is_refused_with_the_reason() -> None:
    assert load_config(None, {"trust_remote_code": False}) == EngineConfig()
    with pytest.raises(ConfigError, match=r"runs no code from a checkpoint.*model plugin"):
        load_config(None, {"trust_remote_code": True})


@pytest.mark.parametrize(
    ("keyword", "meant"),
    [
        ("gpu_memory_utilisation", "gpu_memory_utilization"),
        ("max_seqs", "max_num_seqs"),
        ("memory_fractions", "cache.memory_fraction"),
        ("prefix_caching", "cache.prefix_caching"),
    ],
)
def test_an_unknown_keyword_gets_a_did_you_mean(keyword: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown keyword '{keyword}'.*Did you mean.*{meant}.*Keywords are: "):
        load_config(None, {keyword: 1})


def test_a_contradiction_in_one_call_is_an_error_and_across_calls_the_override_wins() -> None:
    with pytest.raises(ConfigError, match=r"cache\.block_size is given twice, as 8 and as 16"):
        load_config(None, {"block_size": 8, "cache.block_size": 16})
    with pytest.raises(ConfigError, match=r"cache\.block_size is given twice"):
        load_config(None, {"block_size": 8, "cache": {"block_size": 16}})
    assert load_config(None, {"block_size": 8, "cache": {"block_size": 8}}).cache.block_size == 8
    assert load_config({"cache.block_size": 16}, {"block_size": 8}).cache.block_size == 8
