"""`SamplingState`: how each row samples, as numpy columns, kept as rows come and go.

Every row has a word of flags that says what it needs beyond the most likely token. The columns are read
only for rows whose flags ask for them, and a batch whose rows have no flag is never looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from vcore.interfaces.step import NewRow
from vcore.runner.batch_state import BatchState, TokenView
from vcore.runner.gumbel import request_key
from vcore.runner.penalties import PenaltyTable
from vcore.runner.processors import ProcessorFactory, ProcessorSet

__all__ = ["Need", "SamplingState", "TokenRules"]


class Need:
    """What a row needs beyond the most likely token of its logits: bits of its flags.

    Plain integers; `enum.IntFlag` would cost a microsecond a test.
    """

    RANDOM = 1
    FILTER = 2
    """top-k, top-p or min-p, besides RANDOM."""
    PENALTY = 4
    BIAS = 8
    ALLOWED = 16
    BANNED = 32
    """Tokens that never come: bad words of a single token."""
    BAD_WORDS = 64
    """Bad words of several tokens."""
    MIN_TOKENS = 128
    PROCESSOR = 256
    LOGPROBS = 512
    FAILURE = 1024
    """It cannot be served; `SamplingState.failures` says why."""


_NO_IDS: NDArray[np.int64] = np.empty(0, dtype=np.int64)
_MIN_TEMPERATURE = 1e-8
"""What smaller temperatures become: float32 could not divide by them, and they are greedy in all but name."""


@dataclass(slots=True, kw_only=True)
class TokenRules:
    """One row's rules about single tokens."""

    bias_ids: NDArray[np.int64] = field(default_factory=lambda: _NO_IDS)
    bias_values: NDArray[np.float32] = field(default_factory=lambda: _NO_IDS.astype(np.float32))
    allowed: NDArray[np.int64] = field(default_factory=lambda: _NO_IDS)
    banned: NDArray[np.int64] = field(default_factory=lambda: _NO_IDS)
    """Always."""
    ends: NDArray[np.int64] = field(default_factory=lambda: _NO_IDS)
    """Banned until `min_tokens`."""
    bad_words: list[tuple[list[int], int]] = field(default_factory=list)
    """Tokens that, when the output ends with them, ban one more."""


