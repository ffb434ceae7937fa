"""Registers the Mixtral architecture."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins import ModelSpec, hookimpl


@hookimpl
def vcore_models() -> Sequence[ModelSpec]:
    return [
        ModelSpec(
            name="mixtral",
            load="vcore_model_zoo.mixtral.model:MixtralForCausalLM",
            api="1.0",
            summary="Mixtral 8x7B and 8x22B: mixture of experts",
            architectures=("MixtralForCausalLM",),
            features=frozenset({"moe", "rope_scaling", "sliding_window", "tensor_parallel", "tied_embeddings"}),
        )
    ]
