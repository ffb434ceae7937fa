"""Registers the Llama architecture."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins import ModelSpec, hookimpl


@hookimpl
def vcore_models() -> Sequence[ModelSpec]:
    return [
        ModelSpec(
            name="llama",
            load="vcore_model_zoo.llama.model:LlamaForCausalLM",
            api="1.0",
            summary="Llama 1 to 3 and what shares their architecture, such as SmolLM2",
            # The second is how checkpoints of before its name was settled spell it.
            architectures=("LlamaForCausalLM", "LLaMAForCausalLM"),
            features=frozenset({"rope_scaling", "tied_embeddings", "tensor_parallel"}),
        )
    ]
