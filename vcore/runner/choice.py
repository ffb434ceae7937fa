"""Choosing one token a row: the most likely, or the winner of the exponential race.

Each function gives token ids and the chosen tokens' scores. A score that is NaN says that the row's
logits held NaN; one of -inf, that no token was left to choose.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from vcore.ops.dispatch import op
from vcore.runner.filters import thresholds, thresholds_on_host
from vcore.runner.gumbel import log_exponential, token_offsets

__all__ = ["choose_and_record", "greedy", "race", "race_filtered"]

_CHUNK_ELEMENTS = {"cpu": 1 << 18}
"""Logits worked on at once: on the CPU, what its caches hold; elsewhere, what bounds the memory."""
_CHUNK_ELEMENTS_DEVICE = 1 << 23


@op(cuda="vcore.ops.triton.race:greedy")
def greedy(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The most likely token of each row; of equal ones, that with the lowest id.

    Args:
        logits: [num_rows, vocab_size], of any floating dtype. Not changed.

    Returns:
        int64 [num_rows] token ids, and [num_rows] their logits.
    """
    if logits.device.type == "cpu":
        values = logits.float().numpy()  # numpy's argmax is some ten times as fast as torch's
        token_ids = values.argmax(axis=1)
        chosen = values[np.arange(token_ids.size), token_ids]
        return torch.from_numpy(token_ids), torch.from_numpy(chosen)
    token_ids_ = logits.argmax(dim=1)
    return token_ids_, logits.gather(1, token_ids_[:, None]).squeeze(1)


@op(cuda="vcore.ops.triton.race:race")
def race(
    logits: torch.Tensor,
    rows: torch.Tensor,
    temperature: torch.Tensor,
    keys: torch.Tensor,
    offsets: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A sample of each row's whole distribution.

    Args:
        logits: [num_logits, vocab_size]. Not changed.
        rows: int64 [num_rows]: which of the logits.
        temperature: float32 [num_rows], above 0.
        keys: int64 [num_rows], of `gumbel.position_keys`.
        offsets: int64 [vocab_size], of `gumbel.token_offsets`.

    Returns:
        int64 [num_rows] token ids, and float32 [num_rows] scores.
    """
    token_ids = torch.empty_like(rows)
    best = torch.empty_like(temperature)
    for part in _chunks(logits, rows.shape[0]):
        scores = _scores(logits, rows[part], temperature[part])
        scores -= log_exponential(keys[part, None] + offsets)
        token_ids[part], best[part] = greedy(scores)
    return token_ids, best


@op(cuda="vcore.ops.triton.race:choose_and_record")
def choose_and_record(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    keys: torch.Tensor,
    rows: torch.Tensor,
    last_token_ids: torch.Tensor,
    token_ids: torch.Tensor,
    scores: torch.Tensor,
) -> None:
    """A token for each of the logits, where its row's next step finds it.

    Args:
        logits: [num_logits, vocab_size]. Not changed.
        temperature: float32 [num_logits]; 0 for the most likely token.
        keys: int64 [num_logits], of `gumbel.position_keys`.
        rows: int64 [num_logits], distinct but for -1, which is padding.
        last_token_ids: int64 [max_num_seqs], changed at `rows`.
        token_ids: int64 [num_logits], overwritten.
        scores: float32 [num_logits], overwritten.
    """
    offsets = token_offsets(logits.shape[1], logits.device)
    drawn, best = race(
        logits, torch.arange(logits.shape[0], device=logits.device), temperature.clamp(min=1.0e-8), keys, offsets
    )
    likely, largest = greedy(logits)
    token_ids.copy_(torch.where(temperature > 0, drawn, likely))
    scores.copy_(torch.where(temperature > 0, best, largest.float()))
    known = (rows >= 0).nonzero().squeeze(1)
    last_token_ids[rows[known]] = token_ids[known]


def race_filtered(
    logits: torch.Tensor,
    rows: torch.Tensor,
    temperature: torch.Tensor,
    keys: torch.Tensor,
    offsets: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A sample of what top-k, top-p and min-p leave, each row as `race` would draw it from that.

    Args and results: as `race`; top_k is int64 [num_rows] in 1..vocab_size, top_p and min_p float32 [num_rows].
    """
    token_ids = torch.empty_like(rows)
    best = torch.empty_like(temperature)
    for part in _chunks(logits, rows.shape[0]):
        scores = _scores(logits, rows[part], temperature[part])
        if scores.device.type == "cpu":
            limits = thresholds_on_host(scores.numpy(), top_k[part].numpy(), top_p[part].numpy(), min_p[part].numpy())
            token_ids[part], best[part] = _race_survivors(scores.numpy(), limits, keys[part], offsets)
        else:
            limits_ = thresholds(scores, top_k[part], top_p[part], min_p[part])
            scores.masked_fill_(scores < limits_[:, None], -torch.inf)
            scores -= log_exponential(keys[part, None] + offsets)
            token_ids[part], best[part] = greedy(scores)
    return token_ids, best


def _scores(logits: torch.Tensor, rows: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """float32 [num_rows, vocab_size], a copy: logits less the row's largest, over temperature."""
    scores = logits.index_select(0, rows).float()
    largest = scores.amax(dim=1, keepdim=True)
    # Nothing but masked tokens, or one raised to inf: subtracting would make NaN. NaN itself stays.
    largest = torch.where(largest.isinf(), torch.zeros_like(largest), largest)
    return scores.sub_(largest).div_(temperature[:, None])


def _race_survivors(
    scores: NDArray[np.float32], limits: NDArray[np.float32], keys: torch.Tensor, offsets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The race among the tokens at or above the limits; noise is drawn for those alone."""
    num_rows, vocab_size = scores.shape
    flat = np.flatnonzero(scores >= limits[:, None])  # far faster than nonzero of two axes
    rows, survivors = np.divmod(flat, vocab_size)
    counts = np.bincount(rows, minlength=num_rows)
    starts = np.cumsum(counts) - counts
    rows_, survivors_ = torch.from_numpy(rows), torch.from_numpy(survivors)
    noise = log_exponential(keys[rows_] + offsets[survivors_]).numpy()
    # [num_rows, most survivors of a row], each row's own from the left
    padded = np.full((num_rows, max(int(counts.max()), 1)), -np.inf, dtype=np.float32)
    padded[rows, np.arange(rows.size) - starts[rows]] = scores.reshape(-1)[flat] - noise
    winners = padded.argmax(axis=1)
    best = padded[np.arange(num_rows), winners]
    # A row of NaN keeps no token: nothing compares with its limit.
    best = np.where(np.isnan(limits), np.float32(np.nan), best)
    token_ids = np.append(survivors, 0)[np.where(counts > 0, starts + winners, rows.size)]
    return torch.from_numpy(token_ids), torch.from_numpy(best)


def _chunks(logits: torch.Tensor, num_rows: int) -> Iterator[slice]:
    elements = _CHUNK_ELEMENTS.get(logits.device.type, _CHUNK_ELEMENTS_DEVICE)
    step = max(1, elements // logits.shape[1])
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))
