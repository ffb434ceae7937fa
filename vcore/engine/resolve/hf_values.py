"""What the engine itself reads from a model's ``config.json``, whatever the architecture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig

__all__ = [
    "check_values",
    "eos_token_ids",
    "stored_dtype",
    "text_config",
    "vocab_size",
]


_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)
_LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "num_nextn_predict_layers")
"""How architectures call the number of layers."""
_MAX_LAYERS = 4096
"""Far above what any model has, and still built in seconds: a damaged number must not keep the machine busy."""
_NUMBERS = ("rms_norm_eps", "layer_norm_eps", "rope_theta")
_OBJECTS = ("rope_scaling", "rope_parameters", "text_config")
_INT32_MAX = 2**31 - 1


def check_values(config: HFConfig) -> None:
    """Refuse values that cannot be what their names say, before a model is built from them.

    A key may be missing or null, and a size may be a list with one a layer: whether that will do is the model's to say.

    Raises:
        UnsupportedModelError: with the key, what was found and what was expected.
    """
    names = config.get("architectures")
    if names is not None and not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
        raise _unexpected(config, "architectures", names, "a list of names")
    for holder in [config] if text_config(config) is config else [config, text_config(config)]:
        for key in _SIZES:
            value = holder.get(key)
            if value is not None and not isinstance(value, list) and not _is_size(value):
                raise _unexpected(holder, key, value, f"a whole number from 0 to {_INT32_MAX}")
        for key in _LAYER_COUNTS:
            value = holder.get(key)
            if isinstance(value, int) and value > _MAX_LAYERS:
                raise _unexpected(holder, key, value, f"at most {_MAX_LAYERS} layers")
        for key in _NUMBERS:
            value = holder.get(key)
            if value is not None and not _is_number(value):
                raise _unexpected(holder, key, value, "a number from zero")
        for key in _OBJECTS:
            value = holder.get(key)
            if value is not None and not isinstance(value, HFConfig):
                raise _unexpected(holder, key, value, "an object")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _INT32_MAX


def _is_number(value: object) -> bool:
    """Whether it is a number, finite and not below zero."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _unexpected(config: HFConfig, key: str, value: object, expected: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{config.origin}: found {key}={value!r:.80}, expected {expected}. Fetch the file again, or correct it."
    )


def text_config(config: HFConfig) -> HFConfig:
    """The part that is about text: ``text_config`` where there is one."""
    nested = config.get("text_config")
    return nested if isinstance(nested, HFConfig) else config


def vocab_size(config: HFConfig) -> int:
    """How many token ids there are.

    Raises:
        UnsupportedModelError: the config does not say.
    """
    value = text_config(config).vocab_size
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UnsupportedModelError(f"{config.origin}: found vocab_size={value!r}, expected a positive whole number")
    return value


def stored_dtype(config: HFConfig) -> str | None:
    """The dtype that the model was trained or saved in, such as ``"bfloat16"``, or None if the config does not say."""
    for holder in (text_config(config), config):
        for key in ("dtype", "torch_dtype"):
            value = holder.get(key)
            if isinstance(value, str):
                return value.removeprefix("torch.")
    return None


def eos_token_ids(generation_config: Mapping[str, object], config: HFConfig) -> tuple[int, ...]:
    """The ends of sequence: of ``generation_config.json`` if it has any, else of ``config.json``.

    Raises:
        UnsupportedModelError: they are no token ids.
    """
    for holder in (generation_config, text_config(config), config):
        value: Any = holder.get("eos_token_id")
        ids = list(value) if isinstance(value, list | tuple) else [value]
        if value is None or not ids:
            continue
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in ids):
            origin = holder.origin if isinstance(holder, HFConfig) else "generation_config.json"
            raise UnsupportedModelError(
                f"{origin}: found eos_token_id={value!r:.80}, expected a token id or a list of them. Fetch the file "
                "again, or correct it."
            )
        return tuple(ids)
    return ()
