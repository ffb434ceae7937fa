"""Registers Granite. vcore imports this module at every start, so it imports no torch."""

from vcore.plugins import ModelSpec, hookimpl


@hookimpl
def vcore_models() -> list[ModelSpec]:
    """Granite 3's dense language models."""
    return [
        ModelSpec(
            name="granite",
            load="vcore_granite.model:GraniteForCausalLM",
            api="1.0",
            summary="IBM Granite 3, dense",
            architectures=("GraniteForCausalLM",),
            features=frozenset({"rope_scaling", "tensor_parallel", "tied_embeddings"}),
        )
    ]
