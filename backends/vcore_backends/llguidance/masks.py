"""`MaskBuffer`: packed token masks, filled on the host and applied on the device.

A mask has one bit a token, in int32 words, the lowest bit first: 4 KB for a vocabulary of 32,768. Rows are filled
into pinned memory, go to the device in one copy, and are spread to bytes there, a few rows at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["MaskBuffer", "apply_masks"]

_MOST_SPREAD = 1 << 26
"""Bytes that masks are spread over at a time."""


def apply_masks(logits: torch.Tensor, masks: torch.Tensor) -> None:
    """Set the logits of banned tokens to minus infinity, in place.

    Args:
        logits: [num_rows, vocab_size], of any floating dtype.
        masks: int32 [num_rows, num_words] on the same device, with ``32 * num_words >= vocab_size``; a set bit allows.
    """
    num_rows, vocab_size = logits.shape
    packed = masks.view(torch.uint8)  # [num_rows, 4 * num_words], the lowest byte first
    bits = 1 << torch.arange(8, dtype=torch.uint8, device=masks.device)
    chunk = max(1, _MOST_SPREAD // max(vocab_size, 1))
    for start in range(0, num_rows, chunk):
        allowed = packed[start : start + chunk, :, None] & bits  # [chunk, bytes, bit]
        banned = allowed.view(allowed.shape[0], -1)[:, :vocab_size] == 0
        logits[start : start + chunk].masked_fill_(banned, -torch.inf)


@dataclass(slots=True)
class _Slot:
    host: torch.Tensor
    """int32 [max_rows, num_words]."""
    copied: torch.cuda.Event | None


class MaskBuffer:
    """Masks of up to `max_rows` rows. On CUDA two buffers take turns: one is filled while the other is copied."""

    def __init__(self, max_rows: int, num_words: int, device: torch.device) -> None:
        """Allocate the memory, pinned if `device` is a CUDA device."""
        self._device = device
        on_cuda = device.type == "cuda"
        self._slots = [
            _Slot(
                torch.full((max_rows, num_words), -1, dtype=torch.int32, pin_memory=on_cuda),
                torch.cuda.Event() if on_cuda else None,  # type: ignore[no-untyped-call]  # torch's own
            )
            for _ in range(2 if on_cuda else 1)
        ]
        self._next = 0

    def begin(self, num_rows: int) -> torch.Tensor:
        """Host memory to fill, int32 [num_rows, num_words]; what it holds means nothing."""
        slot = self._slots[self._next]
        if slot.copied is not None:
            slot.copied.synchronize()
        return slot.host[:num_rows]

    def send(self, num_rows: int) -> torch.Tensor:
        """What `begin` gave and the caller filled, on the device."""
        slot = self._slots[self._next]
        self._next = (self._next + 1) % len(self._slots)
        if slot.copied is None:
            return slot.host[:num_rows].to(self._device)
        sent = slot.host[:num_rows].to(self._device, non_blocking=True)
        slot.copied.record()
        return sent
