"""`Attention` and the blocks: what is asked of the backend, what is written, what is returned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from vcore.engine.outline import RecordingAttention
from vcore.errors import PluginBrokenError
from vcore.interfaces.attention import AttentionContext, GroupContext, LayerSpec
from vcore.interfaces.model import BuildContext
from vcore.kv_cache.spec import FullAttentionSpec, SlidingWindowSpec
from vcore.layers import (
    Attention,
    AttentionBlock,
    GatedMLP,
    NormStyle,
    RMSNorm,
    RotaryEmbedding,
    collect_kv_cache_specs,
)
from vcore.testing import build_attention_metadata

SPEC = LayerSpec(num_heads=4, num_kv_heads=2, head_dim=8, scale=0.5)


def _attn(num_layers: int = 1) -> AttentionContext:
    caches = [torch.zeros(3, 2, 4, 2, 8) for _ in range(num_layers)]
    metadata = build_attention_metadata([2], [2], [[1]], block_size=4)
    metadata.slot_mapping = torch.tensor([5, 4])
    return AttentionContext([GroupContext(None, metadata)] * num_layers, caches)


@pytest.mark.parametrize("fuses", [frozenset(), frozenset({"kv_write"})])
def test_the_cache_is_written_unless_the_backend_does(
    build_context: Callable[..., BuildContext], fuses: frozenset[str]
):
    attention = Attention(build_context(attention_fuses=fuses), 1, SPEC)
    k, v, attn = torch.randn(2, 2, 8), torch.randn(2, 2, 8), _attn(2)
    attention(torch.randn(2, 4, 8), k, v, attn)
    assert not attn.layer_caches[0].any()
    if fuses:
        assert not attn.layer_caches[1].any()
    else:
        assert torch.equal(attn.layer_caches[1][1, 0, :2], k.flip(0))
        assert torch.equal(attn.layer_caches[1][1, 1, :2], v.flip(0))


def test_a_backend_that_fuses_more_than_it_can_be_given_is_refused(build_context: Callable[..., BuildContext]):
    context = build_context(attention_fuses=frozenset({"rope", "qk_norm", "kv_write"}))
    with pytest.raises(PluginBrokenError, match=r"the attention backend fuses qk_norm, rope, but .*attention.backend"):
        Attention(context, 0, SPEC)


@pytest.mark.parametrize(("window", "kept"), [(63, 63), (64, None), (4096, None), (None, None)])
def test_a_window_that_no_request_outgrows_is_none(
    build_context: Callable[..., BuildContext], window: int | None, kept: int | None
):
    """Requests have up to 64 tokens, of which the last sees 64."""
    context = build_context(max_model_len=64, attention=RecordingAttention())
    attention = Attention(context, 0, replace(SPEC, sliding_window=window))
    assert context.attention.layers == [replace(SPEC, sliding_window=kept)]
    assert attention.kv_cache_spec.window == kept
    assert isinstance(attention.kv_cache_spec, FullAttentionSpec if kept is None else SlidingWindowSpec)


def test_cache_specs_stand_in_the_order_of_the_layers(build_context: Callable[..., BuildContext]):
    context = build_context(dtype=torch.bfloat16)
    narrow = LayerSpec(num_heads=1, num_kv_heads=1, head_dim=8, scale=1.0)
    model = nn.ModuleList([Attention(context, 1, SPEC), Attention(context, 0, narrow)])
    assert collect_kv_cache_specs(model) == [
        FullAttentionSpec(dtype=torch.bfloat16, num_kv_heads=1, head_dim=8),
        FullAttentionSpec(dtype=torch.bfloat16, num_kv_heads=2, head_dim=8),
    ]


def test_block_offsets_are_divided_once_a_step():
    group = _attn().layer_groups[0]
    blocks, offsets = group.block_offsets(4)
    assert blocks.tolist() == [1, 1]
    assert offsets.tolist() == [1, 0]
    assert group.block_offsets(4) is group.block_offsets(4)
    assert group.block_offsets(2)[0].tolist() == [2, 2]


def _randomise(module: nn.Module) -> None:
    for weight in module.parameters():
        weight.copy_(torch.randn_like(weight) * 0.3)


@pytest.mark.parametrize("with_residual", [False, True])
def test_a_block_computes_from_the_norm_to_what_it_adds(
    build_context: Callable[..., BuildContext], with_residual: bool
):
    context = build_context({"max_position_embeddings": 32})
    block = AttentionBlock(
        context,
        0,
        hidden_size=12,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        norms=NormStyle(eps=1e-5),
        soft_cap=3.0,
        scale=0.7,
    )
    _randomise(block)
    assert context.attention.specs == [LayerSpec(num_heads=4, num_kv_heads=2, head_dim=8, scale=0.7, soft_cap=3.0)]
    x, residual = torch.randn(2, 12), torch.randn(2, 12) if with_residual else None
    rotation = RotaryEmbedding(context, 8)(torch.tensor([1, 0]))
    added, stream = block(x, residual, rotation, _attn())
    torch.testing.assert_close(stream, x if residual is None else x + residual)
    normed, _ = block.norm(stream)
    q = block.qkv_proj(normed)[:, :32].unflatten(-1, (4, 8))
    rotation.apply_(q)  # the backend of this test answers with the queries
    torch.testing.assert_close(added, q.flatten(1) @ block.o_proj.weight.T)


def test_a_gated_mlp_computes_from_the_norm_to_what_it_adds(build_context: Callable[..., BuildContext]):
    mlp = GatedMLP(build_context(), hidden_size=6, intermediate_size=10, norms=NormStyle(eps=1e-5), bias=True)
    _randomise(mlp)
    x, residual = torch.randn(3, 6), torch.randn(3, 6)
    added, stream = mlp(x, residual)
    torch.testing.assert_close(stream, x + residual)
    gate, up = mlp.gate_up_proj(mlp.norm(stream)[0]).chunk(2, -1)
    torch.testing.assert_close(added, nn.functional.silu(gate) * up @ mlp.down_proj.weight.T + mlp.down_proj.bias)


def test_a_norm_without_a_residual_hands_its_input_on(build_context: Callable[..., BuildContext]):
    norm = RMSNorm(build_context(), 4, 1e-5)
    norm.weight.fill_(1)
    x = torch.randn(2, 4)
    normed, stream = norm(x)
    assert stream is x
    torch.testing.assert_close(normed.square().mean(-1), torch.ones(2), rtol=1e-3, atol=0)
