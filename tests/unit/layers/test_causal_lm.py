"""The skeleton of decoder models, with layers that are easy to follow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from vcore.errors import UnsupportedModelError
from vcore.interfaces.attention import AttentionContext
from vcore.interfaces.model import BuildContext
from vcore.layers import CausalLM, DecoderLayer, NormStyle, WeightMap
from vcore.testing import MemoryCheckpoint

CONFIG: dict[str, Any] = {"vocab_size": 5, "hidden_size": 4, "num_hidden_layers": 2}
NO_CACHE = AttentionContext([], [])


class Adds(nn.Module):
    """A sublayer that adds its number to the stream, and notes what it was given."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number
        self.given: list[tuple[Any, ...]] = []

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None, *more: Any) -> tuple[torch.Tensor, torch.Tensor]:
        self.given.append(more)
        stream = x if residual is None else x + residual
        return torch.full_like(stream, self.number), stream


class Turns(nn.Module):
    def forward(self, positions: torch.Tensor) -> list[int]:
        return positions.tolist()


class Skeleton(CausalLM):
    weight_map: ClassVar[WeightMap] = WeightMap()

    def __init__(self, context: BuildContext, rotary: nn.Module | None = None, **keywords: Any) -> None:
        def make_layer(index: int) -> DecoderLayer:
            return DecoderLayer(Adds(1.0 + index), Adds(0.25))

        super().__init__(context, make_layer=make_layer, norms=NormStyle(eps=1e-5), rotary=rotary, **keywords)


def _tensors() -> dict[str, torch.Tensor]:
    return {
        "model.embed_tokens.weight": torch.randn(5, 4),
        "model.norm.weight": torch.randn(4),
        "lm_head.weight": torch.randn(5, 4),
    }


@pytest.mark.parametrize("scale", [None, 3.0])
@pytest.mark.parametrize("cap", [None, 0.5])
def test_from_tokens_to_logits(build_context: Callable[..., BuildContext], scale: float | None, cap: float | None):
    model, tensors = Skeleton(build_context(CONFIG), embedding_scale=scale, logits_soft_cap=cap), _tensors()
    model.load_weights(MemoryCheckpoint(tensors))
    ids = torch.tensor([3, 0])
    stream = tensors["model.embed_tokens.weight"][ids] * (scale or 1.0) + 1.0 + 0.25 + 2.0 + 0.25
    normed = nn.functional.rms_norm(stream, (4,), tensors["model.norm.weight"], 1e-5)
    hidden_states = model(ids, torch.tensor([0, 1]), NO_CACHE)
    torch.testing.assert_close(hidden_states, normed)
    logits = normed @ tensors["lm_head.weight"].T
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    torch.testing.assert_close(model.compute_logits(hidden_states), logits)
    assert list(model.kv_cache_specs()) == []


def test_the_embeddings_scale_is_rounded_to_the_dtype(build_context: Callable[..., BuildContext]):
    """As models were trained: the square root of 3 is 1.734375 in bfloat16."""
    model = Skeleton(build_context(CONFIG, dtype=torch.bfloat16), embedding_scale=math.sqrt(3))
    model.load_weights(MemoryCheckpoint(_tensors()))
    seen: list[torch.Tensor] = []
    model.model.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(torch.tensor([1]), torch.tensor([0]), NO_CACHE)
    exact = model.model.embed_tokens.weight[1].float() * 1.734375
    assert torch.equal(seen[0][0], exact.to(torch.bfloat16))


def test_angles_are_looked_up_once_for_all_layers(build_context: Callable[..., BuildContext]):
    model = Skeleton(build_context(CONFIG), rotary=Turns())
    model.load_weights(MemoryCheckpoint(_tensors()))
    model(torch.tensor([3, 0]), torch.tensor([7, 1]), NO_CACHE)
    given = [layer.self_attn.given for layer in model.model.layers]
    assert given == [[([7, 1], NO_CACHE)]] * 2
    assert given[0][0][0] is given[1][0][0]
    assert [layer.mlp.given for layer in model.model.layers] == [[()]] * 2


@pytest.mark.parametrize("key", sorted(CONFIG))
@pytest.mark.parametrize("value", [0, None, [3]], ids=str)
def test_a_size_that_cannot_be_is_named(build_context: Callable[..., BuildContext], key: str, value: Any):
    with pytest.raises(UnsupportedModelError, match=f"found {key}=.*, expected a whole number above zero"):
        Skeleton(build_context(CONFIG | {key: value}))
