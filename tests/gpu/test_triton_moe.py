"""The kernels of mixture-of-experts layers and of latent caches against their references.

On a CUDA device: ``pytest -m gpu tests/gpu/test_triton_moe.py``. On a CPU, with Triton installed, the same command
under ``TRITON_INTERPRET=1`` runs the kernels through Triton's interpreter.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import pytest
import torch

from vcore import ops
from vcore.ops.triton import latent_write, moe, moe_align, moe_configs, moe_grouped, moe_routing, moe_rows

pytestmark = [pytest.mark.gpu, pytest.mark.interpreted]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Of the norm of the difference, relative to the norm of the reference."""
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
on_cuda_alone = pytest.mark.skipif(INTERPRETED, reason="takes a CUDA device")


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32, device=DEVICE).to(dtype)


@dataclass
class Layer:
    """A layer of experts with random weights, and tokens routed to them."""

    num_tokens: int
    dtype: torch.dtype
    num_experts: int = 8
    top_k: int = 3
    hidden_size: int = 64
    intermediate_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = self.hidden_size, self.intermediate_size
        self.x = random(self.num_tokens, sizes[0], dtype=self.dtype, seed=self.seed)
        self.gate_up = random(self.num_experts, 2 * sizes[1], sizes[0], dtype=self.dtype, seed=1) / sizes[0] ** 0.5
        self.down = random(self.num_experts, *sizes, dtype=self.dtype, seed=2) / sizes[1] ** 0.5
        logits = random(self.num_tokens, self.num_experts, seed=3 + self.seed)
        self.weights, self.expert_ids = ops.softmax_top_k.reference(logits, self.top_k)
        self.addend: torch.Tensor | None = None

    def run(self, gate=ops.silu_and_mul) -> torch.Tensor:
        return moe.fused_experts(self.x, self.gate_up, self.down, self.weights, self.expert_ids, gate, self.addend)

    def expected(self, gate=ops.silu_and_mul) -> torch.Tensor:
        """In float64, an expert at a time."""
        total = torch.zeros(self.x.shape, dtype=torch.float64, device=DEVICE)
        if self.addend is not None:
            total += self.addend
        for expert in self.expert_ids.unique().tolist():
            tokens, choices = (self.expert_ids == expert).nonzero(as_tuple=True)
            hidden = gate.reference(self.x[tokens].double() @ self.gate_up[expert].double().T)
            result = hidden @ self.down[expert].double().T
            total.index_add_(0, tokens, result * self.weights[tokens, choices].double()[:, None])
        return total

    def check(self, gate=ops.silu_and_mul) -> None:
        found, expected = self.run(gate), self.expected(gate)
        assert (found.dtype, found.shape) == (self.dtype, self.x.shape)
        error = ((found.double() - expected).norm() / expected.norm()).item()
        assert error < TOLERANCE[self.dtype], error  # NaN is not less


# Experts


@each_dtype
@pytest.mark.parametrize("num_tokens", [1, 3, 5, 17, 130])
def test_experts(num_tokens: int, dtype: torch.dtype) -> None:
    Layer(num_tokens, dtype).check()


@each_dtype
@pytest.mark.parametrize("num_tokens", [1, 17])
def test_what_is_added_to_the_sum(num_tokens: int, dtype: torch.dtype) -> None:
    layer = Layer(num_tokens, dtype)
    layer.addend = random(*layer.x.shape, 2, dtype=dtype, seed=9)[..., 0]
    layer.check()


@each_dtype
@pytest.mark.parametrize("num_tokens", [1 if INTERPRETED else 2, 21])
@pytest.mark.parametrize(
    ("num_experts", "top_k", "hidden_size", "intermediate_size"),
    [(6, 1, 64, 40), (5, 5, 48, 56 if INTERPRETED else 104), (1, 1, 32, 32), (11, 4, 200, 24), (64, 6, 72, 16)],
)
def test_odd_sizes(num_tokens, num_experts, top_k, hidden_size, intermediate_size, dtype: torch.dtype) -> None:
    Layer(num_tokens, dtype, num_experts, top_k, hidden_size, intermediate_size).check()


@each_dtype
@pytest.mark.parametrize("num_tokens", [1, 9])
def test_the_other_gate(num_tokens: int, dtype: torch.dtype) -> None:
    Layer(num_tokens, dtype).check(ops.gelu_tanh_and_mul)


@each_dtype
@pytest.mark.parametrize("num_tokens", [3, 70])
def test_all_tokens_may_choose_the_same_experts(num_tokens: int, dtype: torch.dtype) -> None:
    layer = Layer(num_tokens, dtype)
    layer.expert_ids = torch.tensor([6, 1, 7], device=DEVICE).expand(num_tokens, 3)
    layer.gate_up[[0, 2, 3, 4, 5]] = float("nan")  # experts that nobody chose
    layer.down[[0, 2, 3, 4, 5]] = float("nan")
    layer.check()


