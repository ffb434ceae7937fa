"""Log probabilities of chosen tokens and their alternatives, from the model's own logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vcore.interfaces.step import TokenLogprobs

__all__ = ["LogprobTensors", "gather_logprobs"]


@dataclass(slots=True)
class LogprobTensors:
    """For each position the token itself, then the most likely ones; all [num_positions, 1 + num_top]."""

    token_ids: torch.Tensor
    """int64."""
    logprobs: torch.Tensor
    """float32."""
    ranks: torch.Tensor
    """int64: one more than the number of tokens with a larger logit."""

    def to_lists(self, num_top: list[int]) -> list[TokenLogprobs]:
        """Plain data, one object a position, each with its own number of alternatives. The tensors are on the host."""
        token_ids, logprobs, ranks = self.token_ids.tolist(), self.logprobs.tolist(), self.ranks.tolist()
        return [
            TokenLogprobs(token_ids[i][: 1 + top], logprobs[i][: 1 + top], ranks[i][: 1 + top])
            for i, top in enumerate(num_top)
        ]


def gather_logprobs(logits: torch.Tensor, token_ids: torch.Tensor, num_top: int) -> LogprobTensors:
    """The log softmax, in float32, at `token_ids` and at the `num_top` largest logits.

    Args:
        logits: [num_positions, vocab_size], of any floating dtype. Not changed.
        token_ids: int64 [num_positions].
        num_top: how many alternatives; at most the vocabulary counts.
    """
    logits = logits.float()
    chosen = logits.gather(1, token_ids[:, None])
    chosen_rank = (logits > chosen).sum(dim=1, keepdim=True) + 1
    normaliser = logits.logsumexp(dim=1, keepdim=True)
    num_top = min(num_top, logits.shape[1])
    if not num_top:
        return LogprobTensors(token_ids[:, None], chosen - normaliser, chosen_rank)
    top, top_ids = logits.topk(num_top, dim=1)
    order = torch.arange(1, num_top + 1, device=logits.device).expand(top.shape)
    # Equal logits share the rank of the first of them.
    first = torch.ones_like(top, dtype=torch.bool)
    first[:, 1:] = top[:, 1:] < top[:, :-1]
    top_ranks = torch.where(first, order, torch.zeros_like(order)).cummax(dim=1).values
    return LogprobTensors(
        torch.cat([token_ids[:, None], top_ids], dim=1),
        torch.cat([chosen, top], dim=1) - normaliser,
        torch.cat([chosen_rank, top_ranks], dim=1),
    )
