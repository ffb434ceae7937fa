"""What Gemma's config.json means: values that checkpoints leave out, and which layers look how far back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig
from vcore.layers import FULL, SLIDING, check_positive, check_sizes, layer_types

__all__ = ["activation", "alternating_types", "complete", "embedding_scale", "score_scale", "soft_cap", "split_rope"]


def complete(config: HFConfig, defaults: Mapping[str, Any]) -> HFConfig:
    """A config about the text model alone, in which `defaults` stand where `config` says nothing.

    Gemma checkpoints are saved without the values that equal those of their architecture, such as tied embeddings;
    those that also take images nest what is about text in ``text_config``.

    Raises:
        UnsupportedModelError: the model attends in both directions.
    """
    values = config.to_dict()
    text = values.pop("text_config", None) or {}
    values = {**defaults, **values, **text}
    if values.get("use_bidirectional_attention"):
        raise UnsupportedModelError(
            f"{config.origin} has use_bidirectional_attention, but text is generated from left to right. Use a "
            f"checkpoint that was trained to generate."
        )
    return HFConfig(values, config.origin)


def split_rope(config: HFConfig) -> HFConfig:
    """`config` with rotary parameters for each type of layer, as they are written since transformers 5.

    Before that, ``rope_theta`` and ``rope_scaling`` were those of full layers, ``rope_local_base_freq`` the base of
    layers with a window. ``max_position_embeddings`` is what the model goes up to with its scaling, so the length
    before that is stated, too.

    Raises:
        UnsupportedModelError: there are rotary parameters, but for neither type.
    """
    full: dict[str, Any] = {"rope_theta": config.rope_theta, **(config.get("rope_scaling") or {})}
    sliding: dict[str, Any] = {"rope_theta": config.rope_local_base_freq}
    stated = config.get("rope_parameters") or {}
    if stated and not any(isinstance(stated.get(layer_type), Mapping) for layer_type in (FULL, SLIDING)):
        raise UnsupportedModelError(
            f"{config.origin}: found rope_parameters={stated!r:.200}, expected an object for each of {FULL!r} and "
            f"{SLIDING!r}: this architecture's types of layers differ. Fetch the file again, or correct it."
        )
    full.update(stated.get(FULL) or {})
    sliding.update(stated.get(SLIDING) or {})
    factor = full.get("factor")
    if isinstance(factor, int | float) and factor:
        full.setdefault("original_max_position_embeddings", int(config.max_position_embeddings / factor))
    rope = {"rope_scaling": None, "rope_parameters": {FULL: full, SLIDING: sliding}}
    return HFConfig({**config.to_dict(), **rope}, config.origin)


def activation(config: HFConfig) -> str:
    """The gate's activation. The first checkpoints say ``gelu`` and mean its tanh approximation."""
    stated = str(config.get("hidden_activation") or config.hidden_act)
    return "gelu_pytorch_tanh" if stated == "gelu" else stated


def score_scale(config: HFConfig) -> float:
    """What the scores of attention are multiplied by."""
    check_positive(config, query_pre_attn_scalar=config.query_pre_attn_scalar)
    return float(config.query_pre_attn_scalar**-0.5)


def soft_cap(config: HFConfig, key: str) -> float | None:
    """The cap that stands under `key`, or None if there is none."""
    cap: float | None = config.get(key)
    if cap is not None:
        check_positive(config, **{key: cap})
    return cap


def embedding_scale(config: HFConfig) -> float:
    """What embedded tokens are multiplied by: the root of their size."""
    check_sizes(config, hidden_size=config.hidden_size)
    return math.sqrt(config.hidden_size)


def alternating_types(config: HFConfig, *, period: int) -> list[str]:
    """`FULL` or `SLIDING` for each layer.

    Args:
        config: has them as ``layer_types``, or else every ``sliding_window_pattern``-th layer is full.
        period: stands for ``sliding_window_pattern`` where the config has neither.

    Raises:
        UnsupportedModelError: there are other types, or not as many as layers.
    """
    period = config.get("sliding_window_pattern") or period
    check_sizes(config, sliding_window_pattern=period)
    return layer_types(config, lambda layer_index: SLIDING if (layer_index + 1) % period else FULL)
