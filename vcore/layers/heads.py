"""`Heads`: into how many heads an architecture divides its attention, as its config says."""

from __future__ import annotations

from dataclasses import dataclass

from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig

__all__ = ["Heads", "check_head_groups"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """The heads of one attention layer, over all ranks."""

    num_heads: int
    """Of queries."""
    num_kv_heads: int
    """Of keys and of values."""
    head_dim: int
    """Features of each."""

    @classmethod
    def from_config(cls, config: HFConfig) -> Heads:
        """Read ``num_attention_heads``, ``num_key_value_heads`` (missing: as many) and ``head_dim``.

        Without ``head_dim`` the heads share ``hidden_size`` between them.

        Raises:
            UnsupportedModelError: a key is missing, or the numbers do not fit each other; the message names the keys.
        """
        num_heads: int = config.num_attention_heads
        num_kv_heads = config.get("num_key_value_heads") or num_heads
        check_head_groups(config, num_heads, num_kv_heads)
        head_dim = config.get("head_dim")
        if not head_dim:
            head_dim, rest = divmod(config.hidden_size, num_heads)
            if rest or not head_dim:
                raise UnsupportedModelError(
                    f"{config.origin}: hidden_size {config.hidden_size} is no multiple of num_attention_heads "
                    f"{num_heads}, and there is no head_dim. Correct the one that is wrong, or add head_dim."
                )
        return cls(num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim)


def check_head_groups(config: HFConfig, num_heads: int, num_kv_heads: int) -> None:
    """Hold the number of query heads against that of key-value heads.

    Raises:
        UnsupportedModelError: one is not positive, or the queries cannot be shared out evenly.
    """
    if num_heads < 1 or num_kv_heads < 1 or num_heads % num_kv_heads:
        raise UnsupportedModelError(
            f"{config.origin}: num_attention_heads {num_heads} is no multiple of num_key_value_heads {num_kv_heads}, "
            f"but each key-value head serves equally many query heads. Fetch the file again, or correct it."
        )
