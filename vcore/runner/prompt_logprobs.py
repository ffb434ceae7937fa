"""`PromptLogprobs`: log probabilities of prompt tokens, chunk by chunk, as the prompt is computed.

The hidden state at position i tells the probability of the token at i + 1: entry i. A chunk that ends inside
the prompt gives the entry of the token after it, too, so that chunks join without a seam. The LM head is
applied to a bounded number of positions at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vcore.interfaces.step import NewRow
from vcore.runner.batch_state import BatchState
from vcore.runner.logprobs import LogprobTensors, gather_logprobs
from vcore.runner.row_chunks import chunks_of

__all__ = ["PromptLogprobs", "PromptSpan"]

_MAX_LOGITS = 1 << 23
"""Logits held at a time: 32 MiB in float32."""


@dataclass(slots=True)
class _Wanted:
    """A row that has not been given all of its entries."""

    num_top: int
    num_entries: int


@dataclass(slots=True)
class PromptSpan:
    """One row's entries in a step."""

    row: int
    first_token: int
    """Index in the batch of the token whose hidden state gives the first entry."""
    token_ids: NDArray[np.int64]
    """int64 [num_entries]: the prompt tokens that are predicted."""
    num_top: int


class PromptLogprobs:
    """Follows how far the prompts of the rows that asked have come."""

    def __init__(self, batch: BatchState, vocab_size: int) -> None:
        self._batch = batch
        self._vocab_size = vocab_size
        self._rows: dict[int, _Wanted] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, new: NewRow) -> None:
        """Take in a request. One that resumes gives its entries once more; one that has made tokens has told all."""
        if new.params.prompt_logprobs is None or len(new.token_ids) > new.num_prompt_tokens:
            return
        num_entries = new.num_prompt_tokens - 1
        if new.num_computed_tokens < num_entries:
            self._rows[new.row] = _Wanted(min(new.params.prompt_logprobs, self._vocab_size), num_entries)

    def remove(self, row: int) -> None:
        """Forget the request in `row`, if it is one that asked."""
        self._rows.pop(row, None)

    def spans(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64], query_start_loc: NDArray[np.int32]
    ) -> list[PromptSpan]:
        """The entries that a step gives, from that of the first token of each chunk on.

        Args:
            rows: int64 [num_scheduled].
            starts: int64 [num_scheduled], computed tokens before the step.
            query_start_loc: int32 [num_scheduled + 1].
        """
        result = []
        for chunk in chunks_of(self._rows, rows, starts, query_start_loc):
            wanted = self._rows[chunk.row]
            end = min(chunk.stop, wanted.num_entries)
            token_ids = self._batch.token_ids[chunk.row, chunk.start + 1 : end + 1].astype(np.int64)
            result.append(PromptSpan(chunk.row, chunk.begin, token_ids, wanted.num_top))
            if end == wanted.num_entries:
                del self._rows[chunk.row]
        return result

    def compute(
        self,
        span: PromptSpan,
        hidden_states: torch.Tensor,
        compute_logits: Callable[[torch.Tensor], torch.Tensor],
    ) -> list[LogprobTensors]:
        """The entries of `span`, in parts, on the device of `hidden_states` [num_tokens, hidden_size]."""
        step = max(1, _MAX_LOGITS // self._vocab_size)
        parts = []
        for begin in range(0, span.token_ids.size, step):
            token_ids = torch.from_numpy(span.token_ids[begin : begin + step]).to(hidden_states.device)
            first = span.first_token + begin
            logits = compute_logits(hidden_states[first : first + token_ids.shape[0]])
            parts.append(gather_logprobs(logits, token_ids, span.num_top))
        return parts
