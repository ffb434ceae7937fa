"""GGUF: values, slices, names and configuration; and every way in which a file can be wrong."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from vcore_model_zoo.loaders.gguf_architectures import ARCHITECTURES
from vcore_model_zoo.loaders.gguf_header import read_gguf_header
from vcore_model_zoo.loaders.gguf_loader import GGUFLoader
from vcore_model_zoo.loaders.options import GGUFOptions

from vcore.engine.resolve.pooling import resolve_pooling
from vcore.errors import ModelNotFoundError, UnsupportedModelError, WeightsError
from vcore.interfaces.weights import CheckpointReader, WeightLoaderContext

Kind = gguf.GGMLQuantizationType
WriteGGUF = Callable[..., Path]
Tensors = dict[str, np.ndarray[Any, Any]]


def loader(path: Path, *, copy: bool = False) -> GGUFLoader:
    return GGUFLoader(options=GGUFOptions(converted_copy=copy), context=WeightLoaderContext(path=path))


def assert_holds(reader: CheckpointReader, tensors: Mapping[str, np.ndarray[Any, Any]], tolerance: float) -> None:
    assert set(reader.tensors()) == set(tensors)
    for name, expected in tensors.items():
        read = reader.read(name, expected.shape)
        assert read.dtype == torch.float32
        torch.testing.assert_close(read, torch.from_numpy(expected), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [(Kind.F32, 0.0), (Kind.F16, 2e-3), (Kind.BF16, 2e-2), (Kind.Q8_0, 3e-2), (Kind.Q4_1, 0.3), (Kind.Q4_0, 0.5)],
)
def test_tensors_come_back_under_their_own_names(
    write_gguf: WriteGGUF, tiny_tensors: Tensors, kind: Kind, tolerance: float
) -> None:
    with loader(write_gguf(tiny_tensors, kind=kind)).open() as reader:
        assert_holds(reader, tiny_tensors, tolerance)
        assert reader.tensors()["model.layers.0.mlp.up_proj.weight"].dtype == kind.name
        assert reader.tensors()["model.norm.weight"].dtype == "F32"


@pytest.mark.parametrize("kind", [Kind.F32, Kind.Q4_1])
@pytest.mark.parametrize("name", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.down_proj"])
@pytest.mark.parametrize("index", [(slice(8, 24),), (slice(None), slice(5, 9)), (slice(3, 4), slice(0, 64, 2))])
def test_a_part_is_a_part_of_the_whole(
    write_gguf: WriteGGUF, tiny_tensors: Tensors, kind: Kind, name: str, index: tuple[slice, ...]
) -> None:
    name = f"model.layers.1.{name}.weight"
    shape = tiny_tensors[name].shape
    with loader(write_gguf(tiny_tensors, kind=kind)).open() as reader:
        assert torch.equal(reader.read(name, shape, index), reader.read(name, shape)[index])


def test_biases_of_permuted_tensors_are_put_in_order(write_gguf: WriteGGUF, tiny_tensors: Tensors) -> None:
    bias = np.arange(64, dtype=np.float32)
    tensors = {**tiny_tensors, "model.layers.0.self_attn.q_proj.bias": bias}
    loaded = loader(write_gguf(tensors))
    assert loaded.config()["attention_bias"] is True
    with loaded.open() as reader:
        assert torch.equal(reader.read("model.layers.0.self_attn.q_proj.bias", (64,)), torch.from_numpy(bias))


def test_the_configuration_is_in_hugging_faces_terms(write_gguf: WriteGGUF, tiny_tensors: Tensors) -> None:
    loaded = loader(write_gguf(tiny_tensors))
    config = loaded.config()
    assert config.architectures == ("LlamaForCausalLM",)
    expected = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 128,
        "vocab_size": 32,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    assert {key: config[key] for key in expected} == expected
    assert "rope_scaling" not in config
    assert loaded.generation_config() == {"bos_token_id": 1, "eos_token_id": [2, 3]}


def test_an_output_matrix_of_its_own_is_not_tied(write_gguf: WriteGGUF, untied_tensors: Tensors) -> None:
    loaded = loader(write_gguf(untied_tensors))
    assert loaded.config()["tie_word_embeddings"] is False
    with loaded.open() as reader:
        assert "lm_head.weight" in reader.tensors()


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"rope.scaling.type": "none"}, None),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        (
            {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 8.0,
                "rope.scaling.original_context_length": 4096,
            },
            {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 4096},
        ),
    ],
)
def test_rotary_scaling(
    write_gguf: WriteGGUF, tiny_tensors: Tensors, metadata: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    assert loader(write_gguf(tiny_tensors, metadata=metadata)).config().to_dict().get("rope_scaling") == expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, {}),
        ({"pooling_type": 0}, {"embedding_pooling": "none"}),
        ({"pooling_type": 1}, {"embedding_pooling": "mean"}),
        ({"pooling_type": 2}, {"embedding_pooling": "cls"}),
        ({"pooling_type": 3, "attention.causal": True}, {"embedding_pooling": "lasttoken"}),
        ({"pooling_type": 9}, {"embedding_pooling": "pooling_type 9"}),
        ({"attention.causal": False}, {"is_causal": False}),
    ],
)
def test_what_it_says_of_embeddings(
    write_gguf: WriteGGUF, tiny_tensors: Tensors, metadata: dict[str, Any], expected: dict[str, Any]
) -> None:
    path = write_gguf(tiny_tensors, metadata=metadata)
    for copy in (False, True):
        made = loader(path, copy=copy)
        if copy:
            made.open().close()
        config = made.config().to_dict()
        assert {key: config[key] for key in ("embedding_pooling", "is_causal") if key in config} == expected


def test_a_file_for_embeddings_is_resolved_as_it_says(write_gguf: WriteGGUF, tiny_tensors: Tensors) -> None:
    path = write_gguf(tiny_tensors, metadata={"pooling_type": 1})
    pooling, decision = resolve_pooling("auto", path, loader(path).config())
    assert (pooling.mode, pooling.size) == ("mean", 64)
    assert decision is not None
    assert decision.value == "mean"
    both = write_gguf(tiny_tensors, metadata={"pooling_type": 1, "attention.causal": False}, name="both.gguf")
    assert resolve_pooling("auto", both, loader(both).config())[0].mode is None


def llama3_factors(factor: float, theta: float, head_dim: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """As transformers computes them: the unscaled frequencies over the scaled ones."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(
        hidden_size=head_dim, num_attention_heads=1, max_position_embeddings=131072, rope_parameters=scaling
    )
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1.0 / theta ** (torch.arange(0, head_dim, 2).float() / head_dim)
    return (plain / scaled).numpy()


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_scaling_is_recovered_from_its_factors(
    write_gguf: WriteGGUF, tiny_tensors: Tensors, factor: float
) -> None:
    extra = {"rope_freqs.weight": llama3_factors(factor, 500000.0, 16)}
    loaded = loader(write_gguf(tiny_tensors, metadata={"rope.freq_base": 500000.0}, extra=extra))
    assert loaded.config().to_dict()["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    with loaded.open() as reader:
        assert "rope_freqs.weight" not in reader.tensors()


def test_a_tensor_without_a_place_keeps_its_name(write_gguf: WriteGGUF, tiny_tensors: Tensors) -> None:
    extra = {"blk.0.attn_sinks.weight": np.zeros(4, dtype=np.float32), "more.weight": np.zeros(4, dtype=np.float32)}
    with loader(write_gguf(tiny_tensors, extra=extra)).open() as reader:
        assert set(reader.tensors()) - set(tiny_tensors) == set(extra)


def test_a_missing_tensor_and_another_shape(write_gguf: WriteGGUF, tiny_tensors: Tensors) -> None:
    with loader(write_gguf(tiny_tensors)).open() as reader:
        with pytest.raises(WeightsError, match=r"no tensor 'model\.norms\.weight'.*model\.norm\.weight"):
            reader.read("model.norms.weight", (64,))
        with pytest.raises(WeightsError, match=r"shape \(64,\).*expects \(65,\)"):
            reader.read("model.norm.weight", (65,))
    with pytest.raises(WeightsError, match="closed"):
        reader.read("model.norm.weight", (64,))


class TestWhichFile:
    def test_the_only_file_of_a_folder(self, write_gguf: WriteGGUF, tiny_tensors: Tensors) -> None:
        path = write_gguf(tiny_tensors)
        assert loader(path.parent).config().to_dict() == loader(path).config().to_dict()

    def test_none(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFoundError, match=r"no \.gguf file"):
            loader(tmp_path).config()

    def test_several(self, write_gguf: WriteGGUF, tiny_tensors: Tensors) -> None:
        folder = write_gguf(tiny_tensors).parent
        write_gguf(tiny_tensors, name="other.gguf")
        with pytest.raises(ModelNotFoundError, match=r"2 \.gguf files: other\.gguf, tiny\.gguf"):
            loader(folder).config()

    def test_pieces(self, tmp_path: Path) -> None:
        for number in (1, 2):
            (tmp_path / f"m-0000{number}-of-00002.gguf").write_bytes(b"")
        with pytest.raises(UnsupportedModelError, match="llama-gguf-split --merge"):
            loader(tmp_path).config()


class TestUnsupported:
    def test_another_architecture(self, write_gguf: WriteGGUF, tiny_tensors: Tensors) -> None:
        path = write_gguf(tiny_tensors, architecture="mamba")
        with pytest.raises(UnsupportedModelError, match=r"'mamba'.*vcore reads gemma.*llama.*safetensors") as caught:
            loader(path).config()
        assert all(name in str(caught.value) for name in ARCHITECTURES)

    @pytest.mark.parametrize(
        ("metadata", "what"),
        [
            ({"attention.head_count_kv": [2, 4]}, r"head_count_kv differs by layer \(\[2, 4\]\)"),
            ({"rope.dimension_count": 8}, r"rope\.dimension_count is 8.*head dimension, 16"),
            ({"attention.value_length": 32}, r"value_length is 32"),
            ({"rope.scaling.type": "longrope"}, r"'longrope'.*none, linear and yarn"),
        ],
    )
    def test_what_the_architecture_does_not_provide_for(
        self, write_gguf: WriteGGUF, tiny_tensors: Tensors, metadata: dict[str, Any], what: str
    ) -> None:
        with pytest.raises(UnsupportedModelError, match=what):
            loader(write_gguf(tiny_tensors, metadata=metadata)).config()

    def test_unknown_rotary_factors(self, write_gguf: WriteGGUF, tiny_tensors: Tensors) -> None:
        factors = llama3_factors(8.0, 10000.0, 16)
        factors[3] *= 1.1
        with pytest.raises(UnsupportedModelError, match="frequency factors"):
            loader(write_gguf(tiny_tensors, extra={"rope_freqs.weight": factors})).config()

    def test_a_type_that_cannot_be_dequantised(self, write_gguf: WriteGGUF, tiny_tensors: Tensors) -> None:
        extra = {"ints.weight": np.zeros(4, dtype=np.int32)}
        expected = r"'ints\.weight'.*I32.*cannot dequantise"
        reader = loader(write_gguf(tiny_tensors, extra=extra)).open()
        with reader, pytest.raises(UnsupportedModelError, match=expected):
            reader.read("ints.weight", (4,))

    @pytest.mark.parametrize(("version", "what"), [(1, "version 1"), (struct.unpack(">I", b"\3\0\0\0")[0], "endian")])
    def test_versions_and_byte_orders(self, tmp_path: Path, version: int, what: str) -> None:
        path = tmp_path / "x.gguf"
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", version, 0, 0))
        with pytest.raises(UnsupportedModelError, match=what if what != "endian" else "version"):
            loader(path).config()


class TestDamaged:
    @pytest.mark.parametrize("fraction", [0.0, 0.001, 0.01, 0.02, 0.05, 0.5, 0.99])
    def test_a_truncated_file(self, write_gguf: WriteGGUF, tiny_tensors: Tensors, fraction: float) -> None:
        path = write_gguf(tiny_tensors)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * fraction)])
        with pytest.raises(WeightsError, match=rf"tiny\.gguf.*{int(len(whole) * fraction):,} bytes"):
            loader(path).config()

    def test_the_sizes_are_told(self, write_gguf: WriteGGUF, tiny_tensors: Tensors) -> None:
        path = write_gguf(tiny_tensors)
        whole = path.read_bytes()
        read_gguf_header(path)
        path.write_bytes(whole[:-1000])
        with pytest.raises(WeightsError, match=rf"truncated: it has {len(whole) - 1000:,} bytes.*at least") as caught:
            read_gguf_header(path)
        expected = int(str(caught.value).split("at least ")[1].split(". ")[0].replace(",", ""))
        assert len(whole) - 32 < expected <= len(whole)  # the end may be padded

    def test_every_cut_of_the_header(self, write_gguf: WriteGGUF, tiny_tensors: Tensors) -> None:
        path = write_gguf(tiny_tensors)
        whole = path.read_bytes()
        for end in range(0, 3000, 37):
            path.write_bytes(whole[:end])
            with pytest.raises(WeightsError, match=rf"{end:,} bytes"):
                read_gguf_header(path)

    def test_something_else(self, tmp_path: Path) -> None:
        path = tmp_path / "x.gguf"
        path.write_bytes(b"<!DOCTYPE html>" * 10)
        with pytest.raises(WeightsError, match=r"no GGUF file: it begins with b'<!DO'"):
            loader(path).config()

    def test_a_length_that_was_never_meant(self, write_gguf: WriteGGUF, tiny_tensors: Tensors) -> None:
        path = write_gguf(tiny_tensors)
        whole = bytearray(path.read_bytes())
        struct.pack_into("<Q", whole, 24, 2**62)  # of the first key
        path.write_bytes(whole)
        with pytest.raises(WeightsError, match="truncated or damaged"):
            loader(path).config()

    @pytest.mark.parametrize("length", [2**62, 2**63, 2**64 - 1])
    def test_a_length_in_a_list_of_texts_that_was_never_meant(self, tmp_path: Path, length: int) -> None:
        """Beyond what an index may be, too."""
        path = tmp_path / "x.gguf"
        texts = struct.pack("<IQ", 8, 2) + struct.pack("<Q", length) + b"x" * 64  # 8 is a text's type, 9 an array's
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sI", 1, b"k", 9) + texts)
        with pytest.raises(WeightsError, match="truncated or damaged"):
            read_gguf_header(path)

    def test_arrays_in_arrays_without_end(self, tmp_path: Path) -> None:
        path = tmp_path / "x.gguf"
        key = struct.pack("<Q1sI", 1, b"k", 9)  # 9 is an array's type
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + struct.pack("<IQ", 9, 1) * 5000)
        with pytest.raises(WeightsError, match="nested more than 8 deep"):
            read_gguf_header(path)

    def test_a_missing_key(self, write_gguf: WriteGGUF, tiny_tensors: Tensors) -> None:
        with pytest.raises(WeightsError, match=r"no llama\.embedding_length"):
            loader(write_gguf(tiny_tensors, metadata={"embedding_length": None})).config()

    def test_no_embeddings(self, write_gguf: WriteGGUF, tiny_tensors: Tensors) -> None:
        tiny_tensors.pop("model.embed_tokens.weight")
        with pytest.raises(WeightsError, match=r"no token_embd\.weight"):
            loader(write_gguf(tiny_tensors)).config()

    def test_an_unknown_tensor_type(self, write_gguf: WriteGGUF, tiny_tensors: Tensors) -> None:
        path = write_gguf(tiny_tensors)
        whole = bytearray(path.read_bytes())
        name = b"output_norm.weight"
        at = whole.index(name) + len(name) + 4 + 8  # after the number of dimensions and the one dimension
        struct.pack_into("<I", whole, at, 999)
        path.write_bytes(whole)
        with pytest.raises(UnsupportedModelError, match=r"'output_norm\.weight'.*type 999"):
            loader(path).config()


def test_the_real_model(smollm2_path: Path) -> None:
    config = GGUFLoader(options=None, context=WeightLoaderContext(path=smollm2_path)).config()
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (30, 9, 3)
    assert math.isclose(config.rope_theta, 100000.0)
    assert config.tie_word_embeddings
