"""Feed-forward networks without a gate, whole and split over ranks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers.activations import ACT2FN

from vcore.errors import UnsupportedModelError
from vcore.interfaces.model import BuildContext
from vcore.layers import MLP, NormStyle, WeightMap, load_weights
from vcore.testing import MemoryCheckpoint, ThreadCollective

NO_NORMS = NormStyle(eps=1e-5, before=False)
ACTIVATIONS = ("gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh", "relu", "relu2", "silu", "swish")


def _mlp(context: BuildContext, tensors: dict[str, torch.Tensor], activation: str) -> MLP:
    mlp = MLP(context, hidden_size=6, intermediate_size=8, norms=NO_NORMS, activation=activation, bias=True)
    load_weights(mlp, MemoryCheckpoint(tensors), WeightMap())
    return mlp


def _tensors() -> dict[str, torch.Tensor]:
    shapes = {"up_proj.weight": (8, 6), "up_proj.bias": (8,), "down_proj.weight": (6, 8), "down_proj.bias": (6,)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_up_activation_down(build_context: Callable[..., BuildContext], activation: str):
    tensors, x = _tensors(), torch.randn(3, 6)
    up = ACT2FN[activation](x @ tensors["up_proj.weight"].T + tensors["up_proj.bias"])
    expected = up @ tensors["down_proj.weight"].T + tensors["down_proj.bias"]
    torch.testing.assert_close(_mlp(build_context(), tensors, activation)(x, None), (expected, x))


def test_several_ranks_give_what_one_gives(build_context: Callable[..., BuildContext]):
    tensors, x = _tensors(), torch.randn(3, 6)
    whole, _ = _mlp(build_context(), tensors, "gelu")(x, None)

    def run_rank(rank: int, collective: ThreadCollective) -> None:
        mlp = _mlp(build_context(tp_rank=rank, tp_size=2, collective=collective), tensors, "gelu")
        torch.testing.assert_close(mlp(x, None)[0], whole)

    ThreadCollective.run(2, run_rank)


@pytest.mark.parametrize("activation", ["spiral", None, [], 3])
def test_an_unknown_activation_is_named_with_those_there_are(
    build_context: Callable[..., BuildContext], activation: object
):
    with pytest.raises(UnsupportedModelError, match=r"without a gate have gelu, .*silu"):
        MLP(build_context(), hidden_size=6, intermediate_size=8, norms=NO_NORMS, activation=activation)
