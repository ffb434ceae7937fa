"""Registers Qwen's mixture-of-experts architectures."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins import ModelSpec, hookimpl

_FEATURES = frozenset({"moe", "rope_scaling", "sliding_window", "tensor_parallel", "tied_embeddings"})


@hookimpl
def vcore_models() -> Sequence[ModelSpec]:
    return [
        ModelSpec(
            name="qwen2_moe",
            load="vcore_model_zoo.qwen_moe.qwen2_moe:Qwen2MoeForCausalLM",
            api="1.0",
            summary="Qwen1.5-MoE and Qwen2-57B-A14B: routed experts and a gated shared one",
            architectures=("Qwen2MoeForCausalLM",),
            features=_FEATURES,
        ),
        ModelSpec(
            name="qwen3_moe",
            load="vcore_model_zoo.qwen_moe.qwen3_moe:Qwen3MoeForCausalLM",
            api="1.0",
            summary="Qwen3-30B-A3B and Qwen3-235B-A22B: mixture of experts, norms on queries and keys",
            architectures=("Qwen3MoeForCausalLM",),
            features=_FEATURES | {"qk_norm"},
        ),
    ]
