"""Each routing against a loop over tokens, written from the equations of its paper."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from vcore.errors import UnsupportedModelError
from vcore.interfaces.model import BuildContext
from vcore.layers import (
    GroupLimitedRouting,
    Routing,
    SigmoidRouting,
    SoftmaxRouting,
    TopKSoftmaxRouting,
    UniformRouting,
)

NUM_EXPERTS = 12
Choice = list[tuple[int, float]]
"""A token's experts with their weights."""


def softmax(values: list[float]) -> list[float]:
    exponentials = [math.exp(value - max(values)) for value in values]
    return [value / sum(exponentials) for value in exponentials]


def best(values: list[float], count: int, among: set[int] | None = None) -> list[int]:
    """Indices of the highest values, the lower index first among equals."""
    indices = range(len(values)) if among is None else sorted(among)
    return sorted(indices, key=lambda index: (-values[index], index))[:count]


def groups_of(values: list[float], num_groups: int) -> list[list[float]]:
    size = len(values) // num_groups
    return [values[first : first + size] for first in range(0, len(values), size)]


def members(groups: list[int], num_groups: int) -> set[int]:
    size = NUM_EXPERTS // num_groups
    return {expert for group in groups for expert in range(group * size, (group + 1) * size)}


def scaled(weights: dict[int, float], renormalize: bool, scale: float) -> Choice:
    total = sum(weights.values()) if renormalize else 1.0
    return [(expert, scale * weight / total) for expert, weight in weights.items()]


def deepseek_moe(logits: list[float], top_k: int, renormalize: bool, scale: float) -> Choice:
    """arXiv:2401.06066, equations 4 and 5."""
    scores = softmax(logits)
    return scaled({expert: scores[expert] for expert in best(scores, top_k)}, renormalize, scale)


def mixtral(logits: list[float], top_k: int) -> Choice:
    """arXiv:2401.04088, section 2.1: Softmax(TopK(x · W)), where TopK leaves minus infinity elsewhere."""
    kept = best(logits, top_k)
    weights = softmax([logit if expert in kept else -math.inf for expert, logit in enumerate(logits)])
    return [(expert, weights[expert]) for expert in kept]


def deepseek_v2(logits: list[float], top_k: int, num_groups: int, top_groups: int, scale: float) -> Choice:
    """arXiv:2405.04434, equations 21 to 23, with the experts of the best devices alone."""
    scores = softmax(logits)
    of_groups = [max(group) for group in groups_of(scores, num_groups)]
    among = members(best(of_groups, top_groups), num_groups)
    return scaled({expert: scores[expert] for expert in best(scores, top_k, among)}, False, scale)


def deepseek_v3(
    logits: list[float],
    bias: list[float],
    top_k: int,
    num_groups: int,
    top_groups: int,
    renormalize: bool,
    scale: float,
) -> Choice:
    """arXiv:2412.19437, equations 13 to 16: the bias is in the choice alone."""
    scores = [1 / (1 + math.exp(-logit)) for logit in logits]
    biased = [score + correction for score, correction in zip(scores, bias, strict=True)]
    of_groups = [sum(sorted(group)[-2:]) for group in groups_of(biased, num_groups)]
    among = members(best(of_groups, top_groups), num_groups)
    return scaled({expert: scores[expert] for expert in best(biased, top_k, among)}, renormalize, scale)


def check(routing: Routing, logits: torch.Tensor, expected: Callable[[list[float]], Choice]) -> None:
    before = logits.clone()
    weights, expert_ids = routing(logits)
    assert torch.equal(logits, before)
    assert weights.dtype == torch.float32
    assert expert_ids.dtype == torch.int64
    assert weights.shape == expert_ids.shape == (len(logits), routing.top_k)
    for token, row in enumerate(logits.tolist()):
        choice = expected(row)
        assert expert_ids[token].tolist() == [expert for expert, _ in choice]
        torch.testing.assert_close(weights[token], torch.tensor([weight for _, weight in choice]))


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def logits(request: pytest.FixtureRequest) -> torch.Tensor:
    """Of forty tokens. In bfloat16, experts with equal logits occur."""
    found = torch.randn(40, NUM_EXPERTS).mul_(2).to(request.param)
    if request.param == torch.bfloat16:
        assert any(len(set(row)) < NUM_EXPERTS for row in found.tolist())
    return found


