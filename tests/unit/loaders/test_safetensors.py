"""Safetensors: single files, shards, slices, and every way in which files can be wrong."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from vcore_model_zoo.loaders.safetensors_loader import SafetensorsLoader

from vcore.errors import ModelError, ModelNotFoundError, WeightsError
from vcore.interfaces.weights import TensorInfo, WeightLoaderContext

Write = Callable[..., Path]


def loader(path: Path) -> SafetensorsLoader:
    return SafetensorsLoader(options=None, context=WeightLoaderContext(path=path))


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(6, 8, generator=generator),
        "b.weight": torch.randn(4, 8, generator=generator).to(torch.bfloat16),
        "c.weight": torch.randn(8, generator=generator).to(torch.float16),
        "scale": torch.tensor(2.0),
    }


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_all_tensors_are_read_from_any_number_of_files(
    write_safetensors: Write, tensors: dict[str, torch.Tensor], shards: int
) -> None:
    with loader(write_safetensors(tensors, shards=shards)).open() as reader:
        assert {name: info.shape for name, info in reader.tensors().items()} == {
            name: tuple(tensor.shape) for name, tensor in tensors.items()
        }
        assert reader.tensors()["b.weight"] == TensorInfo((4, 8), "bfloat16")
        assert not reader.synthetic
        for name, tensor in tensors.items():
            read = reader.read(name, tuple(tensor.shape))
            assert read.dtype == tensor.dtype
            assert torch.equal(read, tensor)


@pytest.mark.parametrize(
    "index", [(slice(2, 5),), (slice(None), slice(0, 4)), (slice(1, 2), slice(6, None)), (slice(0, 0),)]
)
def test_a_part_is_read(write_safetensors: Write, tensors: dict[str, torch.Tensor], index: tuple[slice, ...]) -> None:
    with loader(write_safetensors(tensors)).open() as reader:
        assert torch.equal(reader.read("a.weight", (6, 8), index), tensors["a.weight"][index])


def test_shards_without_an_index(write_safetensors: Write, tensors: dict[str, torch.Tensor]) -> None:
    with loader(write_safetensors(tensors, shards=2, index=False)).open() as reader:
        assert set(reader.tensors()) == set(tensors)


def test_one_file_of_any_name(write_safetensors: Write, tensors: dict[str, torch.Tensor]) -> None:
    path = write_safetensors(tensors)
    renamed = (path / "model.safetensors").rename(path / "weights.safetensors")
    for model in (path, renamed):
        assert loader(model).config().architectures == ("LlamaForCausalLM",)
        with loader(model).open() as reader:
            assert set(reader.tensors()) == set(tensors)


def test_an_index_as_the_path(write_safetensors: Write, tensors: dict[str, torch.Tensor]) -> None:
    path = write_safetensors(tensors, shards=2) / "model.safetensors.index.json"
    with loader(path).open() as reader:
        assert set(reader.tensors()) == set(tensors)


def test_tensors_outlive_the_reader(write_safetensors: Write, tensors: dict[str, torch.Tensor]) -> None:
    with loader(write_safetensors(tensors)).open() as reader:
        read = reader.read("a.weight", (6, 8))
    assert torch.equal(read, tensors["a.weight"])
    with pytest.raises(WeightsError, match="closed checkpoint"):
        reader.read("a.weight", (6, 8))


class TestWrongFiles:
    def test_a_missing_tensor_has_close_names(self, write_safetensors: Write, tensors: dict[str, torch.Tensor]) -> None:
        with loader(write_safetensors(tensors)).open() as reader, pytest.raises(WeightsError, match=r"a\.weight"):
            reader.read("a.weights", (6, 8))

    def test_another_shape(self, write_safetensors: Write, tensors: dict[str, torch.Tensor]) -> None:
        expected = r"shape \(6, 8\).*expects \(8, 6\)"
        with loader(write_safetensors(tensors)).open() as reader, pytest.raises(WeightsError, match=expected):
            reader.read("a.weight", (8, 6))

    @pytest.mark.parametrize("index", [True, False])
    def test_a_missing_shard_is_named(
        self, write_safetensors: Write, tensors: dict[str, torch.Tensor], index: bool
    ) -> None:
        path = write_safetensors(tensors, shards=3, index=index)
        (path / "model-00002-of-00003.safetensors").unlink()
        with pytest.raises(WeightsError, match=r"1 of 3 weight files.*model-00002-of-00003\.safetensors"):
            loader(path).open()

    @pytest.mark.parametrize("keep", [-1, 60, 9, 8, 3, 0])
    def test_a_truncated_file(self, write_safetensors: Write, tensors: dict[str, torch.Tensor], keep: int) -> None:
        file = write_safetensors(tensors) / "model.safetensors"
        whole = file.read_bytes()
        file.write_bytes(whole[:keep])
        left = len(whole) - 1 if keep < 0 else keep
        with pytest.raises(WeightsError, match=rf"model\.safetensors.*{left:,} bytes"):
            loader(file.parent).open()

    def test_the_sizes_are_told(self, write_safetensors: Write, tensors: dict[str, torch.Tensor]) -> None:
        file = write_safetensors(tensors) / "model.safetensors"
        whole = file.read_bytes()
        file.write_bytes(whole[:-7])
        with pytest.raises(WeightsError, match=rf"truncated: it has {len(whole) - 7:,} .* says {len(whole):,}"):
            loader(file.parent).open()
        file.write_bytes(whole + b"x")
        with pytest.raises(WeightsError, match="too long"):
            loader(file.parent).open()

    @pytest.mark.parametrize("header", [b"[]", b"{oops", b'{"a": {"dtype": "F32"}}', b'{"a": 3}'])
    def test_a_damaged_header(self, tmp_path: Path, header: bytes) -> None:
        (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
        with pytest.raises(WeightsError, match="damaged header"):
            loader(tmp_path).open()

    def test_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
        with pytest.raises(WeightsError, match="no safetensors file"):
            loader(tmp_path).open()

    def test_the_same_tensor_twice(self, write_safetensors: Write, tensors: dict[str, torch.Tensor]) -> None:
        path = write_safetensors(tensors, shards=2, index=False)
        one = (path / "model-00001-of-00002.safetensors").read_bytes()
        (path / "model-00002-of-00002.safetensors").write_bytes(one)
        with pytest.raises(WeightsError, match=r"in two files.*00001-of-00002.*00002-of-00002"):
            loader(path).open()

    def test_unrelated_files_without_an_index(self, write_safetensors: Write, tensors: dict[str, torch.Tensor]) -> None:
        path = write_safetensors(tensors)
        (path / "model.safetensors").rename(path / "a.safetensors")
        (path / "b.safetensors").write_bytes((path / "a.safetensors").read_bytes())
        with pytest.raises(WeightsError, match=r"a\.safetensors, b\.safetensors"):
            loader(path).open()

    @pytest.mark.parametrize(
        "text",
        ["{}", "[]", "oops", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": [], "b": "c"}}'],
    )
    def test_a_damaged_index(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "model.safetensors.index.json").write_text(text, encoding="utf-8")
        with pytest.raises(WeightsError, match=r"index\.json is damaged"):
            loader(tmp_path).open()

    def test_an_index_cannot_reach_outside(self, tmp_path: Path) -> None:
        text = json.dumps({"weight_map": {"a": "../secret.safetensors"}})
        (tmp_path / "model.safetensors.index.json").write_text(text, encoding="utf-8")
        with pytest.raises(WeightsError, match="outside its folder"):
            loader(tmp_path).open()

    @pytest.mark.parametrize(
        ("file", "remedy"),
        [("pytorch_model.bin", "pickles"), ("x.gguf", "load_format to gguf"), ("config.json", "dummy")],
    )
    def test_a_folder_without_safetensors(self, tmp_path: Path, file: str, remedy: str) -> None:
        (tmp_path / file).write_bytes(b"")
        with pytest.raises(ModelNotFoundError, match=remedy):
            loader(tmp_path).open()


class TestConfig:
    def test_a_missing_config_lists_what_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("", encoding="utf-8")
        with pytest.raises(ModelNotFoundError, match=r"no config\.json.*notes\.txt"):
            loader(tmp_path).config()

    @pytest.mark.parametrize("text", ["{", "[1]", ""])
    def test_a_damaged_config(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(ModelError, match=r"config\.json"):
            loader(tmp_path).config()

    def test_the_generation_config_is_optional(self, tmp_path: Path) -> None:
        assert loader(tmp_path).generation_config() == {}
        (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 2]}', encoding="utf-8")
        assert loader(tmp_path).generation_config() == {"eos_token_id": [1, 2]}

    def test_the_tokenizer_is_optional(self, tmp_path: Path) -> None:
        assert loader(tmp_path).tokenizer_path() is None
        (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
        assert loader(tmp_path).tokenizer_path() == tmp_path
