"""The shared mask, seen from its lower right corner."""

from __future__ import annotations

import pytest
import torch
from vcore_backends.torch_sdpa.masks import CausalMasks


@pytest.mark.parametrize("window", [None, 1, 3, 100])
def test_every_view_hides_what_lies_ahead_or_outside_the_window(window: int | None):
    masks = CausalMasks(4, window, torch.float32, torch.device("cpu"))
    for num_keys in (1, 2, 4, 5, 9, 30, 7):  # grows, and is used again when smaller
        for num_queries in range(1, min(4, num_keys) + 1):
            mask = masks.mask(num_queries, num_keys)
            assert mask.shape == (num_queries, num_keys)
            for query in range(num_queries):
                position = num_keys - num_queries + query
                seen = [key for key in range(num_keys) if mask[query, key] == 0]
                first = 0 if window is None else max(0, position - window + 1)
                assert seen == list(range(first, position + 1))
                assert all(value in (0, float("-inf")) for value in mask[query].tolist())


def test_a_mask_is_built_again_only_when_it_grows():
    masks = CausalMasks(4, None, torch.float32, torch.device("cpu"))
    wide = masks.mask(2, 100)
    assert masks.mask(2, 60).untyped_storage().data_ptr() == wide.untyped_storage().data_ptr()
