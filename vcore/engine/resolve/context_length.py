"""`model.max_model_len`: what the model's config says it can attend over, position scaling included."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vcore.engine.resolve.decisions import Decision
from vcore.engine.resolve.hf_values import text_config
from vcore.errors import ConfigError, UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig

__all__ = ["resolve_max_model_len", "trained_length"]

_LENGTH_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")
"""Where architectures state it; the first that is there counts."""


def resolve_max_model_len(wanted: int | str, config: HFConfig) -> tuple[int, Decision | None]:
    """The most tokens of prompt and output together.

    Args:
        wanted: a number, or ``"auto"``.
        config: the model's.

    Raises:
        ConfigError: more is wanted than the model can do, or nothing is said anywhere.
        UnsupportedModelError: the model's config leaves room for no token.
    """
    trained = trained_length(config)
    if trained is not None and trained[0] < 1:
        raise UnsupportedModelError(
            f"{config.origin}: found room for {trained[0]} tokens ({trained[1]}), expected at least 1. Fetch the file "
            "again, or correct it."
        )
    if isinstance(wanted, int):
        if trained is not None and wanted > trained[0]:
            raise ConfigError(
                f"model.max_model_len: found {wanted:,}, but the model goes up to {trained[0]:,} tokens ({trained[1]})"
                f". Lower it, or change the scaling in {config.origin}."
            )
        return wanted, None
    if trained is None:
        raise ConfigError(
            f"model.max_model_len is 'auto', and {config.origin} has none of {', '.join(_LENGTH_KEYS)}; write a number"
        )
    return trained[0], Decision(key="model.max_model_len", value=trained[0], why=trained[1])


def trained_length(config: HFConfig) -> tuple[int, str] | None:
    """The length that `config` states, with how it is reckoned, or None.

    ``linear`` and ``dynamic`` scaling stretch ``max_position_embeddings`` by their factor, ``yarn`` stretches
    ``original_max_position_embeddings``; where ``llama3`` and ``longrope`` are used, ``max_position_embeddings``
    is the stretched length already. These are the conventions of transformers' ``modeling_rope_utils``.

    Raises:
        UnsupportedModelError: a scaling's factor is infinite or not a number.
    """
    text = text_config(config)
    key = next((key for key in _LENGTH_KEYS if isinstance(text.get(key), int)), None)
    if key is None:
        return None
    length = int(text[key])
    scalings = _rope_scalings(text)
    if not scalings:
        return length, f"{key}={length}"
    for scaling in scalings:
        if not math.isfinite(scaling["factor"]):
            raise UnsupportedModelError(
                f"{config.origin}: found a rope scaling with factor={scaling['factor']!r}, expected a number above "
                "zero. Fetch the file again, or correct it."
            )
    return min((_scaled(key, length, scaling) for scaling in scalings), key=lambda found: found[0])


def _rope_scalings(text: HFConfig) -> list[Mapping[str, Any]]:
    """The rotary scalings: one, or one a kind of layer (as in ``rope_parameters`` of models that mix them)."""
    stated = text.get("rope_scaling") or text.get("rope_parameters")
    if not isinstance(stated, Mapping):
        return []
    nested = [value for value in stated.values() if isinstance(value, Mapping)]
    return [one for one in nested or [stated] if isinstance(one.get("factor"), int | float)]


def _scaled(key: str, length: int, scaling: Mapping[str, Any]) -> tuple[int, str]:
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    factor = scaling["factor"]
    original = scaling.get("original_max_position_embeddings")
    if kind in ("linear", "dynamic", "yarn"):
        base, base_key = (original, "original_max_position_embeddings") if isinstance(original, int) else (length, key)
        return int(base * factor), f"{base_key}={base} times the {kind} scaling's factor of {factor}"
    return length, f"{key}={length}, which includes {kind} scaling"
