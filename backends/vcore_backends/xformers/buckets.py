"""Sizes that the library compiles its decode kernel for: each number of rows and each width of a table anew."""

from __future__ import annotations

import torch

__all__ = ["bucket", "padded"]


def bucket(size: int) -> int:
    """The least power of two that is not less than `size`, which is at least 1."""
    return 1 << (size - 1).bit_length()


def padded(tensor: torch.Tensor, *sizes: int) -> torch.Tensor:
    """`tensor` with as many zeros behind its leading dimensions as make these `sizes`; itself if none are needed."""
    if tuple(tensor.shape[: len(sizes)]) == sizes:
        return tensor
    result = tensor.new_zeros((*sizes, *tensor.shape[len(sizes) :]))
    result[tuple(slice(size) for size in tensor.shape[: len(sizes)])].copy_(tensor)
    return result