@pytest.mark.parametrize("top_k", [1, 3, NUM_EXPERTS])
@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_softmax(logits: torch.Tensor, top_k: int, renormalize: bool, scale: float):
    routing = SoftmaxRouting(top_k, renormalize=renormalize, scale=scale)
    check(routing, logits, lambda row: deepseek_moe(row, top_k, renormalize, scale))


@pytest.mark.parametrize("top_k", [1, 2, NUM_EXPERTS])
def test_top_k_then_softmax(logits: torch.Tensor, top_k: int):
    check(TopKSoftmaxRouting(top_k), logits, lambda row: mixtral(row, top_k))


@pytest.mark.parametrize("top_k", [1, 2, NUM_EXPERTS])
def test_top_k_then_softmax_is_softmax_renormalised(logits: torch.Tensor, top_k: int):
    weights, expert_ids = TopKSoftmaxRouting(top_k)(logits)
    others = SoftmaxRouting(top_k, renormalize=True)(logits)
    torch.testing.assert_close(weights, others[0])
    assert torch.equal(expert_ids, others[1])


@pytest.mark.parametrize(
    ("num_groups", "top_groups", "top_k"), [(4, 2, 3), (3, 1, 4), (4, 4, 5), (12, 3, 3), (1, 1, 2)]
)
def test_group_limited(logits: torch.Tensor, num_groups: int, top_groups: int, top_k: int):
    routing = GroupLimitedRouting(top_k, num_groups=num_groups, top_groups=top_groups, scale=16.0)
    check(routing, logits, lambda row: deepseek_v2(row, top_k, num_groups, top_groups, 16.0))


def test_group_limited_renormalised(logits: torch.Tensor):
    weights, _ = GroupLimitedRouting(3, num_groups=4, top_groups=2, renormalize=True)(logits)
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(logits)))


@pytest.mark.parametrize(("num_groups", "top_groups", "top_k"), [(4, 2, 3), (3, 1, 4), (6, 3, 6), (1, 1, 2)])
@pytest.mark.parametrize("renormalize", [False, True])
def test_sigmoid(
    build_context: Callable[..., BuildContext],
    logits: torch.Tensor,
    num_groups: int,
    top_groups: int,
    top_k: int,
    renormalize: bool,
):
    routing = SigmoidRouting(
        build_context(dtype=torch.bfloat16),
        num_experts=NUM_EXPERTS,
        top_k=top_k,
        num_groups=num_groups,
        top_groups=top_groups,
        renormalize=renormalize,
        scale=2.5,
    )
    # Some scores are negative with it; exact in binary, so that what is equal in float32 is in the loop, too.
    bias = torch.randint(-8, 8, (NUM_EXPERTS,)) / 16
    assert routing.e_score_correction_bias.dtype == torch.float32  # whatever the model's dtype is
    routing.e_score_correction_bias.copy_(bias)
    check(
        routing,
        logits,
        lambda row: deepseek_v3(row, bias.tolist(), top_k, num_groups, top_groups, renormalize, 2.5),
    )


def test_the_bias_of_sigmoid_routing_chooses_but_does_not_weigh(build_context: Callable[..., BuildContext]):
    routing = SigmoidRouting(build_context(), num_experts=4, top_k=2, renormalize=False)
    routing.e_score_correction_bias.copy_(torch.tensor([0.0, 0.0, 0.0, 5.0]))
    weights, expert_ids = routing(torch.tensor([[2.0, 1.0, 0.0, -1.0]]))
    assert expert_ids.tolist() == [[3, 0]]
    torch.testing.assert_close(weights, torch.tensor([[-1.0, 2.0]]).sigmoid())


def test_scores_that_are_all_zero_give_no_weight_and_no_nan(build_context: Callable[..., BuildContext]):
    routing = SigmoidRouting(build_context(), num_experts=4, top_k=2)
    routing.e_score_correction_bias.zero_()
    weights, _ = routing(torch.full((1, 4), -1e4))
    assert weights.tolist() == [[0.0, 0.0]]


def test_of_equal_experts_the_lower_numbers_win(build_context: Callable[..., BuildContext]):
    equal = torch.zeros(3, 64)
    equal[1:, ::2] = -0.0  # equal to zero
    grouped = {"num_groups": 8, "top_groups": 2}
    sigmoid = SigmoidRouting(build_context(), num_experts=64, top_k=9, **grouped)
    sigmoid.e_score_correction_bias.zero_()
    for routing in (SoftmaxRouting(9), TopKSoftmaxRouting(9), GroupLimitedRouting(9, **grouped), sigmoid):
        weights, expert_ids = routing(equal)
        assert expert_ids.tolist() == [list(range(9))] * 3
        assert len(weights.unique()) == 1


