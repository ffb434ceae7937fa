"""`SamplingPlan`: which of a step's logits need what, gathered from the sampling state once a step.

Indices are positions among the step's logits. A part that no row needs is None, so that it costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vcore.runner.batch_state import BatchState
from vcore.runner.gumbel import position_keys
from vcore.runner.processors import ProcessorBatch
from vcore.runner.sampling_state import Need, SamplingState, TokenRules

__all__ = ["LogprobPlan", "PenaltyPlan", "RandomPlan", "SamplingPlan", "TokenPairs", "plan_sampling"]

Put = Callable[[NDArray[Any]], torch.Tensor]
"""Takes an array of any dtype to the device."""


@dataclass(slots=True)
class RandomPlan:
    """Rows that race: `choice.race`, or `choice.race_filtered` where there are filters."""

    indices: torch.Tensor
    temperature: torch.Tensor
    keys: torch.Tensor
    filters: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
    """top_k, top_p and min_p."""


@dataclass(slots=True)
class PenaltyPlan:
    """Rows with penalties, and their slots in the penalty table."""

    indices: torch.Tensor
    slots: torch.Tensor
    repetition: torch.Tensor
    presence: torch.Tensor
    frequency: torch.Tensor


@dataclass(slots=True)
class TokenPairs:
    """Pairs of an index and a token id, int64 [num_pairs] each, all rows' one after another."""

    indices: torch.Tensor
    token_ids: torch.Tensor
    values: torch.Tensor | None = None
    """float32 [num_pairs], for a bias."""
    rows: torch.Tensor | None = None
    """The different indices, for allowed tokens."""


@dataclass(slots=True)
class LogprobPlan:
    """Rows that want log probabilities."""

    indices: torch.Tensor
    rows: list[int]
    host_indices: list[int]
    num_top: list[int]
    """Of each."""


@dataclass(slots=True)
class SamplingPlan:
    """What to do with one step's logits, besides taking the largest."""

    greedy: torch.Tensor | None = None
    """Rows that take their most likely token; None for all of them."""
    random: RandomPlan | None = None
    filtered: RandomPlan | None = None
    penalties: PenaltyPlan | None = None
    bias: TokenPairs | None = None
    allowed: TokenPairs | None = None
    banned: TokenPairs | None = None
    processors: list[ProcessorBatch] = field(default_factory=list)
    logprobs: LogprobPlan | None = None
    failures: dict[int, str] = field(default_factory=dict)
    """By index: rows that cannot be served."""

    @property
    def edits(self) -> bool:
        """Whether any row's logits are changed before the choice."""
        return bool(self.penalties or self.bias or self.allowed or self.banned or self.processors)


_EDITS_OF_TOKENS = Need.BIAS | Need.ALLOWED | Need.BANNED | Need.BAD_WORDS | Need.MIN_TOKENS


def plan_sampling(state: SamplingState, batch: BatchState, rows: NDArray[np.int64], put: Put) -> SamplingPlan | None:
    """The plan of a step that samples a token for each of `rows`, before the tokens are appended.

    Args:
        state: needs of rows that have come to an end (`min_tokens`) are dropped, newly failed rows marked.
        batch: read only.
        rows: int64 [num_sampled].
        put: takes indices and parameters to the device.

    Returns:
        None if every row just takes its most likely token.
    """
    if not state.num_flagged:
        return None
    flags = state.flags[rows]
    needs = int(np.bitwise_or.reduce(flags))
    if not needs:
        return None
    plan = SamplingPlan()
    if needs & Need.PROCESSOR:
        for row, message in state.processors.announce().items():
            state.fail(row, message)
        flags = state.flags[rows]
        needs = int(np.bitwise_or.reduce(flags))
    if needs & Need.FAILURE:
        for index in np.flatnonzero(flags & Need.FAILURE).tolist():
            plan.failures[index] = state.failures[int(rows[index])]
            flags[index] = 0
    _plan_choice(plan, state, batch, rows, flags, put)
    _plan_edits(plan, state, batch, rows, flags, put)
    wanting = np.flatnonzero(flags & Need.LOGPROBS)
    if wanting.size:
        of_rows = rows[wanting]
        plan.logprobs = LogprobPlan(
            put(wanting), of_rows.tolist(), wanting.tolist(), state.num_logprobs[of_rows].tolist()
        )
    return plan


