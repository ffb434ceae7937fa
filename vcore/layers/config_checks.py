"""What a config's numbers must be for layers of their sizes to exist, said with the config's own words."""

from __future__ import annotations

import math

from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig

__all__ = ["check_head_groups", "check_positive", "check_sizes"]


def check_sizes(config: HFConfig, **sizes: object) -> None:
    """Hold sizes, by the key that config.json has for each, to be whole numbers above zero.

    Raises:
        UnsupportedModelError: one is not; the message names the key and what was found.
    """
    for key, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise UnsupportedModelError(
                f"{config.origin}: found {key}={size!r:.80}, expected a whole number above zero. Fetch the file again, "
                f"or correct it."
            )


def check_positive(config: HFConfig, **numbers: object) -> None:
    """Hold numbers, by the key that config.json has for each, to be finite and above zero.

    Raises:
        UnsupportedModelError: one is not; the message names the key and what was found.
    """
    for key, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
            raise UnsupportedModelError(
                f"{config.origin}: found {key}={number!r:.80}, expected a number above zero. Fetch the file again, or "
                f"correct it."
            )


def check_head_groups(config: HFConfig, num_heads: int, num_kv_heads: int) -> None:
    """Hold the number of query heads against that of key-value heads.

    Raises:
        UnsupportedModelError: one is no whole number above zero, or the queries cannot be shared out evenly.
    """
    check_sizes(config, num_attention_heads=num_heads, num_key_value_heads=num_kv_heads)
    if num_heads % num_kv_heads:
        raise UnsupportedModelError(
            f"{config.origin}: num_attention_heads {num_heads} is no multiple of num_key_value_heads {num_kv_heads}, "
            f"but each key-value head serves equally many query heads. Fetch the file again, or correct it."
        )
