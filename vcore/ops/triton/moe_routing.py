"""Which experts tokens go to: one program a token, its scores in registers, the best taken out one after another."""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl

from vcore.ops.triton.early_start import begin_and_wait, starts_early

__all__ = ["softmax_top_k", "uniform_top_k"]

_TINY = tl.constexpr(1e-20)
_GAMMA = tl.constexpr(0x9E3779B97F4A7C15)
_MIX_1 = tl.constexpr(0xBF58476D1CE4E5B9)
_MIX_2 = tl.constexpr(0x94D049BB133111EB)
_NO_SCORE = tl.constexpr(-(2**63))


@triton.jit
def _best_first(scores, taken, SIZE_PAD: tl.constexpr, TOP_K: tl.constexpr, TOP_K_PAD: tl.constexpr):
    """The places of the `TOP_K` highest scores, int32 [TOP_K_PAD], of equal ones the lower; `taken` is below all."""
    places = tl.arange(0, SIZE_PAD)
    slots = tl.arange(0, TOP_K_PAD)
    best_places = tl.zeros([TOP_K_PAD], tl.int32)
    for slot in tl.static_range(TOP_K):
        best = tl.max(scores, 0)
        place = tl.min(tl.where(scores == best, places, SIZE_PAD - 1), 0)
        best_places = tl.where(slots == slot, place, best_places)
        scores = tl.where(places == place, taken, scores)
    return best_places


@triton.jit
def _softmax_kernel(
    weights_ptr,
    expert_ids_ptr,
    logits_ptr,
    scale,
    stride_token,
    NUM_EXPERTS: tl.constexpr,
    EXPERTS_PAD: tl.constexpr,
    TOP_K: tl.constexpr,
    TOP_K_PAD: tl.constexpr,
    RENORMALIZE: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin_and_wait(EARLY)
    token = tl.program_id(0).to(tl.int64)
    experts = tl.arange(0, EXPERTS_PAD)
    known = experts < NUM_EXPERTS
    logits = tl.load(logits_ptr + token * stride_token + experts, mask=known, other=float("-inf")).to(tl.float32)
    exponentials = tl.exp(logits - tl.max(logits, 0))
    scores = exponentials / tl.sum(exponentials, 0)
    # Where the logits are NaN, so are the weights, but the experts are some that there are.
    order = tl.where(known, tl.where(scores != scores, -1.0, scores), -3.0)
    chosen = _best_first(order, -2.0, EXPERTS_PAD, TOP_K, TOP_K_PAD)
    weights = tl.sum(tl.where(experts[None, :] == chosen[:, None], scores[None, :], 0.0), 1)  # [TOP_K_PAD]
    slots = tl.arange(0, TOP_K_PAD)
    if RENORMALIZE:
        weights = weights / (tl.sum(tl.where(slots < TOP_K, weights, 0.0), 0) + _TINY)
    tl.store(weights_ptr + token * TOP_K + slots, weights * scale, mask=slots < TOP_K)
    tl.store(expert_ids_ptr + token * TOP_K + slots, chosen.to(tl.int64), mask=slots < TOP_K)


@triton.jit
def _mixed(states):
    """SplitMix64's finaliser, of uint64."""
    states = (states ^ (states >> 30)) * tl.full([], _MIX_1, tl.uint64)
    states = (states ^ (states >> 27)) * tl.full([], _MIX_2, tl.uint64)
    return states ^ (states >> 31)


@triton.jit
def _uniform_kernel(
    weights_ptr,
    expert_ids_ptr,
    logits_ptr,
    stride_token,
    NUM_EXPERTS: tl.constexpr,
    EXPERTS_PAD: tl.constexpr,
    TOP_K: tl.constexpr,
    TOP_K_PAD: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin_and_wait(EARLY)
    token = tl.program_id(0).to(tl.int64)
    experts = tl.arange(0, EXPERTS_PAD)
    known = experts < NUM_EXPERTS
    logits = tl.load(logits_ptr + token * stride_token + experts, mask=known, other=0.0).to(tl.float32)
    bits = logits.to(tl.int32, bitcast=True).to(tl.int64).to(tl.uint64, bitcast=True)
    gammas = (experts + 1).to(tl.uint64) * tl.full([], _GAMMA, tl.uint64)
    key = tl.sum(tl.where(known, _mixed(bits + gammas).to(tl.int64, bitcast=True), 0), 0)
    noise = _mixed(key.to(tl.uint64, bitcast=True) + gammas).to(tl.int64, bitcast=True)
    noise = tl.where(known, noise, _NO_SCORE)
    chosen = _best_first(noise, _NO_SCORE, EXPERTS_PAD, TOP_K, TOP_K_PAD)
    slots = tl.arange(0, TOP_K_PAD)
    tl.store(weights_ptr + token * TOP_K + slots, tl.full([TOP_K_PAD], 1.0 / TOP_K, tl.float32), mask=slots < TOP_K)
    tl.store(expert_ids_ptr + token * TOP_K + slots, chosen.to(tl.int64), mask=slots < TOP_K)


def softmax_top_k(
    logits: torch.Tensor, top_k: int, renormalize: bool = False, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `vcore.ops.softmax_top_k`."""
    logits, weights, expert_ids = _with_results(logits, top_k)
    if weights.numel():
        early = starts_early(logits.device, logits.shape[0])
        _softmax_kernel[(logits.shape[0],)](
            weights,
            expert_ids,
            logits,
            scale,
            logits.stride(0),
            **_sizes(logits, top_k),
            RENORMALIZE=renormalize,
            EARLY=early,
            num_warps=1,
            **({"launch_pdl": True} if early else {}),
        )
    return weights, expert_ids


def uniform_top_k(logits: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As `vcore.ops.uniform_top_k`, to the bit."""
    logits, weights, expert_ids = _with_results(logits, top_k)
    if weights.numel():
        early = starts_early(logits.device, logits.shape[0])
        _uniform_kernel[(logits.shape[0],)](
            weights,
            expert_ids,
            logits,
            logits.stride(0),
            **_sizes(logits, top_k),
            EARLY=early,
            num_warps=1,
            **({"launch_pdl": True} if early else {}),
        )
    return weights, expert_ids


def _with_results(logits: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The logits with a contiguous last axis, and where weights and experts' numbers go."""
    if logits.stride(-1) != 1:
        logits = logits.contiguous()
    shape = (logits.shape[0], top_k)
    weights = torch.empty(shape, dtype=torch.float32, device=logits.device)
    return logits, weights, torch.empty(shape, dtype=torch.int64, device=logits.device)


def _sizes(logits: torch.Tensor, top_k: int) -> dict[str, int]:
    num_experts = logits.shape[1]
    return {
        "NUM_EXPERTS": num_experts,
        "EXPERTS_PAD": triton.next_power_of_2(num_experts),
        "TOP_K": top_k,
        "TOP_K_PAD": triton.next_power_of_2(top_k),
    }
