"""Routing: which experts each token goes to, and with which weight.

A `Routing` takes a router's logits, one a token and expert, to `top_k` experts a token. It knows neither the
router's projection nor the experts. Scores are float32 whatever the logits are, and of experts with equal scores
the one with the lower number is chosen, on every device: in bfloat16 equal logits are common.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from vcore.errors import UnsupportedModelError
from vcore.interfaces.model import BuildContext
from vcore.layers.weights import parameter
from vcore.ops.routing import softmax_top_k, uniform_top_k

__all__ = [
    "GroupLimitedRouting",
    "Routing",
    "SigmoidRouting",
    "SoftmaxRouting",
    "TopKSoftmaxRouting",
    "UniformRouting",
]

_TINY = 1e-20
"""Added to the sum of sigmoid scores, which may all be zero, before dividing by it."""


class Routing(nn.Module, ABC):
    """A rule by which tokens choose experts. A rule with parameters of its own keeps them here; they
    are loaded like any others, and are whole on each rank."""

    def __init__(self, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        """Experts a token."""

    @abstractmethod
    def forward(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Args:
            logits: [num_tokens, num_experts], any floating dtype. Not changed.

        Returns:
            The weights, float32 [num_tokens, top_k], and the experts' numbers, int64 [num_tokens, top_k], each
            expert at most once a token.
        """

    def check(self, num_experts: int) -> None:
        """Hold the rule against the number of experts that the layer has.

        Raises:
            UnsupportedModelError: they do not fit each other.
        """
        if not 1 <= self.top_k <= num_experts:
            raise UnsupportedModelError(
                f"the model's config sends each token to {self.top_k} of {num_experts} experts. "
                f"Check num_experts_per_tok and the number of experts in it."
            )


