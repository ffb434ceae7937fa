"""Gemma 3's rotary embedding: each type of layer has frequencies of its own."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import BuildContext
from vcore.layers import RotaryEmbedding, Rotation
from vcore_model_zoo.gemma.config import FULL, SLIDING

__all__ = ["RotaryByLayerType"]


class RotaryByLayerType(nn.Module):
    """A table of angles for each type of layer."""

    def __init__(self, context: BuildContext, head_dim: int) -> None:
        super().__init__()
        self.by_type = nn.ModuleDict()
        for layer_type in (FULL, SLIDING):
            rope = {"rope_scaling": None, "rope_parameters": _parameters(context.config, layer_type)}
            config = HFConfig({**context.config.to_dict(), **rope}, context.config.origin)
            self.by_type[layer_type] = RotaryEmbedding(dataclasses.replace(context, config=config), head_dim)

    def forward(self, positions: torch.Tensor) -> dict[str, Rotation]:
        """By layer type, the angles of int64 [num_tokens] `positions`."""
        return {layer_type: rotary(positions) for layer_type, rotary in self.by_type.items()}


def _parameters(config: HFConfig, layer_type: str) -> dict[str, Any]:
    """The rotary parameters of a type of layer: from ``rope_parameters``, or the keys that came before it."""
    nested = (config.get("rope_parameters") or {}).get(layer_type) or {}
    if layer_type == SLIDING:
        before = {"rope_theta": config.get("rope_local_base_freq", 10_000.0)}
    else:
        before = {"rope_theta": config.get("rope_theta", 1_000_000.0), **(config.get("rope_scaling") or {})}
    return {**before, **dict(nested)}
