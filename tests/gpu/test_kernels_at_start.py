"""No kernel is compiled once the engine is ready, whatever comes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vcore import LLM, EngineConfig, SamplingParams

pytestmark = pytest.mark.gpu

knobs = pytest.importorskip("triton.knobs")

COMMON = {
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "num_hidden_layers": 2,
    "vocab_size": 1001,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 10000,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
}
QWEN3 = {**COMMON, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu"}
GEMMA2 = {
    **COMMON,
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "sliding_window": 200,
    "query_pre_attn_scalar": 64,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
DEEPSEEK = {
    **{key: value for key, value in COMMON.items() if key != "head_dim"},
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "num_key_value_heads": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "v_head_dim": 64,
    "moe_intermediate_size": 64,
    "first_k_dense_replace": 1,
    "n_routed_experts": 16,
    "n_shared_experts": 1,
    "num_experts_per_tok": 4,
    "hidden_act": "silu",
}
GREEDY: dict[str, Any] = {"temperature": 0.0}
KINDS: list[dict[str, Any]] = [
    {},
    GREEDY,
    {"top_k": 5, "top_p": 0.9},
    {"min_p": 0.1, "logprobs": 2},
    {**GREEDY, "logprobs": 3},
    {"presence_penalty": 1.0, "repetition_penalty": 1.2},
    {**GREEDY, "frequency_penalty": 0.5},
    {"logit_bias": {3: 2.0}},
]


def load(llm: LLM, lengths: list[int], kinds: list[dict[str, Any]], salt: int, tokens: int = 9) -> None:
    """As many requests as there are lengths, of these kinds in turn; no two begin alike, nor with another `salt`."""
    prompts = [[(salt + 37 * i + j * j) % 1001 for j in range(length)] for i, length in enumerate(lengths)]
    wanted = [
        SamplingParams(max_tokens=1 + i % tokens, ignore_eos=True, detokenize=False, **kinds[i % len(kinds)])
        for i in range(len(lengths))
    ]
    llm.generate(prompts, wanted, use_tqdm=False)


def varied_load(llm: LLM) -> None:
    load(llm, [3], [GREEDY], 1)
    load(llm, [20, 1, 5], [{}], 2)
    load(llm, [300], [{}], 3)
    load(llm, [7 + i for i in range(17)], [GREEDY], 4)
    load(llm, [2 + i % 50 for i in range(90)], KINDS, 5, tokens=40)
    load(llm, [1200, 40, 300, 2500], KINDS, 6)
    for kind in KINDS:
        load(llm, [5, 9], [kind], 7)
        load(llm, [4 + i for i in range(20)], [kind], 8)
    for _ in range(2):  # long ones in several chunks; the second time their prefixes are cached
        load(llm, [9300, 9100], [{}], 9)
    shared = [(5 * j) % 1001 for j in range(700)]
    params = SamplingParams(max_tokens=30, ignore_eos=True, detokenize=False)
    for count in (2, 5, 20, 80):  # a prefix that all have
        llm.generate([[*shared, i, i + 1, i + 2] for i in range(count)], params, use_tqdm=False)


@pytest.mark.parametrize(
    "runtime",
    [{}, {"graph_capture": "at_start"}, {"enforce_eager": True}],
    ids=["lazily", "at_start", "eager"],
)
@pytest.mark.parametrize(
    ("config", "backend"),
    [(QWEN3, "triton_paged"), (GEMMA2, "triton_paged"), (DEEPSEEK, "triton_mla")],
    ids=["qwen3", "gemma2", "deepseek"],
)
def test_no_kernel_is_compiled_after_the_start(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any],
    backend: str,
    runtime: dict[str, Any],
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    tree = {
        "model": {"path": str(tmp_path), "load_format": "dummy", "skip_tokenizer": True, "dtype": "bfloat16"},
        "runtime": {"device": "cuda:0", **runtime},
        "attention": {"backend": backend},
        "scheduler": {"max_num_seqs": 99, "max_num_batched_tokens": 2048},
        "cache": {"memory_fraction": 0.5} if (config, runtime) == (QWEN3, {}) else {"num_blocks": 3001},
    }
    compiled: list[str] = []

    def note(*, src: Any, metadata: dict[str, Any], **_: object) -> None:
        compiled.append(f"{src.name} {src.signature} {src.constants} {src.attrs}")

    with LLM(config=EngineConfig.model_validate(tree)) as llm:
        monkeypatch.setattr(knobs.compilation, "listener", note)
        varied_load(llm)
    assert compiled == []
