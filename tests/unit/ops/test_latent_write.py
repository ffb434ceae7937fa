"""Writing latents into the cache."""

from __future__ import annotations

import pytest
import torch

from vcore.ops import latent_write


@pytest.mark.parametrize("block_size", [1, 4])
def test_latents_fill_exactly_their_slots(block_size: int):
    torch.manual_seed(0)
    cache = torch.full((6, block_size, 5), float("nan"))
    slots = torch.randperm(6 * block_size)[:5]
    latent = torch.randn(5, 8)[:, 3:]  # a view with strides, as a joined projection gives
    latent_write(latent, cache, slots)
    for token, slot in enumerate(slots.tolist()):
        assert torch.equal(cache[slot // block_size, slot % block_size], latent[token])
    assert cache.isnan().sum() == cache.numel() - latent.numel()


def test_padding_may_share_a_slot():
    cache = torch.zeros(2, 4, 3)
    latent_write(torch.ones(5, 3), cache, torch.tensor([0, 0, 0, 6, 0]))
    assert cache.sum() == 6