class SamplingState:
    """The sampling side of the batch on one rank."""

    def __init__(
        self,
        batch: BatchState,
        *,
        max_num_seqs: int,
        vocab_size: int,
        device: torch.device,
        make_processor: ProcessorFactory,
    ) -> None:
        self._batch = batch
        self.vocab_size = vocab_size
        self.flags = np.zeros(max_num_seqs, dtype=np.int64)
        """`Need` of each row; 0 for a free one."""
        self.num_flagged = 0
        """Rows whose flags are not 0."""
        self.temperature = np.zeros(max_num_seqs, dtype=np.float32)
        self.top_k = np.zeros(max_num_seqs, dtype=np.int64)
        """In 1..vocab_size, which stands for all."""
        self.top_p = np.zeros(max_num_seqs, dtype=np.float32)
        self.min_p = np.zeros(max_num_seqs, dtype=np.float32)
        self.key = np.zeros(max_num_seqs, dtype=np.uint64)
        self.repetition = np.zeros(max_num_seqs, dtype=np.float32)
        self.presence = np.zeros(max_num_seqs, dtype=np.float32)
        self.frequency = np.zeros(max_num_seqs, dtype=np.float32)
        self.penalty_slot = np.zeros(max_num_seqs, dtype=np.int64)
        self.min_length = np.zeros(max_num_seqs, dtype=np.int64)
        """Prompt tokens and `min_tokens` together."""
        self.num_logprobs = np.zeros(max_num_seqs, dtype=np.int64)
        self.rules: dict[int, TokenRules] = {}
        self.failures: dict[int, str] = {}
        self.penalties = PenaltyTable(vocab_size, device)
        self.processors = ProcessorSet(make_processor)

    def add(self, new: NewRow) -> None:
        """Take in the request; the batch state has it already."""
        params, row = new.params, new.row
        flags = self._add_choice(new) | self._add_rules(new)
        if params.logprobs is not None:
            flags |= Need.LOGPROBS
            self.num_logprobs[row] = min(params.logprobs, self.vocab_size)
        if params.repetition_penalty != 1.0 or params.presence_penalty or params.frequency_penalty:
            flags |= Need.PENALTY
            self._add_penalties(new)
        if params.logits_processors:
            prompt = TokenView(self._batch, row, 0, new.num_prompt_tokens)
            output = TokenView(self._batch, row, new.num_prompt_tokens)
            failure = self.processors.add(row, params.logits_processors, prompt, output, new.prepared)
            flags |= Need.PROCESSOR
            if failure is not None:
                self.failures[row] = failure
        if row in self.failures:
            flags |= Need.FAILURE
        self.flags[row] = flags
        self.num_flagged += flags != 0

    def remove(self, row: int) -> None:
        """Forget the request in `row`; a row not in use is left alone."""
        flags = int(self.flags[row])
        if not flags:
            return
        self.num_flagged -= 1
        self.flags[row] = 0
        self.rules.pop(row, None)
        self.failures.pop(row, None)
        if flags & Need.PENALTY:
            self.penalties.remove(int(self.penalty_slot[row]))
        if flags & Need.PROCESSOR:
            self.processors.remove(row)

    def drop_need(self, row: int, need: int) -> None:
        """The row does not need it any more."""
        self.flags[row] &= ~need
        self.num_flagged -= self.flags[row] == 0

    def fail(self, row: int, message: str) -> None:
        """The row cannot be served; each of its samples is an error from now on."""
        self.failures.setdefault(row, message)
        self.num_flagged += self.flags[row] == 0
        self.flags[row] |= Need.FAILURE

    def _add_choice(self, new: NewRow) -> int:
        """Columns of random sampling."""
        params, row = new.params, new.row
        top_k = params.top_k if 0 < params.top_k < self.vocab_size else self.vocab_size
        if params.greedy or top_k == 1:
            return 0
        self.temperature[row] = max(params.temperature, _MIN_TEMPERATURE)
        self.key[row] = request_key(new.seed, new.sample_index)
        if top_k == self.vocab_size and params.top_p >= 1.0 and not params.min_p:
            return Need.RANDOM
        self.top_k[row], self.top_p[row], self.min_p[row] = top_k, params.top_p, params.min_p
        return Need.RANDOM | Need.FILTER

    def _add_penalties(self, new: NewRow) -> None:
        params, row = new.params, new.row
        self.repetition[row] = params.repetition_penalty
        self.presence[row] = params.presence_penalty
        self.frequency[row] = params.frequency_penalty
        self.penalty_slot[row] = self.penalties.add(
            new.token_ids[: new.num_prompt_tokens], new.token_ids[new.num_prompt_tokens :]
        )

    def _add_rules(self, new: NewRow) -> int:
        """Rules about single tokens. An id outside the vocabulary fails the row, or does nothing where it is banned."""
        params, row, flags, rules = new.params, new.row, 0, TokenRules()
        if params.logit_bias:
            flags |= Need.BIAS
            rules.bias_ids = np.array(list(params.logit_bias), dtype=np.int64)
            rules.bias_values = np.array(list(params.logit_bias.values()), dtype=np.float32)
            self._check_ids("logit_bias", rules.bias_ids, row)
        if params.allowed_token_ids is not None:
            flags |= Need.ALLOWED
            rules.allowed = np.array(params.allowed_token_ids, dtype=np.int64)
            self._check_ids("allowed_token_ids", rules.allowed, row)
        if new.bad_words_token_ids:
            rules.banned = self._in_vocabulary([word[0] for word in new.bad_words_token_ids if len(word) == 1])
            rules.bad_words = _prefixes(new.bad_words_token_ids, self.vocab_size)
            flags |= (Need.BANNED if rules.banned.size else 0) | (Need.BAD_WORDS if rules.bad_words else 0)
        if params.min_tokens:
            rules.ends = self._in_vocabulary([*new.eos_token_ids, *params.stop_token_ids])
            self.min_length[row] = new.num_prompt_tokens + params.min_tokens
            flags |= Need.MIN_TOKENS if rules.ends.size else 0
        if flags:
            self.rules[row] = rules
        return flags

    def _in_vocabulary(self, token_ids: list[int]) -> NDArray[np.int64]:
        return np.array([i for i in token_ids if 0 <= i < self.vocab_size], dtype=np.int64)

    def _check_ids(self, name: str, token_ids: NDArray[np.int64], row: int) -> None:
        wrong = token_ids[(token_ids < 0) | (token_ids >= self.vocab_size)]
        if wrong.size:
            self.failures[row] = (
                f"{name} has {int(wrong[0])}, which is no token id: the vocabulary has {self.vocab_size}"
            )


def _prefixes(words: tuple[tuple[int, ...], ...], vocab_size: int) -> list[tuple[list[int], int]]:
    return [(list(word[:-1]), word[-1]) for word in words if len(word) > 1 and 0 <= word[-1] < vocab_size]
