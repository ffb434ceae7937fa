"""What every weight loader must keep to, whatever its format. A new one needs a case in `CASES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name

import gguf
import pytest
import torch
from safetensors.torch import save_file
from vcore_model_zoo.loaders import plugin

from vcore.errors import ModelError, WeightsError
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.weights import CheckpointReader, WeightLoader, WeightLoaderContext
from vcore.plugins.specs import WeightLoaderSpec

SPECS = {spec.name: spec for spec in plugin.vcore_weight_loaders()}
HIDDEN, VOCAB = 32, 16
CONFIG = '{"architectures": ["LlamaForCausalLM"], "hidden_size": 32, "vocab_size": 16, "torch_dtype": "float32"}'


def reference() -> dict[str, torch.Tensor]:
    """A model without layers."""
    generator = torch.Generator().manual_seed(0)
    return {
        "model.embed_tokens.weight": torch.randn(VOCAB, HIDDEN, generator=generator),
        "model.norm.weight": torch.randn(HIDDEN, generator=generator),
        "lm_head.weight": torch.randn(VOCAB, HIDDEN, generator=generator),
    }


def write_safetensors(folder: Path) -> Path:
    (folder / "config.json").write_text(CONFIG, encoding="utf-8")
    save_file(reference(), folder / "model.safetensors")
    return folder


def write_config(folder: Path) -> Path:
    (folder / "config.json").write_text(CONFIG, encoding="utf-8")
    return folder


def write_gguf(folder: Path) -> Path:
    writer = gguf.GGUFWriter(str(folder / "model.gguf"), "llama")
    writer.add_block_count(0)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    names = ("token_embd.weight", "output_norm.weight", "output.weight")
    for name, tensor in zip(names, reference().values(), strict=True):
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


@dataclass(frozen=True)
class Case:
    """A loader and a model in its format."""

    loader: str
    write: Callable[[Path], Path]


CASES = [Case("safetensors", write_safetensors), Case("gguf", write_gguf), Case("dummy", write_config)]


@pytest.fixture(params=CASES, ids=lambda case: case.loader)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


def build(spec: WeightLoaderSpec, path: Path) -> WeightLoader:
    assert isinstance(spec.load, str)
    loader = resolve_name(spec.load)(options=None, context=WeightLoaderContext(path=path, seed=5))
    assert isinstance(loader, WeightLoader)
    return loader


@pytest.fixture
def loader(case: Case, tmp_path: Path) -> WeightLoader:
    return build(SPECS[case.loader], case.write(tmp_path))


def names_of(reader: CheckpointReader) -> dict[str, tuple[int, ...]]:
    """Names and shapes to read: those that the reader knows, or the reference's for one that makes weights up."""
    known = {name: info.shape for name, info in reader.tensors().items()}
    return known or {name: tuple(tensor.shape) for name, tensor in reference().items()}


def test_every_loader_has_a_case() -> None:
    assert {case.loader for case in CASES} == set(SPECS)


def test_nothing_is_read_before_it_is_asked_for(case: Case, tmp_path: Path) -> None:
    loader = build(SPECS[case.loader], tmp_path / "absent")
    with pytest.raises(ModelError):
        loader.config()
    with pytest.raises(ModelError):
        loader.open()


def test_the_configuration_is_hugging_faces(loader: WeightLoader) -> None:
    config = loader.config()
    assert isinstance(config, HFConfig)
    assert config.architectures == ("LlamaForCausalLM",)
    assert (config.hidden_size, config.vocab_size) == (HIDDEN, VOCAB)
    assert loader.config().to_dict() == config.to_dict()


def test_the_checkpoints_names_and_shapes(loader: WeightLoader) -> None:
    with loader.open() as reader:
        expected = {name: tuple(tensor.shape) for name, tensor in reference().items()}
        assert {name: info.shape for name, info in reader.tensors().items()} == ({} if reader.synthetic else expected)


def test_tensors_are_on_the_cpu_floating_and_of_the_stated_shape(loader: WeightLoader) -> None:
    with loader.open() as reader:
        for name, shape in names_of(reader).items():
            tensor = reader.read(name, shape)
            assert tensor.device.type == "cpu"
            assert tensor.is_floating_point()
            assert tuple(tensor.shape) == shape
            if not reader.synthetic:
                assert torch.equal(tensor, reference()[name])


def test_reading_is_repeatable_in_any_order_and_from_any_reader(loader: WeightLoader) -> None:
    with loader.open() as first, loader.open() as second:
        shapes = names_of(first)
        forwards = {name: first.read(name, shapes[name]) for name in shapes}
        backwards = {name: second.read(name, shapes[name]) for name in reversed(shapes)}
        assert all(torch.equal(forwards[name], backwards[name]) for name in shapes)


@pytest.mark.parametrize("index", [(slice(4, 12),), (slice(None), slice(0, 16)), (slice(3, 9), slice(8, 24))])
def test_a_part_is_a_part_of_the_whole(loader: WeightLoader, index: tuple[slice, ...]) -> None:
    with loader.open() as reader:
        for name, shape in names_of(reader).items():
            if len(shape) == 2:
                assert torch.equal(reader.read(name, shape, index), reader.read(name, shape)[index])


def test_another_name_or_shape_is_an_error_unless_weights_are_made_up(loader: WeightLoader) -> None:
    with loader.open() as reader:
        if reader.synthetic:
            assert reader.read("anything.weight", (3, 4)).shape == (3, 4)
            return
        with pytest.raises(WeightsError, match=r"model\.norms\.weight"):
            reader.read("model.norms.weight", (HIDDEN,))
        with pytest.raises(WeightsError, match=r"\(32,\).*\(33,\)"):
            reader.read("model.norm.weight", (HIDDEN + 1,))


def test_what_was_read_outlives_the_reader(loader: WeightLoader) -> None:
    with loader.open() as reader:
        shapes = names_of(reader)
        tensors = {name: reader.read(name, shape) for name, shape in shapes.items()}
        copies = {name: tensor.clone() for name, tensor in tensors.items()}
    assert all(torch.equal(tensors[name], copies[name]) for name in shapes)


def test_tokenizer_and_generation_config_are_optional(loader: WeightLoader) -> None:
    assert loader.tokenizer_path() is None
    assert isinstance(loader.generation_config(), dict)
