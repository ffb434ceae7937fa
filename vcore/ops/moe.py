"""The experts of a mixture-of-experts layer: each token through the gated networks that were chosen for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from vcore.ops.dispatch import op
from vcore.ops.linear import linear

__all__ = ["fused_experts"]

ExpertWeights = torch.Tensor | Sequence[torch.Tensor]
"""By expert, its matrix: one tensor [num_experts, out_features, in_features], or packed ones (`pack_linear_weight`)."""


@op(cuda="vcore.ops.triton.moe:fused_experts")
def fused_experts(
    x: torch.Tensor,
    gate_up: ExpertWeights,
    down: ExpertWeights,
    weights: torch.Tensor,
    expert_ids: torch.Tensor,
    gate: Callable[[torch.Tensor], torch.Tensor],
    addend: torch.Tensor | None = None,
) -> torch.Tensor:
    """``sum_k weights[:, k] * down(gate(gate_up(x)))`` of expert ``expert_ids[:, k]`` (arXiv:2401.04088, section 2.1).

    A token's terms are added in the order of its choices, in float32, and `addend` last, so that what else is in the
    batch matters to its result only as far as it does to a matrix product. Experts that no token chose cost nothing.
    On CUDA the kernels, and in bfloat16 the reference too, keep everything on the device: the host waits for nothing.

    Args:
        x: [num_tokens, hidden_size]. Not changed.
        gate_up: by expert, [2 * intermediate_size, hidden_size] in the dtype of x: gate, then up.
        down: by expert, [hidden_size, intermediate_size] in the dtype of x.
        weights: float32 [num_tokens, top_k].
        expert_ids: int64 [num_tokens, top_k].
        gate: takes gate and up, [num_rows, 2 * intermediate_size], to [num_rows, intermediate_size].
        addend: [num_tokens, hidden_size] in the dtype of x, added to the sum, such as the shared experts' result.

    Returns:
        Shape and dtype of x.
    """
    num_tokens, top_k = expert_ids.shape
    if num_tokens == 0:
        return torch.zeros_like(x)
    # A row is a token for one of its experts; rows of the same expert stand together.
    sorted_ids, order = expert_ids.flatten().sort(stable=True)  # [num_tokens * top_k]
    rows = x.index_select(0, order // top_k)  # [num_tokens * top_k, hidden_size]
    if _has_grouped_product(x, gate_up, down):
        rows = _grouped_networks(rows, sorted_ids, gate_up, down, gate)
    else:
        rows = _networks(rows, sorted_ids, gate_up, down, gate)
    back = torch.empty_like(order)
    back[order] = torch.arange(order.numel(), device=order.device)
    terms = rows.index_select(0, back).view(num_tokens, top_k, -1) * weights.unsqueeze(-1)
    total = terms[:, 0]
    for choice in range(1, top_k):
        total = total + terms[:, choice]
    if addend is not None:
        total = total + addend
    return total.to(x.dtype)


def _networks(
    rows: torch.Tensor,
    sorted_ids: torch.Tensor,
    gate_up: ExpertWeights,
    down: ExpertWeights,
    gate: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Each expert that has rows, one after another."""
    experts, counts = torch.unique_consecutive(sorted_ids, return_counts=True)
    blocks = torch.split(rows, counts.tolist())
    return torch.cat(
        [
            linear(gate(linear(block, gate_up[expert])), down[expert])
            for expert, block in zip(experts.tolist(), blocks, strict=True)
        ]
    )


def _has_grouped_product(x: torch.Tensor, gate_up: ExpertWeights, down: ExpertWeights) -> bool:
    """Whether torch has a product of rows in groups with a matrix each, on the device alone, for these tensors."""
    if x.device.type != "cuda" or x.dtype != torch.bfloat16:
        return False
    if not isinstance(gate_up, torch.Tensor) or not isinstance(down, torch.Tensor):
        return False
    aligned = gate_up.shape[-1] % 8 == 0 and down.shape[-1] % 8 == 0  # rows of 16 bytes
    return aligned and torch.cuda.get_device_capability(x.device) >= (9, 0)


def _grouped_networks(
    rows: torch.Tensor,
    sorted_ids: torch.Tensor,
    gate_up: ExpertWeights,
    down: ExpertWeights,
    gate: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """All experts in two grouped products; where each one's rows end is never on the host."""
    assert isinstance(gate_up, torch.Tensor)
    assert isinstance(down, torch.Tensor)
    experts = torch.arange(gate_up.shape[0], device=rows.device)
    ends = torch.searchsorted(sorted_ids, experts, right=True).to(torch.int32)  # [num_experts]
    hidden = gate(F.grouped_mm(rows, gate_up.transpose(1, 2), offs=ends))
    product: torch.Tensor = F.grouped_mm(hidden, down.transpose(1, 2), offs=ends)
    return product
