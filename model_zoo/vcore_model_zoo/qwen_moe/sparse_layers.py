"""Which layers of a Qwen model have experts, and how many."""

from __future__ import annotations

from vcore.interfaces.hf_config import HFConfig

__all__ = ["is_sparse", "num_experts"]


def is_sparse(config: HFConfig, layer_index: int) -> bool:
    """Whether the layer has experts: every ``decoder_sparse_step``-th does, unless ``mlp_only_layers`` lists it."""
    if layer_index in (config.get("mlp_only_layers") or ()):
        return False
    return (layer_index + 1) % (config.get("decoder_sparse_step") or 1) == 0


def num_experts(config: HFConfig) -> int:
    """Routed experts of a layer: ``num_experts``, which later versions of transformers save as ``num_local_experts``.

    Raises:
        UnsupportedModelError: neither is there.
    """
    return int(config.get("num_local_experts") or config.num_experts)
