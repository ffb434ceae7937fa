"""Loading by a declared mapping: what is read, where it goes, and which errors name what."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from vcore.errors import CapacityError, WeightsError
from vcore.interfaces.model import BuildContext
from vcore.interfaces.weights import CheckpointReader
from vcore.layers import ColumnParallelLinear, LMHead, RMSNorm, VocabParallelEmbedding, WeightMap, load_weights
from vcore.testing.memory_checkpoint import MemoryCheckpoint

WEIGHT_MAP = WeightMap(
    stacked={"gate_up_proj": ("gate_proj", "up_proj")},
    rename={"mlp.norm.": "input_layernorm."},
    ignored=("*.inv_freq",),
)


class TinyModel(nn.Module):
    """A joined layer, a renamed norm and tied embeddings."""

    def __init__(self, context: BuildContext, tied: bool = True) -> None:
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding(context, 5, 4)
        self.mlp = nn.Module()
        self.mlp.norm = RMSNorm(context, 4, 1e-5)
        self.mlp.gate_up_proj = ColumnParallelLinear(context, 4, (3, 3), bias=True)
        self.lm_head = LMHead(context, 5, 4, tied=self.embed_tokens if tied else None)


def _tensors() -> dict[str, torch.Tensor]:
    return {
        "embed_tokens.weight": torch.randn(5, 4),
        "input_layernorm.weight": torch.randn(4),
        "mlp.gate_proj.weight": torch.randn(3, 4),
        "mlp.gate_proj.bias": torch.randn(3),
        "mlp.up_proj.weight": torch.randn(3, 4),
        "mlp.up_proj.bias": torch.randn(3),
    }


def test_parts_are_joined_and_names_replaced(build_context: Callable[..., BuildContext]):
    model, tensors = TinyModel(build_context()), _tensors()
    load_weights(model, MemoryCheckpoint(tensors), WEIGHT_MAP)
    joined = torch.cat((tensors["mlp.gate_proj.weight"], tensors["mlp.up_proj.weight"]))
    assert torch.equal(model.mlp.gate_up_proj.weight.to_dense(), joined)
    bias = torch.cat((tensors["mlp.gate_proj.bias"], tensors["mlp.up_proj.bias"]))
    assert torch.equal(model.mlp.gate_up_proj.bias, bias)
    assert torch.equal(model.mlp.norm.weight, tensors["input_layernorm.weight"])
    assert model.lm_head.weight is model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, tensors["embed_tokens.weight"])


def test_weights_are_converted_to_the_models_dtype(build_context: Callable[..., BuildContext]):
    model, tensors = TinyModel(build_context(dtype=torch.bfloat16)), _tensors()
    load_weights(model, MemoryCheckpoint(tensors), WEIGHT_MAP)
    assert torch.equal(model.embed_tokens.weight, tensors["embed_tokens.weight"].bfloat16())


def test_a_tied_head_and_ignored_buffers_may_be_stored(build_context: Callable[..., BuildContext]):
    model, tensors = TinyModel(build_context()), _tensors()
    extra = {"lm_head.weight": tensors["embed_tokens.weight"].clone(), "rotary_emb.inv_freq": torch.randn(2)}
    load_weights(model, MemoryCheckpoint(tensors | extra), WEIGHT_MAP)
    assert torch.equal(model.lm_head.weight, tensors["embed_tokens.weight"])


@pytest.mark.parametrize("shape", [(5, 4), (4, 4)])
def test_a_tied_head_that_differs_is_refused(build_context: Callable[..., BuildContext], shape: tuple[int, int]):
    """It was trained or resized: leaving it out would give other logits in silence."""
    checkpoint = MemoryCheckpoint(_tensors() | {"lm_head.weight": torch.randn(shape)})
    with pytest.raises(WeightsError, match=r"lm_head\.weight.*(which differs|checkpoint \[4, 4\])"):
        load_weights(TinyModel(build_context()), checkpoint, WEIGHT_MAP)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.bool])
def test_whole_numbers_are_no_weights(build_context: Callable[..., BuildContext], dtype: torch.dtype):
    """Quantised without a word about it in the config: their scales are not there."""
    tensors = _tensors()
    tensors["embed_tokens.weight"] = tensors["embed_tokens.weight"].to(dtype)
    with pytest.raises(WeightsError, match=r"1 of whole numbers.*: embed_tokens\.weight \("):
        load_weights(TinyModel(build_context()), MemoryCheckpoint(tensors), WEIGHT_MAP)


def test_an_untied_head_must_be_stored(build_context: Callable[..., BuildContext]):
    model = TinyModel(build_context(), tied=False)
    with pytest.raises(WeightsError, match=r"has 7 tensors. 1 missing: lm_head.weight\."):
        load_weights(model, MemoryCheckpoint(_tensors()), WEIGHT_MAP)


def test_missing_and_surplus_tensors_are_named_together(build_context: Callable[..., BuildContext]):
    tensors = _tensors()
    del tensors["mlp.up_proj.weight"], tensors["input_layernorm.weight"]
    tensors["mlp.extra.weight"] = torch.zeros(1)
    with pytest.raises(
        WeightsError,
        match=r"2 missing: input_layernorm.weight, mlp.up_proj.weight; 1 surplus: mlp.extra.weight\. Check",
    ):
        load_weights(TinyModel(build_context()), MemoryCheckpoint(tensors), WEIGHT_MAP)


def test_long_lists_are_counted_and_cut(build_context: Callable[..., BuildContext]):
    tensors = _tensors() | {f"surplus.{i}": torch.zeros(1) for i in range(11)}
    with pytest.raises(WeightsError, match=r"11 surplus: (surplus\.\d+, ){8}and 3 more\."):
        load_weights(TinyModel(build_context()), MemoryCheckpoint(tensors), WEIGHT_MAP)


def test_another_shape_is_told_before_anything_is_read(build_context: Callable[..., BuildContext]):
    model, tensors = TinyModel(build_context()), _tensors()
    model.embed_tokens.weight.fill_(7)
    tensors["mlp.up_proj.weight"] = torch.randn(4, 4)
    with pytest.raises(
        WeightsError, match=r"1 of another shape: mlp.up_proj.weight \(model \[3, 4\], checkpoint \[4, 4\]\)"
    ):
        load_weights(model, MemoryCheckpoint(tensors), WEIGHT_MAP)
    assert (model.embed_tokens.weight == 7).all()


def test_a_mapping_with_another_number_of_parts_is_refused(build_context: Callable[..., BuildContext]):
    for stacked in ({}, {"gate_up_proj": ("gate_proj", "up_proj", "down_proj")}):
        with pytest.raises(WeightsError, match=r"'gate_up_proj' from \d tensors .* has 2 parts"):
            load_weights(TinyModel(build_context()), MemoryCheckpoint(_tensors()), WeightMap(stacked=stacked))


def test_tensors_that_the_checkpoint_has_joined_already_are_read_in_pieces(build_context: Callable[..., BuildContext]):
    tensors = _tensors()
    for leaf in ("weight", "bias"):
        pieces = [tensors.pop(f"mlp.{part}.{leaf}") for part in ("gate_proj", "up_proj")]
        tensors[f"mlp.both.{leaf}"] = torch.cat(pieces)
    model = TinyModel(build_context())
    joined = WeightMap(stacked={"gate_up_proj": ("both",)}, rename=WEIGHT_MAP.rename)
    load_weights(model, MemoryCheckpoint(tensors), joined)
    assert torch.equal(model.mlp.gate_up_proj.weight.to_dense(), tensors["mlp.both.weight"])
    assert torch.equal(model.mlp.gate_up_proj.bias, tensors["mlp.both.bias"])


class SyntheticCheckpoint(CheckpointReader):
    """Answers for any name."""

    synthetic = True

    def tensors(self):
        return {}

    def read(self, name, shape, index=None):
        return torch.ones(shape)[index or ()]


def test_synthetic_weights_are_compared_with_nothing(build_context: Callable[..., BuildContext]):
    model = TinyModel(build_context())
    load_weights(model, SyntheticCheckpoint(), WEIGHT_MAP)
    assert all((weight.to_dense() == 1).all() for weight in model.parameters())


def test_a_model_is_loaded_once(build_context: Callable[..., BuildContext]):
    model = TinyModel(build_context())
    load_weights(model, MemoryCheckpoint(_tensors()), WEIGHT_MAP)
    with pytest.raises(WeightsError, match="loaded and packed already"):
        load_weights(model, MemoryCheckpoint(_tensors()), WEIGHT_MAP)


@pytest.mark.parametrize("tied", [False, True])
def test_packed_layers_compute_what_plain_ones_do(build_context: Callable[..., BuildContext], tied: bool):
    model = TinyModel(build_context(), tied)
    tensors, head = _tensors(), torch.randn(5, 4)
    load_weights(model, MemoryCheckpoint(tensors if tied else tensors | {"lm_head.weight": head}), WEIGHT_MAP)
    assert model.mlp.gate_up_proj.weight.is_mkldnn
    x = torch.randn(3, 4)
    joined, bias = model.mlp.gate_up_proj.weight.to_dense(), model.mlp.gate_up_proj.bias
    torch.testing.assert_close(model.mlp.gate_up_proj(x), x @ joined.T + bias)
    embedding = model.embed_tokens(torch.arange(5))
    torch.testing.assert_close(model.lm_head(x), x @ (embedding if tied else head).T)


def test_a_reader_that_gives_another_shape_is_blamed(build_context: Callable[..., BuildContext]):
    class BrokenCheckpoint(SyntheticCheckpoint):
        def read(self, name, shape, index=None):
            return torch.ones(2, 2)

    with pytest.raises(WeightsError, match=r"'embed_tokens.weight' gave shape \[2, 2\].*\[5, 4\].*weight loader"):
        load_weights(TinyModel(build_context()), BrokenCheckpoint(), WEIGHT_MAP)


def test_a_weight_beyond_the_memory_is_told_with_its_size(build_context: Callable[..., BuildContext]):
    with pytest.raises(CapacityError, match=r"shape \[1099511627776, 1048576\] .* memory of cpu: it takes 4294967296"):
        ColumnParallelLinear(build_context(), 2**20, 2**40)
