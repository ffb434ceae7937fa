"""For which numbers of tokens segments are recorded."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import BuildContext
from vcore.kv_cache.spec import FullAttentionSpec
from vcore.layers import FusedMoE, SoftmaxRouting
from vcore.layers.embedding import VocabParallelEmbedding
from vcore.runner.segment_sizes import segment_sizes, worthwhile_tokens

Make = Callable[..., Any]


def test_sizes_end_with_the_largest_and_pad_little() -> None:
    assert segment_sizes(0) == ()
    assert segment_sizes(5) == (5,)
    assert segment_sizes(32) == (8, 16, 32)
    for largest in (1152, 2048, 8192, 20_000):
        sizes = segment_sizes(largest)
        assert sizes[-1] == largest
        assert sorted(set(sizes)) == list(sizes)
        assert all(b <= 2 * a for a, b in itertools.pairwise(sizes))
        assert all(b - a <= max(128, a / 8) for a, b in itertools.pairwise(sizes) if a >= 96)


class Layers(nn.Module):
    """Says how many layers it has, and has the weights that it is given."""

    def __init__(self, num_layers: int, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self._specs = [FullAttentionSpec(dtype=torch.float32, num_kv_heads=1, head_dim=1)] * num_layers

    def kv_cache_specs(self) -> Any:
        return self._specs


def weights(count: int) -> nn.Module:
    return nn.Linear(count, 1, bias=False, device="meta")


@pytest.fixture
def context() -> BuildContext:
    return BuildContext(
        config=HFConfig({}),
        dtype=torch.float32,
        device=torch.device("meta"),
        attention=None,  # type: ignore[arg-type]  # no layer here attends
        max_model_len=8,
        tp_rank=0,
        tp_size=1,
    )


def test_a_token_is_worth_what_its_weights_take(context: BuildContext) -> None:
    layers = 32 * 218_000_000
    assert worthwhile_tokens(Layers(32, weights(layers))) == 1152  # the size of Llama-3.1-8B
    assert worthwhile_tokens(Layers(28, weights(28 * 15_700_000))) > 8192  # of Qwen3-0.6B
    embedding = VocabParallelEmbedding(context, 1000, 500)
    with_embedding = Layers(2, weights(2 * 50_000_000), embedding)
    assert worthwhile_tokens(with_embedding) == worthwhile_tokens(Layers(2, weights(2 * 50_000_000)))
    assert worthwhile_tokens(Layers(0)) > 8192


def test_experts_count_as_far_as_a_token_meets_them(context: BuildContext) -> None:
    moe = FusedMoE(context, num_experts=64, hidden_size=2048, intermediate_size=1408, routing=SoftmaxRouting(6))
    active = 6 * 3 * 2048 * 1408
    assert worthwhile_tokens(Layers(1, moe)) == worthwhile_tokens(Layers(1, weights(active)))
