"""A small DeepSeek over the triton_mla backend and the kernels of its experts, with and without CUDA graphs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vcore import LLM, EngineConfig, SamplingParams

pytestmark = pytest.mark.gpu

DEEPSEEK = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "hidden_size": 256,
    "intermediate_size": 512,
    "moe_intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "kv_lora_rank": 128,
    "q_lora_rank": None,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "v_head_dim": 64,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "n_routed_experts": 16,
    "n_shared_experts": 1,
    "num_experts_per_tok": 4,
    "vocab_size": 1000,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}
PROMPTS = [[(7 * i + j) % 1000 for j in range(3 + 23 * i)] for i in range(8)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(DEEPSEEK))
    return tmp_path


@contextmanager
def engine(model: Path, backend: str = "triton_mla", *, eager: bool = False, routing: str = "model") -> Iterator[LLM]:
    config = {
        "model": {
            "path": str(model),
            "load_format": "dummy",
            "skip_tokenizer": True,
            "dtype": "bfloat16",
            "moe_routing": routing,
        },
        "runtime": {"device": "cuda:0", "enforce_eager": eager},
        "attention": {"backend": backend},
        "scheduler": {"max_num_seqs": 16},
        "cache": {"num_blocks": 400},
    }
    with LLM(config=EngineConfig.model_validate(config)) as llm:
        yield llm


def generate(llm: LLM, prompts: list[list[int]], num_tokens: int) -> list[tuple[list[int], float]]:
    """Of each prompt, its greedy tokens and the sum of their logprobs."""
    params = SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True, detokenize=False, logprobs=1)
    outputs = [output.outputs[0] for output in llm.generate(prompts, params, use_tqdm=False)]
    return [(list(output.token_ids), output.cumulative_logprob) for output in outputs]


@pytest.mark.parametrize("rows", [1, 4, 8])
def test_tokens_are_those_of_eager_steps(model: Path, rows: int) -> None:
    with engine(model, eager=True) as llm:
        expected = [tokens for tokens, _ in generate(llm, PROMPTS[:rows], 30)]
    with engine(model) as llm:
        assert [tokens for tokens, _ in generate(llm, PROMPTS[:rows], 30)] == expected
        graphs = llm._engine.core._executor._runner._forward.graphs  # the one way to see that they are used
        assert graphs is not None
        assert graphs._graphs


def test_uniform_routing_gives_the_same_tokens_every_time(model: Path) -> None:
    # Not those of eager steps: the last bit of a logit decides on the experts, and padded products may change it.
    found = []
    for _ in range(2):
        with engine(model, routing="uniform") as llm:
            found.append([tokens for tokens, _ in generate(llm, PROMPTS, 30)])
    assert found[0] == found[1]


def test_first_tokens_are_as_likely_as_with_another_backend(model: Path) -> None:
    with engine(model, "torch_sdpa") as llm:
        expected = generate(llm, PROMPTS, 1)
    with engine(model) as llm:
        for _ in range(2):  # the second time after cached prefixes, in the absorbed form
            for (_, found), (_, wanted) in zip(generate(llm, PROMPTS, 1), expected, strict=True):
                assert found == pytest.approx(wanted, abs=0.05)


def test_latent_layers_are_its_own_where_it_is_named(model: Path) -> None:
    with engine(model, "triton_mla") as llm:
        chosen = [layer for layer in _modules(llm) if type(layer).__name__ == "LatentAttention"]
        assert {type(layer._kernel).__name__ for layer in chosen} == {"TritonMLALayer"}


def _modules(llm: LLM):
    return llm._engine.core._executor._runner._forward._model.modules()
