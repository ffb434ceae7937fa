"""Checkpoints of a trunk alone: what is seen as one, and what is said of it to models."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from vcore.engine.resolve.trunk import TrunkLoader, see_trunk
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.weights import CheckpointReader, TensorInfo, WeightLoader


class Reader(CheckpointReader):
    """Ones of any name that it has."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names, self.closed, self.asked = list(names), False, [""]

    def tensors(self) -> Mapping[str, TensorInfo]:
        return {name: TensorInfo((2,), "float32") for name in self.names}

    def read(self, name: str, shape: tuple[int, ...], index: tuple[slice, ...] | None = None) -> torch.Tensor:
        self.asked.append(name)
        return torch.ones(shape)

    def close(self) -> None:
        self.closed = True


class Loader(WeightLoader):
    def __init__(self, names: Iterable[str], **config: Any) -> None:
        self.reader, self.values, self.num_opened = Reader(names), config, 0

    def config(self) -> HFConfig:
        return HFConfig({"architectures": ["LlamaForCausalLM"]} | self.values, "theirs")

    def open(self) -> CheckpointReader:
        self.num_opened += 1
        return self.reader

    def tokenizer_path(self) -> Path | None:
        return Path("tokenizer")

    def generation_config(self) -> dict[str, object]:
        return {"eos_token_id": 1}


BARE = ("embed_tokens.weight", "layers.0.mlp.up_proj.weight", "norm.weight")
WHOLE = tuple(f"model.{name}" for name in BARE)


def seen(names: Iterable[str], pooling: str = "last", path: Path = Path("nowhere"), **config: Any) -> WeightLoader:
    return see_trunk(Loader(names, **config), path, pooling)


def test_names_get_the_prefix_that_models_ask_for() -> None:
    inner = Loader([*BARE, "lm_head.weight"])
    loader = see_trunk(inner, Path("nowhere"), "last")
    assert isinstance(loader, TrunkLoader)
    with loader.open() as checkpoint:
        assert list(checkpoint.tensors()) == [*WHOLE, "lm_head.weight"]
        target = torch.zeros(2)
        checkpoint.read_into(target, "model.norm.weight", (2,))
        assert target.tolist() == [1.0, 1.0]
        checkpoint.read("lm_head.weight", (2,))
        checkpoint.read("model.missing", (2,))
    assert inner.reader.asked[1:] == ["norm.weight", "lm_head.weight", "model.missing"]
    assert inner.reader.closed
    with loader.open_headers() as headers:
        assert set(WHOLE) < set(headers.tensors())
    assert not checkpoint.synthetic
    assert "tie_word_embeddings" not in loader.config(), "it has a head of its own"
    assert (loader.tokenizer_path(), loader.generation_config()) == (Path("tokenizer"), {"eos_token_id": 1})


@pytest.mark.parametrize("names", [BARE, WHOLE])
@pytest.mark.parametrize("tied", [None, False, True])
def test_without_a_head_none_is_made(names: tuple[str, ...], tied: bool | None, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING, logger="vcore"):
        loader = seen(names, **({} if tied is None else {"tie_word_embeddings": tied}))
    config = loader.config()
    assert config.tie_word_embeddings is True
    assert config.origin == "theirs"
    with loader.open() as checkpoint:
        assert list(checkpoint.tensors()) == list(WHOLE)
    assert ("has no LM head" in caplog.text) == (tied is False)


@pytest.mark.parametrize(
    ("stored", "told"), [("LlamaModel", "LlamaForCausalLM"), ("Qwen3ForCausalLM", "Qwen3ForCausalLM")]
)
def test_the_architecture_is_that_of_a_causal_model(stored: str, told: str) -> None:
    assert seen(BARE, architectures=[stored]).config().architectures == (told,)


def test_a_whole_model_and_a_stranger_s_are_left_alone() -> None:
    for names in ([*WHOLE, "lm_head.weight"], ["transformer.wte.weight"], []):
        assert isinstance(seen(names), Loader)


def test_tensors_are_looked_at_only_where_there_is_a_reason(tmp_path: Path) -> None:
    plain = Loader(BARE)
    assert see_trunk(plain, tmp_path, "auto") is plain
    assert see_trunk(Loader(BARE, architectures=["LlamaModel"]), tmp_path, "none").config().architectures == (
        "LlamaModel",
    )
    assert plain.num_opened == 0
    assert isinstance(seen(BARE, "auto", tmp_path, architectures=["LlamaModel"]), TrunkLoader)
    (tmp_path / "modules.json").touch()
    assert isinstance(seen(BARE, "auto", tmp_path), TrunkLoader)
