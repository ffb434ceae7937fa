"""Mixture of experts on CUDA: choices and results as on the CPU; nothing waits for the device in bfloat16."""

from __future__ import annotations

import pytest
import torch

from vcore.layers import GroupLimitedRouting, Routing, SoftmaxRouting, TopKSoftmaxRouting, UniformRouting
from vcore.ops import fused_experts, silu_and_mul

pytestmark = pytest.mark.gpu

HIDDEN, INTERMEDIATE, NUM_EXPERTS, TOP_K = 128, 96, 16, 4


def make(num_tokens: int, dtype: torch.dtype, intermediate: int = INTERMEDIATE) -> list[torch.Tensor]:
    """Tokens, matrices and logits on the device."""
    torch.manual_seed(0)
    shapes = (num_tokens, HIDDEN), (NUM_EXPERTS, 2 * intermediate, HIDDEN), (NUM_EXPERTS, HIDDEN, intermediate)
    scaled = [torch.randn(shape, device="cuda") * (shape[-1] ** -0.5 if len(shape) == 3 else 1) for shape in shapes]
    return [*(tensor.to(dtype) for tensor in scaled), torch.randn(num_tokens, NUM_EXPERTS, device="cuda").to(dtype)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(
    "routing",
    [SoftmaxRouting(5), TopKSoftmaxRouting(5), GroupLimitedRouting(5, num_groups=4, top_groups=2), UniformRouting(5)],
    ids=lambda routing: type(routing).__name__,
)
def test_choices_are_those_of_the_cpu(routing: Routing, dtype: torch.dtype):
    """Of experts with equal scores, too; and without waiting."""
    logits = make(500, dtype)[3]
    torch.cuda.set_sync_debug_mode("error")
    try:
        weights, expert_ids = routing(logits)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = routing(logits.cpu())
    torch.testing.assert_close(weights.cpu(), expected[0])
    if dtype == torch.bfloat16:  # float32 scores may differ in the last bit
        assert torch.equal(expert_ids.cpu(), expected[1])


@pytest.mark.parametrize("num_tokens", [1, 37, 300])
@pytest.mark.parametrize(
    ("dtype", "intermediate", "tolerance"),
    [
        (torch.bfloat16, INTERMEDIATE, 1e-2),
        (torch.bfloat16, INTERMEDIATE - 4, 1e-2),
        (torch.float16, INTERMEDIATE, 2e-3),
        (torch.float32, INTERMEDIATE, 1e-5),
    ],
    ids=["bfloat16", "bfloat16-unaligned", "float16", "float32"],
)
def test_results_are_those_of_the_cpu(num_tokens: int, dtype: torch.dtype, intermediate: int, tolerance: float):
    x, gate_up, down, logits = make(num_tokens, dtype, intermediate)
    weights, expert_ids = SoftmaxRouting(TOP_K)(logits)
    got = fused_experts(x, gate_up, down, weights, expert_ids, silu_and_mul).cpu().float()
    matrices = (tensor.cpu().float() for tensor in (x, gate_up, down))
    expected = fused_experts(*matrices, weights.cpu(), expert_ids.cpu(), silu_and_mul)
    assert (got - expected).norm() < tolerance * expected.norm()


def test_a_graph_follows_the_choices_of_its_inputs():
    x, gate_up, down, logits = make(24, torch.bfloat16)
    routing = SoftmaxRouting(TOP_K, renormalize=True)

    def compute() -> torch.Tensor:
        return fused_experts(x, gate_up, down, *routing(logits), silu_and_mul)

    before = compute()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = compute()
    logits.copy_(torch.randn_like(logits))
    graph.replay()
    assert not torch.equal(result, before)
    assert torch.equal(result, compute())
