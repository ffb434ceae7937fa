"""Token masks on a CUDA device: filled in pinned memory in turns, copied while the next are filled."""

from __future__ import annotations

import pytest
import torch
from vcore_backends.llguidance.masks import MaskBuffer

pytestmark = pytest.mark.gpu

VOCAB = 128_256


def test_masks_of_many_steps_ban_what_they_ban_on_the_host() -> None:
    host, device = torch.device("cpu"), torch.device("cuda")
    num_words = -(-VOCAB // 32)
    on_host, on_device = MaskBuffer(256, num_words, host), MaskBuffer(256, num_words, device)
    assert on_device.begin(1).is_pinned()
    generator = torch.Generator().manual_seed(0)
    outcomes = []
    for step in range(6):  # more than there are buffers, without waiting in between
        num_rows = 256 - 50 * step
        masks = torch.randint(-(2**31), 2**31 - 1, (num_rows, num_words), dtype=torch.int32, generator=generator)
        logits = torch.randn(num_rows, VOCAB, generator=generator)
        given = logits.to(device)
        on_device.begin(num_rows).copy_(masks)
        on_device.apply(given)
        on_host.begin(num_rows).copy_(masks)
        on_host.apply(logits)
        outcomes.append((given, logits))
    for given, logits in outcomes:
        assert torch.equal(given.cpu(), logits)
