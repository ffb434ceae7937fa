"""Registers the Phi-3 architecture."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins import ModelSpec, hookimpl


@hookimpl
def vcore_models() -> Sequence[ModelSpec]:
    return [
        ModelSpec(
            name="phi3",
            load="vcore_model_zoo.phi.model:Phi3ForCausalLM",
            api="1.0",
            summary="Phi-3, Phi-3.5 and Phi-4, mini and medium",
            architectures=("Phi3ForCausalLM",),
            features=frozenset({"rope_scaling", "sliding_window", "tensor_parallel", "tied_embeddings"}),
        )
    ]