@pytest.mark.parametrize("features_first", [False, True])
@pytest.mark.parametrize("block_m", [16, 64])
def test_products_may_be_laid_out_either_way(monkeypatch, features_first: bool, block_m: int) -> None:
    product = moe_configs.ProductConfig(
        block_n=64, block_k=32, num_warps=4, num_stages=2, features_first=features_first
    )
    config = moe_configs.GroupedConfig(block_m=block_m, gate_up=product, down=replace(product, block_k=64))
    monkeypatch.setattr(moe_grouped, "grouped_config", lambda **shape: config)
    Layer(40, DTYPES[-1], intermediate_size=96).check()


def test_both_ways_give_the_same_for_a_few_tokens() -> None:
    layer = Layer(4, torch.float32)
    arguments = (layer.x, layer.gate_up, layer.down, layer.weights, layer.expert_ids, None)
    rows, grouped = (experts(*arguments, gelu=False) for experts in (moe_rows.row_experts, moe_grouped.grouped_experts))
    torch.testing.assert_close(rows, grouped, rtol=1e-5, atol=1e-5)


def test_tokens_may_be_a_view_and_no_input_is_changed() -> None:
    for num_tokens in (2, 20):
        layer = Layer(num_tokens, torch.float32)
        layer.x = torch.cat((layer.x, torch.full_like(layer.x, float("nan"))), 1)[:, : layer.hidden_size]
        inputs = (layer.x, layer.gate_up, layer.down, layer.weights, layer.expert_ids)
        before = [tensor.clone() for tensor in inputs]
        layer.check()
        assert all(torch.equal(tensor, copy) for tensor, copy in zip(inputs, before, strict=True))
        layer.x = layer.x.T.contiguous().T
        layer.check()


def test_what_the_kernels_do_not_take_goes_to_the_reference() -> None:
    no_tokens = Layer(0, torch.float32)
    assert no_tokens.run().shape == no_tokens.x.shape
    Layer(7, torch.float32, hidden_size=30, intermediate_size=10).check()
    layer = Layer(7, torch.float32)
    expected = layer.run()
    layer.gate_up, layer.down = tuple(layer.gate_up), tuple(layer.down)
    torch.testing.assert_close(layer.run(), expected, rtol=1e-5, atol=1e-5)
    other = Layer(7, torch.float32)
    doubled = other.run(lambda x: 2 * ops.silu_and_mul(x))
    torch.testing.assert_close(doubled, 2 * expected, rtol=1e-5, atol=1e-5)


@on_cuda_alone
@pytest.mark.parametrize("num_tokens", [1, 4, 5, 8, 64, 256, 700, 2048])
@pytest.mark.parametrize(
    ("num_experts", "top_k", "intermediate_size"), [(64, 6, 1408), (128, 8, 768)], ids=["deepseek", "qwen"]
)
def test_published_shapes(num_tokens: int, num_experts: int, top_k: int, intermediate_size: int) -> None:
    Layer(num_tokens, torch.bfloat16, num_experts, top_k, 2048, intermediate_size).check()


@on_cuda_alone
@pytest.mark.parametrize("num_tokens", [2, 8, 300])
def test_one_captured_graph_serves_every_routing(num_tokens: int) -> None:
    layer = Layer(num_tokens, torch.bfloat16, 64, 6, 512, 256)
    logits = random(num_tokens, 64)

    def step() -> torch.Tensor:
        layer.weights, layer.expert_ids = moe_routing.softmax_top_k(logits, 6)
        return layer.run()

    step()  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    for seed in range(4):
        layer.x.copy_(random(*layer.x.shape, dtype=torch.bfloat16, seed=seed))
        logits.copy_(random(*logits.shape, seed=10 + seed))
        if seed == 3:
            logits[:, 6:] -= 100.0  # six experts for all
        out.fill_(float("nan"))
        graph.replay()
        expected = layer.expected()
        assert (out.double() - expected).norm() < TOLERANCE[torch.bfloat16] * expected.norm()


@on_cuda_alone
@pytest.mark.parametrize("num_tokens", [3, 8, 500])
def test_results_do_not_change_from_run_to_run(num_tokens: int) -> None:
    layer = Layer(num_tokens, torch.bfloat16, 64, 6, 512, 256)
    first = layer.run()
    for _ in range(50):
        assert torch.equal(layer.run(), first)


# Rows by expert


