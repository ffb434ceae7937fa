"""Registers the dense Qwen architectures."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins import ModelSpec, hookimpl


@hookimpl
def vcore_models() -> Sequence[ModelSpec]:
    return [
        ModelSpec(
            name="qwen2",
            load="vcore_model_zoo.qwen.qwen2:Qwen2ForCausalLM",
            api="1.0",
            summary="Qwen2 and Qwen2.5, dense",
            architectures=("Qwen2ForCausalLM",),
            features=frozenset({"rope_scaling", "sliding_window", "tensor_parallel", "tied_embeddings"}),
        ),
        ModelSpec(
            name="qwen3",
            load="vcore_model_zoo.qwen.qwen3:Qwen3ForCausalLM",
            api="1.0",
            summary="Qwen3, dense: norms on queries and keys",
            architectures=("Qwen3ForCausalLM",),
            features=frozenset({"qk_norm", "rope_scaling", "sliding_window", "tensor_parallel", "tied_embeddings"}),
        ),
    ]
