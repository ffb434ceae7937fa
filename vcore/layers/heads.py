"""`Heads`: into how many heads an architecture divides its attention, as its config says."""

from __future__ import annotations

from dataclasses import dataclass

from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig
from vcore.layers.config_checks import check_head_groups, check_sizes

__all__ = ["Heads"]


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
        num_heads = config.num_attention_heads
        num_kv_heads = num_heads if config.get("num_key_value_heads") is None else config.num_key_value_heads
        check_head_groups(config, num_heads, num_kv_heads)
        head_dim = config.get("head_dim")
        if head_dim is None:
            check_sizes(config, hidden_size=config.hidden_size)
            head_dim, rest = divmod(config.hidden_size, num_heads)
            if rest or not head_dim:
                raise UnsupportedModelError(
                    f"{config.origin}: hidden_size {config.hidden_size} is no multiple of num_attention_heads "
                    f"{num_heads}, and there is no head_dim. Correct the one that is wrong, or add head_dim."
                )
        check_sizes(config, head_dim=head_dim)
        return cls(num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim)