def _plan_choice(
    plan: SamplingPlan,
    state: SamplingState,
    batch: BatchState,
    rows: NDArray[np.int64],
    flags: NDArray[np.int64],
    put: Put,
) -> None:
    random = (flags & Need.RANDOM) != 0
    if not random.any():
        return
    filtered = (flags & Need.FILTER) != 0
    plan.greedy = put(np.flatnonzero(~random))
    for wanted, with_filters in ((random & ~filtered, False), (filtered, True)):
        indices = np.flatnonzero(wanted)
        if not indices.size:
            continue
        of_rows = rows[indices]
        keys = position_keys(state.key[of_rows], batch.num_tokens[of_rows])
        part = RandomPlan(put(indices), put(state.temperature[of_rows]), put(keys))
        if with_filters:
            part.filters = (
                put(state.top_k[of_rows]),
                put(state.top_p[of_rows]),
                put(state.min_p[of_rows]),
            )
            plan.filtered = part
        else:
            plan.random = part


def _plan_edits(
    plan: SamplingPlan,
    state: SamplingState,
    batch: BatchState,
    rows: NDArray[np.int64],
    flags: NDArray[np.int64],
    put: Put,
) -> None:
    penalised = np.flatnonzero(flags & Need.PENALTY)
    if penalised.size:
        of_rows = rows[penalised]
        plan.penalties = PenaltyPlan(
            put(penalised),
            put(state.penalty_slot[of_rows]),
            put(state.repetition[of_rows]),
            put(state.presence[of_rows]),
            put(state.frequency[of_rows]),
        )
    processed = np.flatnonzero(flags & Need.PROCESSOR)
    if processed.size:
        plan.processors = state.processors.batches(processed.tolist(), rows[processed].tolist(), put)
    ruled = np.flatnonzero(flags & _EDITS_OF_TOKENS)
    if ruled.size:
        _plan_token_rules(plan, state, batch, ruled.tolist(), rows[ruled].tolist(), put)


def _plan_token_rules(
    plan: SamplingPlan,
    state: SamplingState,
    batch: BatchState,
    indices: list[int],
    rows: list[int],
    put: Put,
) -> None:
    bias: list[tuple[int, NDArray[np.int64]]] = []
    values: list[NDArray[np.float32]] = []
    allowed: list[tuple[int, NDArray[np.int64]]] = []
    banned: list[tuple[int, NDArray[np.int64]]] = []
    for index, row in zip(indices, rows, strict=True):
        rules, flags = state.rules[row], int(state.flags[row])
        if flags & Need.BIAS:
            bias.append((index, rules.bias_ids))
            values.append(rules.bias_values)
        if flags & Need.ALLOWED:
            allowed.append((index, rules.allowed))
        if flags & Need.BANNED:
            banned.append((index, rules.banned))
        if flags & Need.BAD_WORDS:
            banned.append((index, _completing(rules, batch, row)))
        if flags & Need.MIN_TOKENS:
            if batch.num_tokens[row] < state.min_length[row]:
                banned.append((index, rules.ends))
            else:
                state.drop_need(row, Need.MIN_TOKENS)
    plan.bias = _pairs(bias, put)
    if plan.bias is not None:
        plan.bias.values = put(np.concatenate(values))
    plan.allowed = _pairs(allowed, put)
    if plan.allowed is not None:
        plan.allowed.rows = put(np.array([index for index, _ in allowed], dtype=np.int64))
    plan.banned = _pairs(banned, put)


def _completing(rules: TokenRules, batch: BatchState, row: int) -> NDArray[np.int64]:
    """Tokens that would complete a bad word, given the end of the output."""
    longest = max(len(prefix) for prefix, _ in rules.bad_words)
    end = int(batch.num_tokens[row])
    tail = batch.token_ids[row, max(end - longest, int(batch.num_prompt[row])) : end].tolist()
    completing = [last for prefix, last in rules.bad_words if tail[-len(prefix) :] == prefix]
    return np.array(completing, dtype=np.int64)


def _pairs(parts: list[tuple[int, NDArray[np.int64]]], put: Put) -> TokenPairs | None:
    """The parts' pairs one after another; None if there are none."""
    if not parts:
        return None
    token_ids = np.concatenate([ids for _, ids in parts])
    if not token_ids.size:
        return None
    sizes = [ids.size for _, ids in parts]
    indices = np.repeat(np.array([index for index, _ in parts], dtype=np.int64), sizes)
    return TokenPairs(put(indices), put(token_ids))
