"""Registers Gemma 1 to 3."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins import ModelSpec, hookimpl


@hookimpl
def vcore_models() -> Sequence[ModelSpec]:
    return [
        ModelSpec(
            name="gemma",
            load="vcore_model_zoo.gemma.gemma1:GemmaForCausalLM",
            api="1.0",
            summary="Gemma 1",
            architectures=("GemmaForCausalLM",),
            features=frozenset({"rope_scaling", "tensor_parallel", "tied_embeddings"}),
        ),
        ModelSpec(
            name="gemma2",
            load="vcore_model_zoo.gemma.gemma2:Gemma2ForCausalLM",
            api="1.0",
            summary="Gemma 2: capped scores, every other layer with a sliding window",
            architectures=("Gemma2ForCausalLM",),
            features=frozenset({"rope_scaling", "sliding_window", "soft_cap", "tensor_parallel", "tied_embeddings"}),
        ),
        ModelSpec(
            name="gemma3",
            load="vcore_model_zoo.gemma.gemma3:Gemma3ForCausalLM",
            api="1.0",
            summary="Gemma 3: five layers with a sliding window to one without",
            architectures=("Gemma3ForCausalLM",),
            features=frozenset({"qk_norm", "rope_scaling", "sliding_window", "tensor_parallel", "tied_embeddings"}),
        ),
        ModelSpec(
            name="gemma3_multimodal",
            load="vcore_model_zoo.gemma.gemma3:Gemma3ForConditionalGeneration",
            api="1.0",
            summary="Gemma 3 with images: the language model alone, for text",
            architectures=("Gemma3ForConditionalGeneration",),
            features=frozenset({"qk_norm", "rope_scaling", "sliding_window", "tensor_parallel", "tied_embeddings"}),
        ),
    ]
