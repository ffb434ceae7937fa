"""`layer_types`: which layers look back over a sliding window, in architectures that have both kinds."""

from __future__ import annotations

from collections.abc import Callable

from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig
from vcore.layers.config_checks import check_sizes

__all__ = ["FULL", "SLIDING", "layer_types"]

FULL = "full_attention"
"""A layer whose tokens see all tokens before them, as configs call it."""
SLIDING = "sliding_attention"
"""A layer whose tokens see the last ``sliding_window`` tokens."""


def layer_types(config: HFConfig, default: Callable[[int], str]) -> list[str]:
    """`FULL` or `SLIDING` for each layer.

    Args:
        config: has them as ``layer_types``, or not.
        default: the type of a layer by its index, for configs that do not have them.

    Raises:
        UnsupportedModelError: there are other types, or not as many as layers.
    """
    num_layers = config.num_hidden_layers
    check_sizes(config, num_hidden_layers=num_layers)
    stated = config.get("layer_types")
    types = [default(layer_index) for layer_index in range(num_layers)] if stated is None else stated
    if not isinstance(types, list) or len(types) != num_layers or not all(one in (FULL, SLIDING) for one in types):
        raise UnsupportedModelError(
            f"{config.origin}: found layer_types={types!r:.200}, expected {FULL!r} or {SLIDING!r} for each of its "
            f"{num_layers} layers. Fetch the file again, or correct it."
        )
    return types
