"""Registers the weight loaders."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins.hookspecs import hookimpl
from vcore.plugins.specs import WeightLoaderSpec

__all__ = ["vcore_weight_loaders"]


@hookimpl
def vcore_weight_loaders() -> Sequence[WeightLoaderSpec]:
    """The weight loaders."""
    return [
        WeightLoaderSpec(
            name="safetensors",
            load="vcore_model_zoo.loaders.safetensors_loader:SafetensorsLoader",
            api="1.0",
            summary="safetensors files, single or sharded, memory-mapped",
            rank=10,
            formats=("safetensors",),
            suffixes=(".safetensors",),
        ),
        WeightLoaderSpec(
            name="gguf",
            load="vcore_model_zoo.loaders.gguf_loader:GGUFLoader",
            api="1.0",
            options="vcore_model_zoo.loaders.options:GGUFOptions",
            summary="GGUF files of llama.cpp, dequantised; a converted copy is kept",
            formats=("gguf",),
            suffixes=(".gguf",),
        ),
        WeightLoaderSpec(
            name="dummy",
            load="vcore_model_zoo.loaders.dummy_loader:DummyLoader",
            api="1.0",
            summary="random weights for any config.json, for benchmarks and tests",
            formats=("dummy",),
        ),
    ]
