"""Which layers of a Qwen model see how far back."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig
from vcore.layers import check_sizes

__all__ = ["sliding_windows"]

_FULL, _SLIDING = "full_attention", "sliding_attention"


def sliding_windows(config: HFConfig) -> Sequence[int | None]:
    """The window of each layer, None for one that sees everything.

    ``use_sliding_window`` switches windows on; then ``layer_types`` says where, or else the layers from
    ``max_window_layers`` on have one. Published checkpoints state a ``sliding_window`` that they do not use.

    Raises:
        UnsupportedModelError: ``layer_types`` has other types, or not as many as there are layers.
    """
    num_layers: int = config.num_hidden_layers
    check_sizes(config, num_hidden_layers=num_layers)
    window = config.get("sliding_window", 4096) if config.get("use_sliding_window", False) else None
    first = config.get("max_window_layers", 28)
    types = config.get("layer_types") or [_SLIDING if index >= first else _FULL for index in range(num_layers)]
    if not isinstance(types, list) or len(types) != num_layers or not all(one in (_FULL, _SLIDING) for one in types):
        raise UnsupportedModelError(
            f"{config.origin}: found layer_types={types!r:.200}, expected {_FULL!r} or {_SLIDING!r} for each of its "
            f"{num_layers} layers. Fetch the file again, or correct it."
        )
    return [window if layer_type == _SLIDING else None for layer_type in types]
