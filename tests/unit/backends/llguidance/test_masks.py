"""Packed masks: a bit a token, applied to logits in place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from vcore_backends.llguidance import masks
from vcore_backends.llguidance.masks import MaskBuffer, apply_masks, make_caps


@pytest.mark.parametrize("vocab_size", [1, 31, 32, 33, 250, 256])
@pytest.mark.parametrize("most_spread", [1, 600, 1 << 24], ids=["a row at a time", "some rows", "all rows"])
def test_a_mask_bans_what_its_bits_do_not_allow(
    vocab_size: int, most_spread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "_MOST_SPREAD", most_spread)
    generator = np.random.default_rng(vocab_size)
    num_words = -(-vocab_size // 32) + 1  # the tokenizer may have more tokens than the model has rows
    packed = generator.integers(-(2**31), 2**31, (5, num_words), dtype=np.int64).astype(np.int32)
    logits = torch.randn(5, vocab_size, generator=torch.Generator().manual_seed(0))
    expected = logits.clone()
    for row in range(5):
        for token in range(vocab_size):
            if not (int(packed[row, token // 32]) >> (token % 32)) & 1:
                expected[row, token] = -torch.inf
    apply_masks(logits, torch.from_numpy(packed), make_caps(torch.device("cpu")))
    assert torch.equal(logits, expected)


def test_a_buffer_gives_as_many_rows_as_are_asked_for() -> None:
    buffer = MaskBuffer(4, 3, torch.device("cpu"))
    for num_rows in (4, 1, 2):
        host = buffer.begin(num_rows)
        assert host.shape == (num_rows, 3)
        assert host.is_contiguous()
        host.fill_(num_rows)
        logits = torch.zeros(num_rows, 70)
        buffer.apply(logits)
        allowed = {token for token in range(70) if num_rows >> (token % 32) & 1}
        assert [set(torch.nonzero(row == 0).flatten().tolist()) for row in logits] == [allowed] * num_rows
