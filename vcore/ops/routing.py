"""Which experts tokens go to: the rules of `vcore.layers.routing` that are computed in one kernel each."""

from __future__ import annotations

import torch

from vcore.ops.dispatch import op

__all__ = ["softmax_top_k", "uniform_top_k"]

_TINY = 1e-20
"""Added to the sum of weights before dividing by it."""


@op(cuda="vcore.ops.triton.moe_routing:softmax_top_k")
def softmax_top_k(
    logits: torch.Tensor, top_k: int, renormalize: bool = False, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax over all experts, then the best of them; of experts with equal scores, the one with the lower number.

    Args:
        logits: [num_tokens, num_experts], any floating dtype. Not changed.
        top_k: experts a token.
        renormalize: divide a token's weights by their sum.
        scale: weights are multiplied by it, after that.

    Returns:
        The weights, float32 [num_tokens, top_k], highest first, and the experts' numbers, int64 of the same shape.
    """
    scores = logits.softmax(-1, dtype=torch.float32)
    # A stable sort keeps equal scores in the order of their experts.
    expert_ids = scores.sort(dim=-1, descending=True, stable=True).indices[:, :top_k]
    weights = scores.gather(1, expert_ids)
    if renormalize:
        weights = weights / (weights.sum(-1, keepdim=True) + _TINY)
    return weights * scale, expert_ids


@op(cuda="vcore.ops.triton.moe_routing:uniform_top_k")
def uniform_top_k(logits: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The best experts by noise that is a function of the token's own logits, as bits, all with the same weight.

    SplitMix64 (Steele, Lea, Flood, OOPSLA 2014, figure 17) of the logits' hash plus the expert's number times the
    golden gamma.

    Args:
        logits: [num_tokens, num_experts], any floating dtype. Not changed.
        top_k: experts a token.

    Returns:
        The weights, float32 [num_tokens, top_k], and the experts' numbers, int64 of the same shape.
    """
    num_tokens, num_experts = logits.shape
    bits = logits.float().view(torch.int32).to(torch.int64)
    gammas = torch.arange(1, num_experts + 1, device=logits.device) * _signed(0x9E3779B97F4A7C15)
    keys = _splitmix(bits + gammas).sum(-1, keepdim=True)  # [num_tokens, 1]; int64 wraps, the same everywhere
    noise = _splitmix(keys + gammas)  # [num_tokens, num_experts]
    weights = torch.full((num_tokens, top_k), 1 / top_k, dtype=torch.float32, device=logits.device)
    return weights, noise.topk(top_k, -1).indices


def _splitmix(states: torch.Tensor) -> torch.Tensor:
    states = (states ^ _shifted(states, 30)) * _signed(0xBF58476D1CE4E5B9)
    states = (states ^ _shifted(states, 27)) * _signed(0x94D049BB133111EB)
    return states ^ _shifted(states, 31)


def _shifted(states: torch.Tensor, bits: int) -> torch.Tensor:
    """A logical shift to the right."""
    return (states >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """The int64 of the same 64 bits."""
    return value - (1 << 64) if value >> 63 else value
