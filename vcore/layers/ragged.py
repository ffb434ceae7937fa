"""Ragged batches built on the host: their index arrays go to the device in one copy. It knows no layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vcore.interfaces.attention import RaggedBatch

__all__ = ["RaggedLengths", "build_ragged_batches", "send_int32", "start_locations"]


@dataclass(frozen=True, slots=True)
class RaggedLengths:
    """A `RaggedBatch` by what the host knows of it."""

    num_queries: NDArray[np.int64]
    """Of each request."""
    num_keys: NDArray[np.int64]
    causal: bool


def build_ragged_batches(
    lengths: Sequence[RaggedLengths], further: Sequence[NDArray[np.integer]], device: torch.device
) -> tuple[list[RaggedBatch], list[torch.Tensor]]:
    """The batches on `device`, and `further` index arrays as int32 tensors, all in one copy."""
    arrays: list[NDArray[np.integer]] = []
    for batch in lengths:
        arrays += (start_locations(batch.num_queries), start_locations(batch.num_keys))
    sent = send_int32([*arrays, *further], device)
    batches = [
        RaggedBatch(
            num_requests=len(batch.num_queries),
            query_start_loc=sent[2 * index],
            query_start_loc_cpu=arrays[2 * index].astype(np.int32),
            kv_start_loc=sent[2 * index + 1],
            kv_start_loc_cpu=arrays[2 * index + 1].astype(np.int32),
            max_query_len=int(batch.num_queries.max(initial=0)),
            max_kv_len=int(batch.num_keys.max(initial=0)),
            causal=batch.causal,
        )
        for index, batch in enumerate(lengths)
    ]
    return batches, sent[2 * len(lengths) :]


def start_locations(lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """Where each of `lengths` begins in their concatenation, and its end: int64 [len(lengths) + 1]."""
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def send_int32(arrays: Sequence[NDArray[np.integer]], device: torch.device) -> list[torch.Tensor]:
    """`arrays`, each of one axis, as int32 tensors on `device`: views of one copy, which nothing waits for."""
    joined = torch.from_numpy(np.concatenate(arrays).astype(np.int32))
    if device.type == "cuda":
        joined = joined.pin_memory()  # or the copy would wait
    return list(torch.split(joined.to(device, non_blocking=True), [len(array) for array in arrays]))