class SoftmaxRouting(Routing):
    """Softmax over all experts, then the best of them.

    DeepSeekMoE (arXiv:2401.06066, equations 3 to 5) and Qwen-MoE; with `renormalize`, Qwen3-MoE's
    ``norm_topk_prob``.
    """

    def __init__(self, top_k: int, *, renormalize: bool = False, scale: float = 1.0) -> None:
        """Args:
        top_k: experts a token.
        renormalize: divide a token's weights by their sum.
        scale: weights are multiplied by it (``routed_scaling_factor``).
        """
        super().__init__(top_k)
        self._renormalize = renormalize
        self._scale = scale

    def forward(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return softmax_top_k(logits, self.top_k, self._renormalize, self._scale)


class TopKSoftmaxRouting(Routing):
    """The best experts, then softmax over these alone: Mixtral (arXiv:2401.04088, section 2.1).

    The same as `SoftmaxRouting` with `renormalize`: what the softmax over all divides by cancels out. This form
    takes fewer exponentials, and none of them is lost to underflow.
    """

    def forward(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        expert_ids = _best(logits.float(), self.top_k)
        return logits.gather(1, expert_ids).softmax(-1, dtype=torch.float32), expert_ids


class _GroupedRouting(Routing):
    """The best of the experts in the best groups; groups are equally many consecutive experts each."""

    least_group_size = 1
    """How many experts a group's own score needs."""

    def __init__(self, top_k: int, *, num_groups: int, top_groups: int, renormalize: bool, scale: float) -> None:
        super().__init__(top_k)
        self._num_groups = num_groups
        self._top_groups = top_groups
        self._renormalize = renormalize
        self._scale = scale

    def check(self, num_experts: int) -> None:
        super().check(num_experts)
        size, rest = divmod(num_experts, self._num_groups) if self._num_groups > 0 else (0, 0)
        if rest or size < self.least_group_size or not self.top_k / size <= self._top_groups <= self._num_groups:
            raise UnsupportedModelError(
                f"the model's config sends each token to {self.top_k} experts out of {self._top_groups} of "
                f"{self._num_groups} groups of equal size (with {self.least_group_size} experts at least), which "
                f"{num_experts} experts do not make possible. Check n_group, topk_group, num_experts_per_tok "
                "and the number of experts in it."
            )

    def _group(self, scores: torch.Tensor) -> torch.Tensor:
        """[num_tokens, num_experts] as [num_tokens, num_groups, experts a group]."""
        return scores.view(len(scores), self._num_groups, scores.shape[1] // self._num_groups)

    def _best_of(self, groups: torch.Tensor, of_groups: torch.Tensor) -> torch.Tensor:
        """Args:
            groups: scores of experts, float32 [num_tokens, num_groups, experts a group].
            of_groups: scores of groups, float32 [num_tokens, num_groups].

        Returns:
            The chosen experts' numbers, int64 [num_tokens, top_k].
        """
        if self._top_groups < self._num_groups:
            out = torch.ones_like(of_groups, dtype=torch.bool).scatter_(1, _best(of_groups, self._top_groups), False)
            groups = groups.masked_fill(out.unsqueeze(-1), float("-inf"))
        return _best(groups.flatten(1), self.top_k)

    def _weigh(self, scores: torch.Tensor, expert_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _weights(scores.gather(1, expert_ids), self._renormalize, self._scale), expert_ids


class GroupLimitedRouting(_GroupedRouting):
    """Softmax over all experts, then the best of the experts in the best groups, a group being as good as its best
    expert: DeepSeek-V2 (arXiv:2405.04434, equations 21 to 23 and section 2.2.2), ``group_limited_greedy``."""

    def __init__(
        self, top_k: int, *, num_groups: int, top_groups: int, renormalize: bool = False, scale: float = 1.0
    ) -> None:
        """Args:
        top_k: experts a token.
        num_groups: into how many groups the experts are divided (``n_group``).
        top_groups: how many groups a token's experts come from (``topk_group``).
        renormalize: divide a token's weights by their sum.
        scale: weights are multiplied by it (``routed_scaling_factor``).
        """
        super().__init__(top_k, num_groups=num_groups, top_groups=top_groups, renormalize=renormalize, scale=scale)

    def forward(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = logits.softmax(-1, dtype=torch.float32)
        groups = self._group(scores)
        return self._weigh(scores, self._best_of(groups, groups.amax(-1)))


class SigmoidRouting(_GroupedRouting):
    """Sigmoid scores; a bias that balances the load takes part in the choice, but not in the weights: DeepSeek-V3
    (arXiv:2412.19437, equations 13 to 16 and section 2.1.2), ``noaux_tc``. A group is as good as its best two
    experts together, bias included.

    Parameters: ``e_score_correction_bias``, float32 [num_experts].
    """

    least_group_size = 2

    def __init__(
        self,
        context: BuildContext,
        *,
        num_experts: int,
        top_k: int,
        num_groups: int = 1,
        top_groups: int = 1,
        renormalize: bool = True,
        scale: float = 1.0,
    ) -> None:
        """Args:
        context: the device to build for.
        num_experts: to choose from.
        top_k: experts a token.
        num_groups: into how many groups the experts are divided (``n_group``).
        top_groups: how many groups a token's experts come from (``topk_group``).
        renormalize: divide a token's weights by their sum (``norm_topk_prob``).
        scale: weights are multiplied by it, after that (``routed_scaling_factor``).
        """
        super().__init__(top_k, num_groups=num_groups, top_groups=top_groups, renormalize=renormalize, scale=scale)
        self.e_score_correction_bias = parameter((num_experts,), torch.float32, context.device)

    def forward(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = logits.float().sigmoid()
        groups = self._group(scores + self.e_score_correction_bias)
        return self._weigh(scores, self._best_of(groups, groups.topk(2, -1).values.sum(-1)))


class UniformRouting(Routing):
    """Every expert equally often, whatever the logits say, and all with the same weight: for benchmarks alone.

    Random weights favour some experts over others, and a benchmark on them measures that, where trained ones were
    balanced. Here the experts are the best by noise that is a function of the token's own logits, as bits: SplitMix64
    (Steele, Lea, Flood, OOPSLA 2014, figure 17) of their hash plus the expert's number times the golden gamma. So the
    choice depends on nothing else in the batch and needs no generator, and the router is computed as ever.
    """

    def forward(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return uniform_top_k(logits, self.top_k)


def _best(scores: torch.Tensor, count: int) -> torch.Tensor:
    """The numbers of the `count` highest scores in each row of float32 [num_rows, size], highest first."""
    # A float's bits, made to order like the float, and below them how low the number is: no two keys are equal.
    bits = (scores + 0.0).view(torch.int32)  # adding zero makes the negative zero positive
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    lowness = torch.arange(scores.shape[1] - 1, -1, -1, device=scores.device)
    return ((ordered.to(torch.int64) << 32) | lowness).topk(count, -1).indices


def _weights(chosen: torch.Tensor, renormalize: bool, scale: float) -> torch.Tensor:
    if renormalize:
        chosen = chosen / (chosen.sum(-1, keepdim=True) + _TINY)
    return chosen if scale == 1.0 else chosen * scale
