"""The reference of the fused op against the ops that it stands for."""

from __future__ import annotations

import pytest
import torch

from vcore.ops import apply_rotary_, kv_write, qk_norm_rope_write_, rms_norm


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("num_pairs", [4, 3])
def test_it_is_norm_then_rotation_then_write(norm: bool, interleaved: bool, num_pairs: int) -> None:
    torch.manual_seed(0)
    joined = torch.randn(3, 9 * 8 + 5)
    heads = joined[:, : 9 * 8].unflatten(1, (9, 8))  # five query heads, two key and two value heads
    q, k, v = (part.clone() for part in heads.split((5, 2, 2), 1))
    q_weight, k_weight = torch.randn(8), torch.randn(8)
    cos, sin = torch.randn(3, 1, num_pairs), torch.randn(3, 1, num_pairs)
    slots = torch.tensor([9, 4, 6])
    expected, found = torch.zeros(2, 4, 2, 4, 2, 8)
    if norm:
        q, k = rms_norm(q, q_weight, 0.1), rms_norm(k, k_weight, 0.1)
    for part in (q, k):
        apply_rotary_(part, cos, sin, interleaved)
    kv_write(k, v, expected, slots)
    beside = joined[:, 9 * 8 :].clone()
    weights = (q_weight, k_weight) if norm else (None, None)
    qk_norm_rope_write_(heads, *weights, 0.1, cos, sin, interleaved, found, slots)
    assert torch.equal(found, expected)
    assert torch.equal(heads, torch.cat((q, k, v), 1))
    assert torch.equal(joined[:, 9 * 8 :], beside)
