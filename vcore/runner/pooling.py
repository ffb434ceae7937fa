"""`PromptPooling`: from hidden states to one vector a prompt, chunk by chunk, as the prompt is computed.

    last    the hidden state of the prompt's last token
    mean    the mean over all of its tokens: sums in float32, kept on the device from chunk to chunk

Each row's vector is made of its own hidden states alone, so what is wrong with one harms no other. Rows that sample
never come here, and a step without rows that pool costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vcore.errors import EngineError
from vcore.interfaces.step import NewRow
from vcore.pooling_params import PoolingMode
from vcore.runner.row_chunks import chunks_of

__all__ = ["PoolSpan", "PooledRows", "PromptPooling"]


@dataclass(slots=True)
class PoolSpan:
    """One row's tokens in a step."""

    row: int
    begin: int
    """Index in the batch of its first token."""
    end: int
    """Behind its last one."""
    is_last: bool
    """Whether its prompt ends here."""


@dataclass(slots=True)
class PooledRows:
    """The vectors of a step."""

    rows: list[int]
    vectors: torch.Tensor
    """float32 [num_rows, hidden_size]."""

    def check(self) -> tuple[dict[int, NDArray[np.float32]], dict[int, str]]:
        """By row, the vectors that are finite, and what is wrong with the others; `vectors` is on the host."""
        vectors: NDArray[np.float32] = self.vectors.numpy()
        finite = [bool(np.isfinite(vector).all()) for vector in vectors]
        good = {row: vectors[index] for index, row in enumerate(self.rows) if finite[index]}
        return good, {row: _NOT_FINITE for row in self.rows if row not in good}


_NOT_FINITE = "the model's hidden states hold NaN or infinity; check the weights and the dtype"


@dataclass(slots=True)
class _Prompt:
    """A row that pools and has not come to its prompt's end."""

    mode: PoolingMode
    num_tokens: int
    sum: torch.Tensor | None = None
    """float32 [hidden_size], of what was computed so far; None before the first chunk, and for ``last``."""


class PromptPooling:
    """Follows how far the prompts of the rows that pool have come."""

    def __init__(self, hidden_size: int | None) -> None:
        """`hidden_size` is how many features a vector must have; None if that is not known."""
        self._hidden_size = hidden_size
        self._prompts: dict[int, _Prompt] = {}

    def __len__(self) -> int:
        return len(self._prompts)

    def add(self, new: NewRow) -> None:
        """Take in a request, if it is one that pools. One that resumes begins anew."""
        if new.pooling is not None:
            assert new.pooling == "last" or not new.num_computed_tokens, "a mean needs all hidden states"
            self._prompts[new.row] = _Prompt(new.pooling, new.num_prompt_tokens)

    def remove(self, row: int) -> None:
        """Forget the request in `row`, if it is one that pools."""
        self._prompts.pop(row, None)

    def spans(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64], query_start_loc: NDArray[np.int32]
    ) -> list[PoolSpan]:
        """The tokens of rows that pool in a step.

        Args:
            rows: int64 [num_scheduled].
            starts: int64 [num_scheduled], computed tokens before the step.
            query_start_loc: int32 [num_scheduled + 1].
        """
        prompts = self._prompts
        return [
            PoolSpan(chunk.row, chunk.begin, chunk.end, chunk.stop == prompts[chunk.row].num_tokens)
            for chunk in chunks_of(prompts, rows, starts, query_start_loc)
        ]

    def pool(self, spans: list[PoolSpan], hidden_states: torch.Tensor) -> PooledRows | None:
        """Take in the hidden states of `spans`.

        Args:
            spans: of this step.
            hidden_states: [num_tokens, hidden_size], of the whole step; read now, not kept.

        Returns:
            The vectors of prompts that end here, on their device; None if none does. Those rows are forgotten.

        Raises:
            EngineError: the model gives hidden states of another width than its config says.
        """
        if self._hidden_size is not None and hidden_states.shape[1] != self._hidden_size:
            raise EngineError(
                f"the model gave hidden states of {hidden_states.shape[1]} features, but its configuration has "
                f"hidden_size={self._hidden_size}; forward must return [num_tokens, hidden_size]"
            )
        last_rows: list[int] = []
        last_tokens: list[torch.Tensor] = []
        mean_rows: list[int] = []
        means: list[torch.Tensor] = []
        for span in spans:
            prompt = self._prompts[span.row]
            if prompt.mode == "mean":
                _add(prompt, hidden_states[span.begin : span.end])
            if not span.is_last:
                continue
            del self._prompts[span.row]
            if prompt.sum is None:
                last_rows.append(span.row)
                last_tokens.append(hidden_states[span.end - 1])
            else:
                mean_rows.append(span.row)
                means.append(prompt.sum / prompt.num_tokens)
        parts = [torch.stack(part).float() for part in (last_tokens, means) if part]
        return PooledRows(last_rows + mean_rows, torch.cat(parts)) if parts else None


def _add(prompt: _Prompt, hidden_states: torch.Tensor) -> None:
    """Add the hidden states of a chunk, [num_tokens, hidden_size]."""
    chunk = hidden_states.sum(0, dtype=torch.float32)
    prompt.sum = chunk if prompt.sum is None else prompt.sum.add_(chunk)
