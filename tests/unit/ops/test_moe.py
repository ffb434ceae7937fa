"""The experts' op against a loop over tokens and their choices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch

from vcore.ops import fused_experts, pack_linear_weight, silu_and_mul
from vcore.ops import moe as implementation

HIDDEN, INTERMEDIATE = 16, 12


def naive(x, gate_up, down, weights, expert_ids) -> torch.Tensor:
    result = torch.zeros(x.shape)
    for token, experts in enumerate(expert_ids.tolist()):
        for choice, expert in enumerate(experts):
            gate, up = (gate_up[expert].float() @ x[token].float()).chunk(2)
            hidden = torch.nn.functional.silu(gate) * up
            result[token] += weights[token, choice] * (down[expert].float() @ hidden)
    return result


def make(num_tokens: int, num_experts: int, top_k: int, among: Sequence[int] | None = None) -> list[torch.Tensor]:
    """Random arguments; each token goes to different experts out of `among`."""
    torch.manual_seed(0)
    candidates = torch.tensor(range(num_experts) if among is None else among)
    order = torch.rand(num_tokens, len(candidates)).argsort(1)[:, :top_k]
    return [
        torch.randn(num_tokens, HIDDEN),
        torch.randn(num_experts, 2 * INTERMEDIATE, HIDDEN),
        torch.randn(num_experts, HIDDEN, INTERMEDIATE),
        torch.rand(num_tokens, top_k),
        candidates[order],
    ]


CASES = {
    "several": (17, 5, 2),
    "one token": (1, 6, 3),
    "one choice": (9, 4, 1),
    "every expert": (7, 4, 4),
    "one expert": (3, 1, 1),
    "some experts": (20, 8, 2, (1, 4, 5)),
    "the first and the last": (5, 8, 2, (0, 7)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_against_a_loop(case: tuple):
    x, *others = make(*case)
    before = x.clone()
    got = fused_experts(x, *others, silu_and_mul)
    assert torch.equal(x, before)
    torch.testing.assert_close(got, naive(x, *others), rtol=1e-4, atol=1e-4)


def test_no_tokens():
    x, *others = make(0, 4, 2)
    got = fused_experts(x, *others, silu_and_mul)
    assert got.shape == (0, HIDDEN)
    assert got.dtype == x.dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_lower_precision(dtype: torch.dtype):
    x, gate_up, down, weights, expert_ids = make(17, 5, 2)
    x, gate_up, down = x.to(dtype), gate_up.to(dtype), down.to(dtype)
    got = fused_experts(x, gate_up, down, weights, expert_ids, silu_and_mul)
    assert got.dtype == dtype
    expected = naive(x, gate_up, down, weights, expert_ids)
    assert torch.cosine_similarity(got.float(), expected).min() > 0.999


def test_packed_matrices():
    x, gate_up, down, weights, expert_ids = make(17, 5, 2)
    packed = [tuple(pack_linear_weight(matrix.contiguous()) for matrix in joined) for joined in (gate_up, down)]
    got = fused_experts(x, *packed, weights, expert_ids, silu_and_mul)
    torch.testing.assert_close(got, naive(x, gate_up, down, weights, expert_ids), rtol=1e-4, atol=1e-4)


def test_only_the_experts_that_were_chosen_are_looked_at():
    x, gate_up, down, weights, expert_ids = make(3, 200, 2, among=(7, 30, 199))

    class Watched(Sequence[torch.Tensor]):
        def __init__(self, matrices: torch.Tensor) -> None:
            self._matrices = matrices
            self.seen: list[int] = []

        def __len__(self) -> int:
            return len(self._matrices)

        def __getitem__(self, expert):
            self.seen.append(expert)
            return self._matrices[expert]

        def __iter__(self) -> Iterator[torch.Tensor]:
            raise AssertionError("all experts were asked for")

    watched = Watched(gate_up), Watched(down)
    fused_experts(x, *watched, weights, expert_ids, silu_and_mul)
    for matrices in watched:
        assert matrices.seen == sorted(set(expert_ids.flatten().tolist()))  # each once


def test_what_else_is_in_the_batch_does_not_matter():
    """With products that are exact whatever their order, a token's result is the same to the last bit."""
    torch.manual_seed(0)
    num_tokens, num_experts, top_k = 37, 6, 4
    x = torch.randint(-3, 4, (num_tokens, HIDDEN)).float()
    gate_up = torch.randint(-3, 4, (num_experts, 2 * INTERMEDIATE, HIDDEN)).float()
    down = torch.randint(-3, 4, (num_experts, HIDDEN, INTERMEDIATE)).float()
    weights = torch.rand(num_tokens, top_k)
    expert_ids = torch.rand(num_tokens, num_experts).argsort(1)[:, :top_k]

    def product_gate(rows: torch.Tensor) -> torch.Tensor:
        gate, up = rows.chunk(2, -1)
        return gate * up

    together = fused_experts(x, gate_up, down, weights, expert_ids, product_gate)
    order = torch.randperm(num_tokens)
    shuffled = fused_experts(x[order], gate_up, down, weights[order], expert_ids[order], product_gate)
    assert torch.equal(shuffled, together[order])
    for token in range(num_tokens):
        one = slice(token, token + 1)
        alone = fused_experts(x[one], gate_up, down, weights[one], expert_ids[one], product_gate)
        assert torch.equal(alone[0], together[token])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_grouped_products_are_those_of_one_expert_after_another(case: tuple):
    """What CUDA runs, for which torch has a slow form on the CPU."""
    x, gate_up, down, _, expert_ids = (tensor for tensor in make(*case))
    x, gate_up, down = (tensor.to(torch.bfloat16) for tensor in (x, gate_up[:, :, :8], down[:, :, :8]))
    gate_up = gate_up[:, :16]
    sorted_ids = expert_ids.flatten().sort().values
    rows = torch.randn(len(sorted_ids), 8).to(torch.bfloat16)
    got = implementation._grouped_networks(rows, sorted_ids, gate_up.contiguous(), down.contiguous(), silu_and_mul)
    expected = implementation._networks(rows, sorted_ids, gate_up, down, silu_and_mul)
    torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-2)


def test_what_is_added_to_the_sum() -> None:
    given = make(4, 5, 2)
    addend = torch.randn(4, HIDDEN)
    expected = fused_experts(*given, silu_and_mul) + addend
    torch.testing.assert_close(fused_experts(*given, silu_and_mul, addend), expected)
