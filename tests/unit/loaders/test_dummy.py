"""Made-up weights: the same for the same seed and name, whatever is read, in whatever order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vcore_model_zoo.loaders.dummy_loader import DummyLoader, DummyReader

from vcore.errors import ModelNotFoundError, WeightsError
from vcore.interfaces.weights import WeightLoaderContext

READER = DummyReader(seed=0, dtype=torch.float32)


def test_it_needs_the_config_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16"}), encoding="utf-8")
    loader = DummyLoader(options=None, context=WeightLoaderContext(path=tmp_path, seed=3))
    assert loader.config()["torch_dtype"] == "bfloat16"
    assert loader.tokenizer_path() is None
    assert loader.generation_config() == {}
    with loader.open() as reader:
        assert reader.synthetic
        assert reader.tensors() == {}
        assert reader.read("any.weight", (4, 4)).dtype == torch.bfloat16


def test_without_a_config_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        DummyLoader(options=None, context=WeightLoaderContext(path=tmp_path)).open()


def test_the_order_of_reading_does_not_matter() -> None:
    names = ["a", "b", "c"]
    forwards = [DummyReader(0, torch.float32).read(name, (5, 7)) for name in names]
    reader = DummyReader(0, torch.float32)
    backwards = [reader.read(name, (5, 7)) for name in reversed(names)][::-1]
    assert all(map(torch.equal, forwards, backwards))
    assert not torch.equal(forwards[0], forwards[1])


def test_another_seed_gives_other_weights() -> None:
    other = DummyReader(1, torch.float32)
    assert not torch.equal(READER.read("a", (5, 7)), other.read("a", (5, 7)))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), shape=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple))
def test_a_part_is_a_part_of_the_whole(data: st.DataObject, shape: tuple[int, ...]) -> None:
    index = data.draw(st.tuples(*(st.slices(size) for size in shape[: data.draw(st.integers(1, len(shape)))])))
    index = tuple(part if (part.step or 1) > 0 else slice(part.start, part.stop) for part in index)
    assert torch.equal(READER.read("x.weight", shape, index), READER.read("x.weight", shape)[index])


def test_a_part_across_the_end_of_the_tile() -> None:
    shape = (3000, 512)  # longer than the tile
    whole = READER.read("embed.weight", shape)
    assert torch.equal(READER.read("embed.weight", shape, (slice(1990, 2100),)), whole[1990:2100])


def test_no_two_rows_are_equal() -> None:
    rows = READER.read("embed.weight", (4096, 256))  # as many numbers as the tile has
    assert len(torch.unique(rows[:, :4], dim=0)) == 4096


def test_activations_stay_finite_and_alive() -> None:
    weight = READER.read("mlp.up_proj.weight", (1024, 1024))
    assert 0.018 < weight.std().item() < 0.022
    assert abs(weight.mean().item()) < 1e-3


def test_norms_are_ones_and_biases_zeros() -> None:
    assert torch.equal(READER.read("model.norm.weight", (8,)), torch.ones(8))
    assert torch.equal(READER.read("q_proj.bias", (8,)), torch.zeros(8))
    assert torch.equal(READER.read("model.norm.weight", (8,), (slice(2, 4),)), torch.ones(2))
    assert READER.read("scale", ()).shape == ()


def test_a_nonsensical_shape_is_refused() -> None:
    with pytest.raises(WeightsError, match="negative"):
        READER.read("a", (-1, 4))


@pytest.mark.parametrize("index", [None, (slice(1, 3), slice(0, 2))])
def test_filling_a_tensor_is_reading_into_it(index: tuple[slice, ...] | None) -> None:
    expected = READER.read("x.weight", (4, 3), index)
    found = torch.empty(expected.shape, dtype=torch.bfloat16)
    READER.read_into(found, "x.weight", (4, 3), index)
    assert torch.equal(found, expected.bfloat16())
