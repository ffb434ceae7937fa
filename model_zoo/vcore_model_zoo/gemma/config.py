"""What Gemma's config.json means: values that checkpoints leave out, and which layers look how far back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import BuildContext

__all__ = ["FULL", "SLIDING", "activation", "complete", "layer_types"]

FULL = "full_attention"
"""A layer whose tokens see all tokens before them, as configs call it."""
SLIDING = "sliding_attention"
"""A layer whose tokens see the last ``sliding_window`` tokens."""


def complete(context: BuildContext, defaults: Mapping[str, Any]) -> BuildContext:
    """`context` with a config about the text model alone, in which `defaults` stand where it says nothing.

    Gemma checkpoints are saved without the values that equal those of their architecture, such as tied embeddings;
    those that also take images nest the rest in ``text_config``.

    Raises:
        UnsupportedModelError: the model attends in both directions.
    """
    config = context.config
    nested = config.get("text_config")
    text = nested if isinstance(nested, HFConfig) else config
    if text.get("use_bidirectional_attention"):
        raise UnsupportedModelError(
            f"{text.origin} has use_bidirectional_attention, but text is generated from left to right. Use a "
            f"checkpoint that was trained to generate."
        )
    return dataclasses.replace(context, config=HFConfig({**defaults, **text.to_dict()}, text.origin))


def activation(config: HFConfig) -> str:
    """The gate's activation. The first checkpoints say ``gelu`` and mean its tanh approximation."""
    stated = str(config.get("hidden_activation") or config.hidden_act)
    return "gelu_pytorch_tanh" if stated == "gelu" else stated


def layer_types(config: HFConfig, *, period: int) -> Sequence[str]:
    """`FULL` or `SLIDING` for each layer.

    Args:
        config: has them as ``layer_types``, or else every ``sliding_window_pattern``-th layer is full.
        period: stands for ``sliding_window_pattern`` where the config has neither.

    Raises:
        UnsupportedModelError: there are other types, or not as many as layers.
    """
    num_layers = config.num_hidden_layers
    period = config.get("sliding_window_pattern") or period
    stated = config.get("layer_types") or [SLIDING if (i + 1) % period else FULL for i in range(num_layers)]
    if len(stated) != num_layers or not set(stated) <= {FULL, SLIDING}:
        raise UnsupportedModelError(
            f"{config.origin}: found layer_types={stated!r:.200}, expected {FULL!r} or {SLIDING!r} for each of its "
            f"{num_layers} layers. Fetch the file again, or correct it."
        )
    return [str(layer_type) for layer_type in stated]
