"""Latents of a step into the paged cache: one program a token."""

# mypy: disable-error-code="import-not-found,no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl

from vcore.ops.triton.early_start import begin_and_wait, starts_early

__all__ = ["latent_write"]


@triton.jit
def _latent_write_kernel(
    latent_ptr,
    cache_ptr,
    slot_mapping_ptr,
    stride_token,
    stride_dim,
    stride_block,
    stride_slot,
    SIZE: tl.constexpr,
    SIZE_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin_and_wait(EARLY)
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slot_mapping_ptr + token)
    dims = tl.arange(0, SIZE_PAD)
    latent = tl.load(latent_ptr + token * stride_token + dims * stride_dim, mask=dims < SIZE)
    place = cache_ptr + slot // BLOCK_SIZE * stride_block + slot % BLOCK_SIZE * stride_slot
    tl.store(place + dims, latent, mask=dims < SIZE)


def latent_write(latent: torch.Tensor, layer_cache: torch.Tensor, slot_mapping: torch.Tensor) -> None:
    """As `vcore.ops.latent_write`; the cache is contiguous in its last axis."""
    if not latent.numel():
        return
    size = latent.shape[1]
    early = starts_early(latent.device, latent.shape[0])
    _latent_write_kernel[(latent.shape[0],)](
        latent,
        layer_cache,
        slot_mapping,
        *latent.stride(),
        layer_cache.stride(0),
        layer_cache.stride(1),
        SIZE=size,
        SIZE_PAD=triton.next_power_of_2(size),
        BLOCK_SIZE=layer_cache.shape[1],
        EARLY=early,
        **({"launch_pdl": True} if early else {}),
    )
