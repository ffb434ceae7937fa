"""The references of the ops of latent attention against what they stand for."""

from __future__ import annotations

import pytest
import torch

from vcore.ops import absorb_queries, apply_rotary_, latent_norm_rope_write_, latent_values, latent_write, rms_norm


@pytest.mark.parametrize("interleaved", [True, False])
def test_it_is_norm_then_rotation_then_write(interleaved: bool) -> None:
    torch.manual_seed(0)
    wide_latent, wide_q = torch.randn(3, 8 + 6 + 2), torch.randn(3, 2, 5 + 6)
    latent, q_rope = wide_latent[:, :14], wide_q[..., 5:]
    weight, cos, sin = torch.randn(8), torch.randn(3, 1, 3), torch.randn(3, 1, 3)
    slots = torch.tensor([9, 4, 6])
    expected_cache, cache = torch.zeros(2, 4, 4, 14)
    expected, expected_q = latent.clone(), q_rope.clone()
    beside = wide_latent[:, 14:].clone(), wide_q[..., :5].clone()
    expected[:, :8] = rms_norm(expected[:, :8], weight, 0.1)
    for part in (expected[:, None, 8:], expected_q):
        apply_rotary_(part, cos, sin, interleaved)
    latent_write(expected, expected_cache, slots)
    latent_norm_rope_write_(latent, q_rope, weight, 0.1, cos, sin, interleaved, cache, slots)
    assert torch.equal(latent, expected)
    assert torch.equal(q_rope, expected_q)
    assert torch.equal(cache, expected_cache)
    assert torch.equal(wide_latent[:, 14:], beside[0])
    assert torch.equal(wide_q[..., :5], beside[1])


@pytest.mark.parametrize("num_tokens", [0, 1, 7])
def test_products_of_heads(num_tokens: int) -> None:
    torch.manual_seed(0)
    w_uk, w_uv = torch.randn(3, 5 + 4, 8).split((5, 4), 1)
    q, attended = torch.randn(num_tokens, 3, 5 + 2), torch.randn(num_tokens, 3, 8)
    absorbed = absorb_queries(q, w_uk)
    torch.testing.assert_close(absorbed[..., :8], torch.einsum("thn,hnr->thr", q[..., :5], w_uk))
    assert torch.equal(absorbed[..., 8:], q[..., 5:])
    torch.testing.assert_close(latent_values(attended, w_uv), torch.einsum("thr,hvr->thv", attended, w_uv))
