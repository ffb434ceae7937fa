"""`MaskBuffer`: packed token masks, filled on the host and applied on the device.

A mask has one bit a token, in int32 words, the lowest bit first: 4 KB for a vocabulary of 32,768. Rows are filled
into pinned memory, go to the device in one copy, and are spread there, a few rows at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["MaskBuffer", "apply_masks", "make_caps"]

_MOST_SPREAD = 1 << 24
"""Caps of logits, float32, that masks are spread to at a time."""


def make_caps(device: torch.device) -> torch.Tensor:
    """What each byte of a mask caps the logits of its eight tokens at: float32 [256, 8] of plus and minus infinity."""
    bits = torch.arange(256)[:, None] >> torch.arange(8) & 1  # [byte, token]
    return torch.where(bits == 1, torch.inf, -torch.inf).to(device)


def apply_masks(logits: torch.Tensor, masks: torch.Tensor, caps: torch.Tensor) -> None:
    """Set the logits of banned tokens to minus infinity, in place.

    The smaller of a logit and its cap is taken, which is a vector instruction on a CPU, where filling by a mask is not.

    Args:
        logits: float32 [num_rows, vocab_size].
        masks: int32 [num_rows, num_words] on the same device, with ``32 * num_words >= vocab_size``; a set bit allows.
        caps: of `make_caps`.
    """
    num_rows, vocab_size = logits.shape
    packed = masks.view(torch.uint8)  # [num_rows, 4 * num_words], the lowest byte first
    chunk = max(1, _MOST_SPREAD // (8 * packed.shape[1]))
    for start in range(0, num_rows, chunk):
        some = packed[start : start + chunk]
        spread = caps.index_select(0, some.reshape(-1).int())  # [chunk * bytes, 8]
        part = logits[start : start + chunk]
        torch.minimum(part, spread.view(some.shape[0], -1)[:, :vocab_size], out=part)


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
        self._caps = make_caps(device)

    def begin(self, num_rows: int) -> torch.Tensor:
        """Host memory to fill, int32 [num_rows, num_words]; what it holds means nothing."""
        slot = self._slots[self._next]
        if slot.copied is not None:
            slot.copied.synchronize()
        return slot.host[:num_rows]

    def apply(self, logits: torch.Tensor) -> None:
        """Apply what `begin` gave and the caller filled to `logits`, float32 [num_rows, vocab_size], in place."""
        apply_masks(logits, self._send(logits.shape[0]), self._caps)

    def _send(self, num_rows: int) -> torch.Tensor:
        slot = self._slots[self._next]
        self._next = (self._next + 1) % len(self._slots)
        if slot.copied is None:
            return slot.host[:num_rows].to(self._device)
        sent = slot.host[:num_rows].to(self._device, non_blocking=True)
        slot.copied.record()
        return sent
