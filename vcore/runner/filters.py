"""top-k, top-p and min-p as one threshold a row: what is less likely than the threshold is not sampled.

Each filter keeps the tokens at or above some logit, so the three together keep those above the highest
of three numbers. Only values are sorted, never ids, and tokens with equal logits are kept or dropped
together: the result depends neither on a sort's stability nor on the device.

`scores` here are logits after temperature with the row's largest subtracted, so the largest is 0.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["thresholds", "thresholds_on_host"]

_TOP = 1024
"""How many of the largest scores are sorted before a whole row is."""


def thresholds_on_host(
    scores: NDArray[np.float32],
    top_k: NDArray[np.int64],
    top_p: NDArray[np.float32],
    min_p: NDArray[np.float32],
) -> NDArray[np.float32]:
    """`thresholds` for the CPU. Sorts no more than the upper part of a row where that is enough.

    Args:
        scores: float32 [num_rows, vocab_size].
        top_k: int64 [num_rows], in 1..vocab_size.
        top_p: float32 [num_rows].
        min_p: float32 [num_rows].

    Returns:
        float32 [num_rows].
    """
    vocab_size = scores.shape[1]
    with np.errstate(all="ignore"):  # rows that hold NaN or inf are reported later, by name
        sums = np.exp(scores).sum(axis=1, dtype=np.float64)
        if vocab_size <= 2 * _TOP:
            result = _host_pass(scores, vocab_size, sums, top_k, top_p)[0]
        else:
            upper = np.partition(scores, vocab_size - _TOP, axis=1)[:, vocab_size - _TOP :]
            result, decided = _host_pass(upper, vocab_size, sums, top_k, top_p)
            rest = np.flatnonzero(~decided)
            if rest.size:
                result[rest] = _host_pass(scores[rest], vocab_size, sums[rest], top_k[rest], top_p[rest])[0]
        return np.maximum(result, np.log(min_p))


def _host_pass(
    scores: NDArray[np.float32],
    vocab_size: int,
    sums: NDArray[np.float64],
    top_k: NDArray[np.int64],
    top_p: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Thresholds of top-k and top-p by the `width` largest scores of each row, and whether they suffice to tell."""
    num_rows, width = scores.shape
    rows = np.arange(num_rows)
    descending = np.ascontiguousarray(np.sort(scores, axis=1)[:, ::-1])
    cumulative = np.exp(descending).cumsum(axis=1, dtype=np.float64)
    within, unlimited = top_k <= width, top_k >= vocab_size
    num_kept = np.minimum(top_k, width)
    # The nucleus is that of the distribution which top-k leaves.
    total = np.where(unlimited, sums, cumulative[rows, num_kept - 1])
    nucleus = (cumulative < (top_p * total)[:, None]).sum(axis=1) + 1
    whole = top_p >= 1.0
    num_kept = np.where(whole, num_kept, np.minimum(nucleus, num_kept))
    result = np.where(unlimited & whole, np.float32(-np.inf), descending[rows, num_kept - 1])
    decided = within | (unlimited & (whole | (nucleus <= width)))
    return result, decided


def thresholds(scores: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, min_p: torch.Tensor) -> torch.Tensor:
    """The score of the least likely token that each row may sample.

    Top-k keeps the k largest (and ties of the k-th); top-p keeps the most likely of those until their
    probabilities, relative to those, sum to at least p (Holtzman et al. 2020, section 3.1); min-p keeps
    tokens at least that fraction as likely as the most likely one (Nguyen et al. 2024, equation 2).

    Args:
        scores: float32 [num_rows, vocab_size].
        top_k: int64 [num_rows], in 1..vocab_size.
        top_p: float32 [num_rows].
        min_p: float32 [num_rows].

    Returns:
        float32 [num_rows]. Nothing is changed, and the host does not wait.
    """
    vocab_size = scores.shape[1]
    descending = scores.sort(dim=1, descending=True).values
    cumulative = descending.exp().cumsum(dim=1, dtype=torch.float64)
    total = cumulative.gather(1, (top_k - 1)[:, None])
    nucleus = (cumulative < top_p[:, None] * total).sum(dim=1) + 1
    whole = top_p >= 1.0
    num_kept = torch.where(whole, top_k, torch.minimum(nucleus, top_k))
    result = descending.gather(1, (num_kept - 1)[:, None]).squeeze(1)
    result = torch.where((top_k >= vocab_size) & whole, -torch.inf, result)
    return torch.maximum(result, min_p.log())
