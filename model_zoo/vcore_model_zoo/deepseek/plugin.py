"""Registers the DeepSeek architectures with latent attention."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins import ModelSpec, hookimpl

_FEATURES = frozenset({"mla", "moe", "rope_scaling", "tensor_parallel", "tied_embeddings"})


@hookimpl
def vcore_models() -> Sequence[ModelSpec]:
    return [
        ModelSpec(
            name="deepseek_v2",
            load="vcore_model_zoo.deepseek.deepseek_v2:DeepseekV2ForCausalLM",
            api="1.0",
            summary="DeepSeek-V2, V2-Lite and V2.5: latent attention, shared and routed experts",
            architectures=("DeepseekV2ForCausalLM",),
            features=_FEATURES,
        ),
        ModelSpec(
            name="deepseek_v3",
            load="vcore_model_zoo.deepseek.deepseek_v3:DeepseekV3ForCausalLM",
            api="1.0",
            summary="DeepSeek-V3 and R1: latent attention, experts whose load a bias balances",
            architectures=("DeepseekV3ForCausalLM",),
            features=_FEATURES,
        ),
    ]
