"""Which layers of a Qwen model have experts, and how many."""

from __future__ import annotations

from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig
from vcore.layers import check_sizes

__all__ = ["check_experts", "is_sparse"]


def is_sparse(config: HFConfig, layer_index: int) -> bool:
    """Whether the layer has experts: every ``decoder_sparse_step``-th does, unless ``mlp_only_layers`` lists it.

    Raises:
        UnsupportedModelError: these are no whole number above zero, or no list.
    """
    dense, step = config.get("mlp_only_layers") or [], config.get("decoder_sparse_step") or 1
    check_sizes(config, decoder_sparse_step=step)
    if not isinstance(dense, list):
        raise UnsupportedModelError(
            f"{config.origin}: found mlp_only_layers={dense!r:.80}, expected a list of layers. Fetch the file again, "
            f"or correct it."
        )
    return layer_index not in dense and (layer_index + 1) % step == 0


def check_experts(config: HFConfig) -> int:
    """Routed experts of a layer: ``num_experts``, which later versions of transformers save as ``num_local_experts``.

    Raises:
        UnsupportedModelError: neither is there, or what the config says of experts is no whole number above zero.
    """
    key = "num_experts" if config.get("num_local_experts") is None else "num_local_experts"
    number = getattr(config, key)
    wanted = {name: getattr(config, name) for name in ("num_experts_per_tok", "moe_intermediate_size")}
    check_sizes(config, **wanted, **{key: number})
    return int(number)
