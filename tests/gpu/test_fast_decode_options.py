"""Shared prefixes and fused cache writes, end to end against the same without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vcore import LLM, EngineConfig, SamplingParams

pytestmark = pytest.mark.gpu

QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "num_hidden_layers": 3,
    "vocab_size": 1000,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}
PREFIX = [(7 * i) % 1000 for i in range(300)]
PROMPTS = [PREFIX + [(13 * i + j) % 1000 for j in range(3 + 5 * i)] for i in range(11)]
LENGTHS = [40, 3, 17, 60, 9, 33, 21, 5, 50, 12, 28]
"""So the batch shrinks through many sizes."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(QWEN3))
    return tmp_path


PLAIN = {"backend": {"name": "triton_paged", "options": {"shared_prefix": False}}, "fused_write": False}
SHARING = {"name": "triton_paged", "options": {"shared_prefix": True, "min_shared_blocks": 4}}


def generate(
    model: Path, prompts: list[list[int]], attention: dict[str, Any] | None = None, **runtime: Any
) -> tuple[list[list[int]], set[bool]]:
    """Greedy tokens, and whether there were graphs with a shared prefix, and without."""
    config = {
        "model": {"path": str(model), "load_format": "dummy", "skip_tokenizer": True, "dtype": "float32"},
        "runtime": {"device": "cuda:0", **runtime},
        "attention": attention or PLAIN,
        "scheduler": {"max_num_seqs": 8},
        "cache": {"num_blocks": 600},
    }
    params = [SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True, detokenize=False) for n in LENGTHS]
    with LLM(config=EngineConfig.model_validate(config)) as llm:
        for _ in range(2):  # the second time from captured graphs, and from cached prefixes
            outputs = llm.generate(prompts, params[: len(prompts)], use_tqdm=False)
        graphs = llm._engine.core._executor._runner._forward.graphs  # the one way to see that they are used
        kinds = set() if graphs is None else {shares for _, _, shares in graphs._graphs}
    return [list(output.outputs[0].token_ids) for output in outputs], kinds


@pytest.mark.parametrize("enforce_eager", [True, False])
@pytest.mark.parametrize(
    "attention",
    [PLAIN | {"backend": SHARING}, PLAIN | {"fused_write": True}, {"backend": "triton_paged"}],
    ids=["shared_prefix", "fused_write", "both, by default"],
)
def test_tokens_are_those_without(model: Path, attention: dict[str, Any], enforce_eager: bool) -> None:
    expected, _ = generate(model, PROMPTS, enforce_eager=True)
    found, kinds = generate(model, PROMPTS, attention, enforce_eager=enforce_eager)
    assert found == expected
    if not enforce_eager:
        assert (True in kinds) == (attention["backend"] != PLAIN["backend"])


def test_prompts_that_share_nothing_have_no_graphs_for_it(model: Path) -> None:
    prompts = [[i, *prompt[290:]] for i, prompt in enumerate(PROMPTS)]
    expected, _ = generate(model, prompts, enforce_eager=True)
    assert generate(model, prompts, {"backend": SHARING}) == (expected, {False})
