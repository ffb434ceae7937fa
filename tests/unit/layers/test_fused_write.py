"""An attention block that writes the cache in the kernel of norms and rotation, against one that does all by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from vcore.interfaces.attention import AttentionContext, AttentionLayer, GroupContext
from vcore.interfaces.model import BuildContext
from vcore.layers import AttentionBlock, NormStyle, RotaryEmbedding, attention, attention_block
from vcore.testing import build_attention_metadata


class KeepingLayer(AttentionLayer):
    """Attention that gives the queries back, and keeps the keys and values."""

    def forward(self, q, k, v, layer_cache, plan, out=None):
        self.kv = k.clone(), v.clone()
        return q.clone()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which of the two ops wrote the cache."""
    names: list[str] = []
    for module, name in ((attention, "kv_write"), (attention_block, "qk_norm_rope_write_")):
        function = getattr(module, name)

        def counted(*arguments: Any, _name: str = name, _function: Any = function) -> None:
            names.append(_name)
            _function(*arguments)

        monkeypatch.setattr(module, name, counted)
    return names


def run(context: BuildContext, positions: bool, **fields: Any) -> tuple[torch.Tensor, ...]:
    """What a block adds, the cache, and the keys and values that the backend is given."""
    kernel = KeepingLayer()
    context.attention.build_layer = lambda spec: kernel
    torch.manual_seed(0)
    block = AttentionBlock(context, 0, hidden_size=12, num_heads=4, num_kv_heads=2, head_dim=8, **fields)
    for weight in block.parameters():
        weight.copy_(torch.randn_like(weight) * 0.3)
    metadata = build_attention_metadata([3], [3], [[1]], block_size=4)
    metadata.slot_mapping = torch.tensor([5, 4, 7])
    cache = torch.zeros(3, 2, 4, 2, 8)
    rotation = RotaryEmbedding(context, 8)(torch.tensor([1, 0, 7])) if positions else None
    attn = AttentionContext([GroupContext(None, metadata)], [cache])
    added, _ = block(torch.randn(3, 12), None, rotation, attn)
    return added, cache, *kernel.kv


@pytest.mark.parametrize("qk_norm", [None, "head"])
@pytest.mark.parametrize("unit_offset", [False, True])
def test_it_computes_the_same(
    build_context: Callable[..., BuildContext], calls: list[str], qk_norm: str | None, unit_offset: bool
) -> None:
    context = build_context({"max_position_embeddings": 32, "partial_rotary_factor": 1.0})
    norms = NormStyle(eps=1e-3, unit_offset=unit_offset)
    expected = run(context, True, norms=norms, qk_norm=qk_norm)
    found = run(replace(context, fused_write=True), True, norms=norms, qk_norm=qk_norm)
    assert calls == ["kv_write", "qk_norm_rope_write_"]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    assert found[1][1].any()


@pytest.mark.parametrize(
    ("positions", "qk_norm", "kind", "fuses"),
    [
        (False, None, "rms", frozenset()),
        (True, "all_heads", "rms", frozenset()),
        (True, "head", "layer", frozenset()),
        (True, None, "rms", frozenset({"kv_write"})),
    ],
    ids=["no positions", "norms over all heads", "norms that subtract the mean", "the backend writes"],
)
def test_what_it_cannot_do_is_done_as_ever(
    build_context: Callable[..., BuildContext],
    calls: list[str],
    positions: bool,
    qk_norm: str | None,
    kind: str,
    fuses: frozenset[str],
) -> None:
    context = build_context({"max_position_embeddings": 32}, attention_fuses=fuses)
    arguments = {"norms": NormStyle(eps=1e-3, kind=kind), "qk_norm": qk_norm}
    expected = run(context, positions, **arguments)
    found = run(replace(context, fused_write=True), positions, **arguments)
    assert calls == ([] if fuses else ["kv_write", "kv_write"])
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