@pytest.mark.parametrize(
    "routing",
    [SoftmaxRouting(3), TopKSoftmaxRouting(3), GroupLimitedRouting(3, num_groups=4, top_groups=2), UniformRouting(3)],
    ids=lambda routing: type(routing).__name__,
)
def test_a_token_is_routed_as_if_it_were_alone(routing: Routing):
    logits = torch.randn(33, NUM_EXPERTS)
    weights, expert_ids = routing(logits)
    for token in range(len(logits)):
        alone = routing(logits[token : token + 1])
        assert torch.equal(alone[0][0], weights[token])
        assert torch.equal(alone[1][0], expert_ids[token])
    none = routing(logits[:0])
    assert none[0].shape == none[1].shape == (0, 3)


def test_uniform_routing_spreads_tokens_evenly():
    """Although the logits, as they are, favour the first experts."""
    num_tokens, top_k = 30_000, 3
    logits = torch.randn(num_tokens, NUM_EXPERTS) + torch.linspace(9, 0, NUM_EXPERTS)
    weights, expert_ids = UniformRouting(top_k)(logits)
    assert weights.unique().tolist() == pytest.approx([1 / top_k])
    assert all(len(set(row)) == top_k for row in expert_ids[:500].tolist())
    share = top_k / NUM_EXPERTS
    deviation = math.sqrt(num_tokens * share * (1 - share))
    counts = torch.bincount(expert_ids.flatten(), minlength=NUM_EXPERTS)
    assert (counts - num_tokens * share).abs().max() < 4.5 * deviation
    # Pairs, too: choosing one expert says nothing of the others but that there is one place less.
    with_first = expert_ids[(expert_ids == 0).any(1)]
    others = torch.bincount(with_first.flatten(), minlength=NUM_EXPERTS)[1:]
    expected = len(with_first) * (top_k - 1) / (NUM_EXPERTS - 1)
    assert (others - expected).abs().max() < 4.5 * math.sqrt(expected)


def test_uniform_routing_follows_every_logit():
    logits = torch.randn(1, NUM_EXPERTS)
    experts = set()
    for expert in range(NUM_EXPERTS):
        other = logits.clone()
        other[0, expert] += 1.0
        experts.add(tuple(UniformRouting(3)(other)[1][0].tolist()))
    assert len(experts) > NUM_EXPERTS / 2


@pytest.mark.parametrize("top_k", [0, 9])
def test_more_experts_than_there_are(top_k: int):
    with pytest.raises(UnsupportedModelError, match=f"to {top_k} of 8 experts"):
        SoftmaxRouting(top_k).check(8)


@pytest.mark.parametrize(
    ("num_experts", "num_groups", "top_groups", "top_k"),
    [(8, 4, 5, 2), (8, 4, 0, 2), (8, 3, 2, 2), (8, 4, 2, 5), (8, 16, 2, 2), (8, 0, 0, 2)],
    ids=[
        "more groups than there are",
        "no group",
        "unequal groups",
        "more experts than in the groups",
        "empty groups",
        "no groups",
    ],
)
def test_groups_that_do_not_fit(
    build_context: Callable[..., BuildContext], num_experts: int, num_groups: int, top_groups: int, top_k: int
):
    groups = {"num_groups": num_groups, "top_groups": top_groups}
    sigmoid = SigmoidRouting(build_context(), num_experts=num_experts, top_k=top_k, **groups)
    for routing in (GroupLimitedRouting(top_k, **groups), sigmoid):
        with pytest.raises(UnsupportedModelError, match=f"{top_groups} of {num_groups} groups.*n_group, topk_group"):
            routing.check(num_experts)


def test_groups_that_fit(build_context: Callable[..., BuildContext]):
    GroupLimitedRouting(4, num_groups=8, top_groups=4).check(8)
    SigmoidRouting(build_context(), num_experts=8, top_k=4, num_groups=4, top_groups=2).check(8)


def test_groups_of_one_expert_have_no_best_two(build_context: Callable[..., BuildContext]):
    routing = SigmoidRouting(build_context(), num_experts=8, top_k=2, num_groups=8, top_groups=4)
    with pytest.raises(UnsupportedModelError, match="with 2 experts at least"):
        routing.check(8)
