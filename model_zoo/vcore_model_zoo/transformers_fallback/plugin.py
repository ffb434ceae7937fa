"""Registers the fallback: causal language models of transformers, over vcore's paged attention."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins import ModelSpec, hookimpl


@hookimpl
def vcore_models() -> Sequence[ModelSpec]:
    return [
        ModelSpec(
            name="transformers",
            load="vcore_model_zoo.transformers_fallback.model:TransformersModel",
            api="1.0",
            summary="transformers' own modules over the paged cache, for model.fallback; slower than an own plugin",
            architectures=("*",),
            features=frozenset({"moe", "qk_norm", "rope_scaling", "sliding_window", "soft_cap", "tied_embeddings"}),
        )
    ]