@pytest.mark.parametrize("block_m", [16, 64])
@pytest.mark.parametrize(("num_tokens", "top_k", "num_experts"), [(1, 1, 1), (5, 2, 3), (100, 6, 64), (2100, 4, 40)])
def test_rows_are_sorted_stably_and_cut_into_tiles(num_tokens, top_k, num_experts, block_m: int) -> None:
    logits = random(num_tokens, num_experts) + torch.arange(num_experts, device=DEVICE) % 3
    expert_ids = ops.softmax_top_k.reference(logits, top_k)[1].contiguous()
    found = moe_align.sort_rows(expert_ids, num_experts, block_m)
    sorted_ids, order = expert_ids.flatten().sort(stable=True)
    assert torch.equal(found.rows.long(), order)
    num_tiles = found.num_tiles.item()
    assert num_tiles <= found.max_tiles
    covered = []
    for expert, begin, end in found.tiles[:, :num_tiles].T.tolist():
        assert 0 < end - begin <= block_m
        assert (sorted_ids[begin:end] == expert).all()
        covered += range(begin, end)
    assert covered == list(range(num_tokens * top_k))
    counts = expert_ids.flatten().bincount(minlength=num_experts)
    assert num_tiles == int(((counts + block_m - 1) // block_m).sum())


# Routing


@each_dtype
@pytest.mark.parametrize(("num_tokens", "num_experts", "top_k"), [(1, 64, 6), (5, 60, 4), (3, 128, 8), (2, 3, 3)])
@pytest.mark.parametrize(("renormalize", "scale"), [(False, 1.0), (True, 2.5)])
def test_softmax_top_k(num_tokens, num_experts, top_k, renormalize, scale, dtype: torch.dtype) -> None:
    logits = random(num_tokens, num_experts, dtype=dtype)
    weights, expert_ids = moe_routing.softmax_top_k(logits, top_k, renormalize, scale)
    expected, expected_ids = ops.softmax_top_k.reference(logits, top_k, renormalize, scale)
    assert (weights.dtype, expert_ids.dtype) == (torch.float32, torch.int64)
    assert torch.equal(expert_ids, expected_ids)
    torch.testing.assert_close(weights, expected, rtol=2e-6, atol=1e-7)


def test_of_equal_scores_the_lower_expert_is_chosen() -> None:
    logits = torch.tensor([[0.0, 1.0, -0.0, 1.0, 0.0], [2.0, 2.0, 2.0, 2.0, 2.0]], device=DEVICE)
    _, expert_ids = moe_routing.softmax_top_k(logits, 4)
    assert expert_ids.tolist() == [[1, 3, 0, 2], [0, 1, 2, 3]]


def test_logits_that_are_nan_give_experts_that_exist() -> None:
    logits = torch.full((2, 5), float("nan"), device=DEVICE)
    weights, expert_ids = moe_routing.softmax_top_k(logits, 3)
    assert weights.isnan().all()
    assert expert_ids.tolist() == [[0, 1, 2]] * 2


def test_routing_of_a_view_and_of_no_tokens() -> None:
    logits = random(6, 40)[::2, 3:20]
    for top_k in (2, 5):
        assert torch.equal(moe_routing.softmax_top_k(logits, top_k)[1], ops.softmax_top_k.reference(logits, top_k)[1])
        assert torch.equal(moe_routing.softmax_top_k(logits.T, 3)[1], ops.softmax_top_k.reference(logits.T, 3)[1])
    assert moe_routing.softmax_top_k(logits[:0], 3)[1].shape == (0, 3)
    assert moe_routing.uniform_top_k(logits[:0], 3)[1].shape == (0, 3)


@each_dtype
@pytest.mark.parametrize(("num_tokens", "num_experts", "top_k"), [(1, 64, 6), (7, 60, 4), (3, 128, 8)])
def test_uniform_top_k_to_the_bit(num_tokens, num_experts, top_k, dtype: torch.dtype) -> None:
    logits = random(num_tokens, num_experts, dtype=dtype)
    for found, expected in zip(
        moe_routing.uniform_top_k(logits, top_k), ops.uniform_top_k.reference(logits, top_k), strict=True
    ):
        assert torch.equal(found, expected)


# Latents


@each_dtype
@pytest.mark.parametrize(("size", "block_size"), [(576, 16), (80, 5), (64, 256)])
def test_latent_write_fills_exactly_the_slots(size: int, block_size: int, dtype: torch.dtype) -> None:
    latent = random(5, 2 * size, dtype=dtype)[:, size:]
    slots = torch.tensor([3, 11, 0, 4 * block_size - 1, 2 * block_size], device=DEVICE)
    found = torch.full((4, block_size, size), 7.0, dtype=dtype, device=DEVICE)
    expected = found.clone()
    latent_write.latent_write(latent, found, slots)
    ops.latent_write.reference(latent, expected, slots)
    assert torch.equal(found, expected)
    latent_write.latent_write(latent[:0], found, slots[:0])
    assert torch.equal(found, expected)
