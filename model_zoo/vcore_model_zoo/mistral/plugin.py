"""Registers the Mistral architecture."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins import ModelSpec, hookimpl


@hookimpl
def vcore_models() -> Sequence[ModelSpec]:
    return [
        ModelSpec(
            name="mistral",
            load="vcore_model_zoo.mistral.model:MistralForCausalLM",
            api="1.0",
            summary="Mistral 7B and Nemo, with and without a sliding window",
            architectures=("MistralForCausalLM",),
            features=frozenset({"rope_scaling", "sliding_window", "tensor_parallel", "tied_embeddings"}),
        )
    ]
