"""Layers split over ranks give what one rank gives; each rank reads its own slices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from vcore.errors import ConfigError
from vcore.interfaces.model import BuildContext
from vcore.layers import (
    ColumnParallelLinear,
    LMHead,
    QKVParallelLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
    WeightMap,
    load_weights,
)
from vcore.testing.memory_checkpoint import MemoryCheckpoint
from vcore.testing.thread_collective import ThreadCollective

BuildModel = Callable[[BuildContext], nn.Module]


@pytest.fixture
def run_on_ranks(build_context: Callable[..., BuildContext]):
    """Build and load a module on each rank, run it, and return the ranks' outputs."""

    def run(size: int, build: BuildModel, tensors: dict[str, torch.Tensor], x: torch.Tensor, stacked=None):
        def run_rank(rank: int, collective: ThreadCollective) -> torch.Tensor:
            context = build_context(tp_rank=rank, tp_size=size, collective=collective)
            module = build(context)
            load_weights(module, MemoryCheckpoint(tensors), WeightMap(stacked=stacked or {}))
            return module(x)

        return ThreadCollective.run(size, run_rank)

    return run


class Unused:
    """A collective that is there, and not called."""

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class TwoLinears(nn.Module):
    """A joined column-parallel layer, then a row-parallel one."""

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.gate_up = ColumnParallelLinear(context, 6, (8, 8), bias=True)
        self.down = RowParallelLinear(context, 8, 5, bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(gate * up)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_column_then_row_parallel_layers(run_on_ranks, size: int):
    tensors = {
        "gate.weight": torch.randn(8, 6),
        "gate.bias": torch.randn(8),
        "up.weight": torch.randn(8, 6),
        "up.bias": torch.randn(8),
        "down.weight": torch.randn(5, 8),
        "down.bias": torch.randn(5),
    }
    x = torch.randn(3, 6)
    gate = x @ tensors["gate.weight"].T + tensors["gate.bias"]
    up = x @ tensors["up.weight"].T + tensors["up.bias"]
    expected = (gate * up) @ tensors["down.weight"].T + tensors["down.bias"]
    for output in run_on_ranks(size, TwoLinears, tensors, x, {"gate_up": ("gate", "up")}):
        torch.testing.assert_close(output, expected)


@pytest.mark.parametrize(("size", "kv_heads_of_rank"), [(1, [[0, 1]]), (2, [[0], [1]]), (4, [[0], [0], [1], [1]])])
def test_qkv_heads_are_split_and_few_kv_heads_copied(run_on_ranks, size: int, kv_heads_of_rank: list[list[int]]):
    class Projection(nn.Module):
        def __init__(self, context: BuildContext) -> None:
            super().__init__()
            self.qkv = QKVParallelLinear(context, 6, num_heads=4, num_kv_heads=2, head_dim=3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.qkv(x)

    tensors = {f"{name}.weight": torch.randn(heads * 3, 6) for name, heads in (("q", 4), ("k", 2), ("v", 2))}
    x = torch.randn(2, 6)
    q, k, v = ((x @ tensors[f"{name}.weight"].T).unflatten(-1, (-1, 3)) for name in "qkv")
    outputs = run_on_ranks(size, Projection, tensors, x, {"qkv": ("q", "k", "v")})
    for rank, (output, kv_heads) in enumerate(zip(outputs, kv_heads_of_rank, strict=True)):
        q_of_rank = q.chunk(size, 1)[rank]
        expected = torch.cat((q_of_rank, k[:, kv_heads], v[:, kv_heads]), 1).flatten(1)
        torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("vocab_size", [8, 7, 5])
def test_the_vocabulary_is_split_and_padded(run_on_ranks, size: int, vocab_size: int):
    class TiedModel(nn.Module):
        def __init__(self, context: BuildContext) -> None:
            super().__init__()
            self.embed = VocabParallelEmbedding(context, vocab_size, 3)
            self.head = LMHead(context, vocab_size, 3, tied=self.embed)

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(input_ids))

    weight = torch.randn(vocab_size, 3)
    input_ids = torch.arange(vocab_size)
    for output in run_on_ranks(size, TiedModel, {"embed.weight": weight}, input_ids):
        torch.testing.assert_close(output, weight @ weight.T)


def test_each_rank_reads_only_its_slice(build_context: Callable[..., BuildContext]):
    class CountingCheckpoint(MemoryCheckpoint):
        num_read = 0

        def read(self, name, shape, index=None):
            tensor = super().read(name, shape, index)
            self.num_read += tensor.numel()
            return tensor

    context = build_context(tp_rank=1, tp_size=2, collective=Unused())
    checkpoint = CountingCheckpoint({"weight": torch.randn(6, 8)})
    for module in (ColumnParallelLinear(context, 8, 6), RowParallelLinear(context, 8, 6)):
        checkpoint.num_read = 0
        load_weights(module, checkpoint, WeightMap())
        assert checkpoint.num_read == 6 * 8 // 2


def test_several_ranks_without_a_collective_are_refused(build_context: Callable[..., BuildContext]):
    context = build_context(tp_size=2)
    for build in (
        lambda: RowParallelLinear(context, 4, 4),
        lambda: VocabParallelEmbedding(context, 4, 4),
        lambda: LMHead(context, 4, 4),
    ):
        with pytest.raises(ConfigError, match=r"tensor_parallel_size is 2.*no collective.*executor"):
            build()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda c: ColumnParallelLinear(c, 4, 7), "3 does not divide this model's 7 output features"),
        (lambda c: RowParallelLinear(c, 7, 4), "3 does not divide this model's 7 input features"),
        (lambda c: QKVParallelLinear(c, 4, 4, 2, 2), "3 does not divide this model's 4 attention heads"),
        (lambda c: QKVParallelLinear(c, 4, 6, 4, 2), "3 does not divide this model's 4 key-value heads"),
        (lambda c: QKVParallelLinear(c, 4, 6, 2, 2), "3 is no multiple of this model's 2 key-value heads"),
    ],
)
def test_what_cannot_be_split_is_refused_with_the_numbers(
    build_context: Callable[..., BuildContext], build: BuildModel, message: str
):
    with pytest.raises(ConfigError, match=message):
        build(build_context(tp_size=3, collective=Unused()))


def test_a_rank_that_fails_ends_the_others():
    def work(rank: int, collective: ThreadCollective) -> torch.Tensor:
        if rank == 1:
            raise KeyError("of rank 1")
        return collective.all_reduce(torch.ones(1))

    with pytest.raises(KeyError, match="of rank 1"):
        ThreadCollective.run(2, work)
