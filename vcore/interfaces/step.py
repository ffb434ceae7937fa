"""What passes between the core and an executor in one step: plain data, the same for one rank or eight.

A *row* is a request's place in the persistent batch state that every rank keeps. The scheduler hands
rows out; a row's meaning changes only by what `SchedulerOutput` says, so all ranks agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vcore.pooling_params import PoolingMode
from vcore.sampling_params import SamplingParams

__all__ = ["NewRow", "SampledTokens", "SchedulerOutput", "TokenLogprobs"]


@dataclass(slots=True, kw_only=True)
class NewRow:
    """A request that takes a row in this step: a new one, or a preempted one that resumes."""

    row: int
    request_id: str
    token_ids: list[int]
    """Prompt and, if it resumes, all tokens generated so far."""
    num_prompt_tokens: int
    num_computed_tokens: int
    """How many leading tokens are in the cache already."""
    block_ids: list[list[int]]
    """By group of layers, blocks for everything up to the end of this step's tokens; those of a prefix hit come
    first, 0 for those behind the group's sliding window. Every group has as many."""
    params: SamplingParams
    eos_token_ids: tuple[int, ...] = ()
    """Ends of sequence, kept out of the sample until `SamplingParams.min_tokens`; empty if EOS is ignored."""
    seed: int = 0
    """The request's own seed, drawn if it gave none."""
    sample_index: int = 0
    """Which of the request's `n` samples this is."""
    bad_words_token_ids: tuple[tuple[int, ...], ...] = ()
    """`SamplingParams.bad_words` as token ids, one sequence a spelling; each is kept out of the output."""
    prepared: Mapping[str, object] | None = None
    """By logits processor: what it prepared for the request. An object of this process, which does not cross to
    another; where it is missing, the rank prepares it."""
    pooling: PoolingMode | None = None
    """How its prompt's hidden states become a vector (`SampledTokens.vectors`); None for a row that samples. With
    ``mean``, no leading tokens are in the cache when it takes the row."""


_NO_ROWS: NDArray[np.int32] = np.empty(0, dtype=np.int32)
_NO_BLOCKS: NDArray[np.int32] = np.empty((0, 1), dtype=np.int32)
_NO_ENTRIES: NDArray[np.int32] = np.empty((0, 3), dtype=np.int32)


@dataclass(slots=True, kw_only=True)
class SchedulerOutput:
    """What to compute in one step, as a difference to the step before. Applied in the order of the fields."""

    step_id: int
    passed_entries: NDArray[np.int32] = field(default_factory=lambda: _NO_ENTRIES)
    """int32 [num_passed, 3]: group, row and column of each entry of a block table that becomes 0, because the group's
    sliding window has left the block behind. A row that is freed below may stand here, too."""
    freed_rows: list[int] = field(default_factory=list)
    """Rows whose request finished, was aborted or preempted since the last step. After a step that failed, a row
    may stand here that is free already: freeing it again is harmless."""
    new_rows: list[NewRow] = field(default_factory=list)
    grown_rows: NDArray[np.int32] = field(default_factory=lambda: _NO_ROWS)
    """int32 [num_grown]: rows that get another column of blocks; a row stands here once for each, in order."""
    grown_block_ids: NDArray[np.int32] = field(default_factory=lambda: _NO_BLOCKS)
    """int32 [num_grown, num_groups]: those blocks, one for each group of layers."""
    rows: NDArray[np.int32]
    """int32 [num_scheduled]: the rows to compute; rows with one token stand first."""
    num_tokens: NDArray[np.int32]
    """int32 [num_scheduled]: how many tokens of each, from its computed ones on."""
    samples: NDArray[np.bool_]
    """bool [num_scheduled]: whether the row's last token is reached, so that a token is sampled. Rows that pool never
    sample; where the end of their prompt is reached, their vector is due."""
    num_decodes: int = 0
    """How many leading rows have one token."""
    num_shared_blocks: int = 0
    """How many leading columns of their block tables hold the same blocks, in every group without a window; 0 for
    fewer than two rows, and without prefix caching. Each of the rows is longer than that."""

    @property
    def num_total_tokens(self) -> int:
        """Tokens in the step."""
        return int(self.num_tokens.sum())


@dataclass(slots=True)
class TokenLogprobs:
    """Log probabilities at one position, of the model's own distribution (before penalties and temperature)."""

    token_ids: list[int]
    """The token itself first, then the most likely ones."""
    logprobs: list[float]
    ranks: list[int]
    """1 for the most likely token."""


@dataclass(slots=True, kw_only=True)
class SampledTokens:
    """What came out of a step."""

    step_id: int
    rows: NDArray[np.int32]
    """int32 [num_sampled]: rows that sampled, in the order of `SchedulerOutput.rows`."""
    token_ids: NDArray[np.int64]
    """int64 [num_sampled], or [sum(num_per_row)] if a row may give several."""
    num_per_row: NDArray[np.int32] | None = None
    """int32 [num_sampled], or None if each row gave one token."""
    logprobs: dict[int, list[TokenLogprobs]] = field(default_factory=dict)
    """By row, for requests that asked: one entry a token."""
    prompt_logprobs: dict[int, list[TokenLogprobs]] = field(default_factory=dict)
    """By row: an entry for each prompt token that follows a token of this step's chunk, in order. Over all
    chunks that is one for each prompt token but the first; a preempted request that has made no token yet
    gives them again from its first chunk on, and the scheduler tells each once."""
    vectors: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    """By row, for rows that pool and have reached the end of their prompt: float32 [hidden_size], finite."""
    errors: dict[int, str] = field(default_factory=dict)
    """By row: why this row alone has no valid token (a logits processor raised, logits were NaN) or no valid vector.
    A row that samples stands in `rows` as well, but its token there means nothing, and it has no entry in
    `logprobs`."""
    error_params: dict[int, str] = field(default_factory=dict)
    """By row, of those in `errors` for which the request itself is to blame: its field that is wrong; empty if several
    contradict each other."""
