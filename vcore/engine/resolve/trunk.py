"""Checkpoints of a trunk alone, as models for embeddings are published: without LM head, and names without ``model.``.

    as it is stored                      as models ask for it
    architectures: [LlamaModel]          architectures: [LlamaForCausalLM]
    tie_word_embeddings: false           tie_word_embeddings: true     where no lm_head is stored, none is made
    layers.0.mlp.up_proj.weight          model.layers.0.mlp.up_proj.weight

A `TrunkLoader` stands before the files' own loader and says the right side, so that neither models nor loaders know.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch

from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.weights import CheckpointReader, TensorInfo, WeightLoader

__all__ = ["TrunkLoader", "see_trunk"]

logger = logging.getLogger(__name__)

_TRUNK, _HEAD = "model.", "lm_head."
_EMBEDDING = "embed_tokens.weight"
"""Every trunk has it, and by its name one sees whether the prefix is there."""


def see_trunk(loader: WeightLoader, path: Path, pooling: str) -> WeightLoader:
    """The loader of a model that may be a trunk alone.

    The names of tensors are read only where there is a reason to look: files for embeddings, or a configuration or an
    architecture that means them.

    Args:
        loader: of the files at `path`.
        path: the model's folder, or its one file.
        pooling: `model.pooling`, as configured.

    Returns:
        `loader` itself, or one that says what it says in the names that models ask for.

    Raises:
        ModelError: the files cannot be read.
    """
    config = loader.config()
    meant = pooling in ("last", "mean") or (path / "modules.json").is_file()
    if pooling == "none" or not (meant or any(name.endswith("Model") for name in config.architectures)):
        return loader
    with loader.open_headers() as headers:
        names = list(headers.tensors())
    bare = _EMBEDDING in names
    if not bare and _TRUNK + _EMBEDDING not in names:
        return loader
    headless = not any(name.startswith(_HEAD) for name in names)
    if not bare and not headless:
        return loader
    if headless and config.get("tie_word_embeddings") is False:
        logger.warning("%s has no LM head: the model can embed, and what it generates means nothing", path)
    return TrunkLoader(loader, bare=bare, headless=headless)


class TrunkLoader(WeightLoader):
    """The right side of the table above, of what another loader supplies."""

    def __init__(self, loader: WeightLoader, *, bare: bool, headless: bool) -> None:
        """Read nothing.

        Args:
            loader: of the files.
            bare: whether names lack the prefix ``model.``.
            headless: whether there is no LM head.
        """
        self._loader = loader
        self._bare = bare
        self._headless = headless

    def config(self) -> HFConfig:
        """With the architecture's name as that of a causal model, and without a head of its own."""
        config = self._loader.config()
        values = config.to_dict() | {"architectures": [_causal(name) for name in config.architectures]}
        if self._headless:
            values["tie_word_embeddings"] = True
        return HFConfig(values, config.origin)

    def open(self) -> CheckpointReader:
        """The weights, by the names that models ask for."""
        reader = self._loader.open()
        return _TrunkReader(reader) if self._bare else reader

    def open_headers(self) -> CheckpointReader:
        """As `open`."""
        reader = self._loader.open_headers()
        return _TrunkReader(reader) if self._bare else reader

    def tokenizer_path(self) -> Path | None:
        """The loader's own."""
        return self._loader.tokenizer_path()

    def generation_config(self) -> dict[str, object]:
        """The loader's own."""
        return self._loader.generation_config()


class _TrunkReader(CheckpointReader):
    """A checkpoint whose names lack the prefix."""

    def __init__(self, reader: CheckpointReader) -> None:
        self._reader = reader
        self._stored = {name if name.startswith(_HEAD) else _TRUNK + name: name for name in reader.tensors()}

    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor, by the name that models ask for."""
        stored = self._reader.tensors()
        return {name: stored[inner] for name, inner in self._stored.items()}

    def read(self, name: str, shape: tuple[int, ...], index: tuple[slice, ...] | None = None) -> torch.Tensor:
        """The tensor that is stored under the shorter name."""
        return self._reader.read(self._stored.get(name, name), shape, index)

    def read_into(
        self, destination: torch.Tensor, name: str, shape: tuple[int, ...], index: tuple[slice, ...] | None = None
    ) -> None:
        """As the reader does it."""
        self._reader.read_into(destination, self._stored.get(name, name), shape, index)

    @property
    def synthetic(self) -> bool:
        """As the reader is."""
        return self._reader.synthetic

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()


def _causal(architecture: str) -> str:
    """``LlamaModel`` is the trunk of ``LlamaForCausalLM``."""
    return architecture.removesuffix("Model") + "ForCausalLM" if architecture.endswith("Model") else architecture
