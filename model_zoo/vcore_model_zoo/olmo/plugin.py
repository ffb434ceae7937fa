"""Registers the OLMo 2 architecture."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins import ModelSpec, hookimpl


@hookimpl
def vcore_models() -> Sequence[ModelSpec]:
    return [
        ModelSpec(
            name="olmo2",
            load="vcore_model_zoo.olmo.model:Olmo2ForCausalLM",
            api="1.0",
            summary="OLMo 2: norms behind each block, and over all heads of queries and keys",
            architectures=("Olmo2ForCausalLM",),
            features=frozenset({"qk_norm", "rope_scaling", "tensor_parallel", "tied_embeddings"}),
        )
    ]
