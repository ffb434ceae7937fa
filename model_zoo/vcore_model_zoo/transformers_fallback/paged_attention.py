"""Attention over vcore's cache, as a function of transformers' attention interface.

transformers hands the keyword arguments of a model's ``forward`` down to the attention function of every layer. So the
step travels as one of them, and nothing is kept between a step and the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from vcore.interfaces.attention import AttentionContext, LayerSpec
from vcore.layers import Attention

__all__ = ["PAGED", "STEP", "PagedStep", "paged_attention"]

PAGED = "vcore_paged"
"""The name of the function in the interface. There is no mask of that name, so that transformers makes none."""
STEP = "vcore_step"
"""The keyword argument that a step travels as."""


@dataclass(frozen=True, slots=True)
class PagedStep:
    """A step, and vcore's layers by transformers' `layer_idx`."""

    attn: AttentionContext
    layers: Sequence[Attention]
    specs: Sequence[LayerSpec]


def paged_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: object,
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """Write the step's keys and values and compute attention over the cache.

    Args:
        module: the attention module of transformers; its ``layer_idx`` says which layer it is.
        query: [1, num_heads, num_tokens, qk_head_dim].
        key: [1, num_kv_heads, num_tokens, qk_head_dim].
        value: [1, num_kv_heads, num_tokens, v_head_dim].
        attention_mask: not used: what may be seen is the backend's affair.
        arguments: among them the step; the others were known when the layers were built.

    Returns:
        [1, num_tokens, num_heads, v_head_dim], and no weights.
    """
    step: PagedStep = arguments[STEP]
    index: int = module.layer_idx  # type: ignore[assignment]  # the probe has seen that it is one
    head_dim = step.specs[index].head_dim
    q, k, v = (_rows(tensor, head_dim) for tensor in (query, key, value))
    out = step.layers[index](q, k, v, step.attn)  # [num_tokens, num_heads, head_dim]
    return out[..., : value.shape[-1]].unsqueeze(0), None


def _rows(heads: torch.Tensor, head_dim: int) -> torch.Tensor:
    """[1, num_heads, num_tokens, dim] as [num_tokens, num_heads, head_dim], with zeros where `dim` is less."""
    return F.pad(heads[0].transpose(0, 1), (0, head_dim - heads.shape[-1])).contiguous()


AttentionInterface.register(PAGED, paged_attention)
