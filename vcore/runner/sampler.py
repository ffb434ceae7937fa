"""`Sampler`: from a step's logits to one token a row.

    raw logits ── copy for logprobs
        │  penalties, bias, processors, allowed tokens, banned tokens       (in place, the rows that ask for it)
        ├── greedy rows                   argmax
        ├── random rows                   temperature, race
        └── random rows with filters      temperature, top-k, top-p, min-p, race

Bans come last, so that no processor can lift them. It holds no request state: that is `SamplingState`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from vcore.runner.choice import greedy, race, race_filtered
from vcore.runner.gumbel import token_offsets
from vcore.runner.logprobs import LogprobTensors, gather_logprobs
from vcore.runner.penalties import PenaltyTable
from vcore.runner.sampling_plan import RandomPlan, SamplingPlan, TokenPairs

__all__ = ["Sampled", "Sampler"]


@dataclass(slots=True)
class Sampled:
    """The outcome of one step's sampling; tensors are on the device."""

    token_ids: torch.Tensor
    """int64 [num_sampled]."""
    scores: torch.Tensor
    """[num_sampled]: NaN or -inf where `token_ids` means nothing."""
    logprobs: LogprobTensors | None = None
    """Of the rows of `SamplingPlan.logprobs`, in their order."""
    errors: dict[int, str] = field(default_factory=dict)
    """By index: why a row has no valid token, where that is known already."""
    error_params: dict[int, str] = field(default_factory=dict)
    """By index: the field of a request that is itself to blame for it."""


class Sampler:
    """Carries out a `SamplingPlan`."""

    def __init__(self, vocab_size: int, device: torch.device, penalties: PenaltyTable) -> None:
        self._penalties = penalties
        self._offsets = token_offsets(vocab_size, device)

    def sample(self, logits: torch.Tensor, plan: SamplingPlan | None) -> Sampled:
        """One token for each row of `logits`.

        Args:
            logits: [num_sampled, vocab_size], of any floating dtype. Rows with penalties, biases, rules or
                processors are overwritten.
            plan: what the rows need; None if each takes its most likely token.
        """
        if plan is None:
            return Sampled(*greedy(logits))
        errors, error_params = dict(plan.failures), dict[int, str]()
        raw = None
        if plan.logprobs is not None:
            every = not plan.edits and len(plan.logprobs.rows) == logits.shape[0]
            raw = logits if every else logits.index_select(0, plan.logprobs.indices)
        if plan.edits:
            logits = self._edit(logits.float(), plan, errors, error_params)
        token_ids, scores = self._choose(logits, plan)
        if plan.penalties is not None:
            chosen = token_ids.index_select(0, plan.penalties.indices)
            self._penalties.record(plan.penalties.slots, chosen)
        logprobs = None
        if raw is not None and plan.logprobs is not None:
            chosen = token_ids.index_select(0, plan.logprobs.indices)
            logprobs = gather_logprobs(raw, chosen, max(plan.logprobs.num_top))
        return Sampled(token_ids, scores, logprobs, errors, error_params)

    def _edit(
        self, logits: torch.Tensor, plan: SamplingPlan, errors: dict[int, str], error_params: dict[int, str]
    ) -> torch.Tensor:
        """Change the logits of the rows that ask for it, in place; float32 [num_sampled, vocab_size]."""
        penalties = plan.penalties
        if penalties is not None:
            penalised = self._penalties.apply(
                logits.index_select(0, penalties.indices),
                penalties.slots,
                penalties.repetition,
                penalties.presence,
                penalties.frequency,
            )
            logits.index_copy_(0, penalties.indices, penalised)
        if plan.bias is not None and plan.bias.values is not None:
            pairs = (plan.bias.indices, plan.bias.token_ids)
            logits.index_put_(pairs, plan.bias.values, accumulate=True)
        for processor in plan.processors:
            processor.apply(logits, errors, error_params)
        if plan.allowed is not None:
            _keep_only(logits, plan.allowed)
        if plan.banned is not None:
            nothing = torch.full((), -torch.inf, device=logits.device)
            logits.index_put_((plan.banned.indices, plan.banned.token_ids), nothing)
        return logits

    def _choose(self, logits: torch.Tensor, plan: SamplingPlan) -> tuple[torch.Tensor, torch.Tensor]:
        if plan.greedy is None:
            return greedy(logits)
        for part in (plan.random, plan.filtered):
            if part is not None and part.indices.shape[0] == logits.shape[0]:
                return self._race(logits, part)  # one kind of row alone: nothing to put together
        token_ids = torch.empty(logits.shape[0], dtype=torch.int64, device=logits.device)
        scores = torch.empty(logits.shape[0], dtype=torch.float32, device=logits.device)
        if plan.greedy.numel():
            chosen, values = greedy(logits.index_select(0, plan.greedy))
            token_ids[plan.greedy], scores[plan.greedy] = chosen, values.float()
        for part in (plan.random, plan.filtered):
            if part is not None:
                token_ids[part.indices], scores[part.indices] = self._race(logits, part)
        return token_ids, scores

    def _race(self, logits: torch.Tensor, part: RandomPlan) -> tuple[torch.Tensor, torch.Tensor]:
        arguments = (logits, part.indices, part.temperature, part.keys, self._offsets)
        return race(*arguments) if part.filters is None else race_filtered(*arguments, *part.filters)


def _keep_only(logits: torch.Tensor, allowed: TokenPairs) -> None:
    """Mask all tokens but the allowed ones, in the rows that have any."""
    assert allowed.rows is not None
    pairs = (allowed.indices, allowed.token_ids)
    kept = logits[pairs]
    logits.index_fill_(0, allowed.rows, -torch.inf)
    logits.index_put_(pairs, kept)
