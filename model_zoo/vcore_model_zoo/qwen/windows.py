"""Which layers of a Qwen model see how far back."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.interfaces.hf_config import HFConfig
from vcore.layers import FULL, SLIDING, layer_types

__all__ = ["sliding_windows"]


def sliding_windows(config: HFConfig) -> Sequence[int | None]:
    """The window of each layer, None for one that sees everything.

    ``use_sliding_window`` switches windows on; then ``layer_types`` says where, or else the layers from
    ``max_window_layers`` on have one. Published checkpoints state a ``sliding_window`` that they do not use.

    Raises:
        UnsupportedModelError: ``layer_types`` has other types, or not as many as there are layers.
    """
    window = config.get("sliding_window", 4096) if config.get("use_sliding_window", False) else None
    first = config.get("max_window_layers", 28)
    types = layer_types(config, lambda layer_index: SLIDING if layer_index >= first else FULL)
    return [window if layer_type == SLIDING else None for layer_type in types]
