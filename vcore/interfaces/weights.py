"""What a weight loader implements: names and shapes first, then tensors, whole or sliced."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch

from vcore.errors import WeightsError
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.sources import ProgressCallback

__all__ = ["CheckpointReader", "TensorInfo", "WeightLoader", "WeightLoaderContext"]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What is known of a stored tensor before it is read."""

    shape: tuple[int, ...]
    dtype: str
    """As stored, e.g. ``"bfloat16"`` or ``"Q4_1"``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightLoaderContext:
    """What the core tells a loader when it builds it."""

    path: Path
    """The model's folder, or its one file."""
    seed: int = 0
    """For loaders that make weights up."""
    progress: ProgressCallback | None = None
    """Told of work that takes long, such as a conversion."""


class CheckpointReader(ABC):
    """An open checkpoint; names are those of the Hugging Face checkpoint of the architecture.

    A context manager: leaving it closes the files.
    """

    @abstractmethod
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor there is; reads headers only.

        Loaders that make weights up return an empty mapping and answer `read` for any name.
        """

    @abstractmethod
    def read(self, name: str, shape: tuple[int, ...], index: tuple[slice, ...] | None = None) -> torch.Tensor:
        """The tensor `name`, dequantised to a floating dtype, on the CPU.

        Args:
            name: as in `tensors`.
            shape: what the model expects of the whole tensor.
            index: the part to read; None means all of it.

        Raises:
            WeightsError: it is missing, of another shape, or its file is truncated.
        """

    def read_into(
        self, destination: torch.Tensor, name: str, shape: tuple[int, ...], index: tuple[slice, ...] | None = None
    ) -> None:
        """Fill `destination`, on any device and of any floating dtype, with what `read` gives.

        For readers that have a shorter way there than over a tensor on the CPU.

        Raises:
            WeightsError: as `read`, or what was read has another shape.
        """
        tensor = self.read(name, shape, index)
        if tensor.shape != destination.shape:
            raise WeightsError(
                f"reading {name!r} gave shape {list(tensor.shape)}, but the part asked for has "
                f"{list(destination.shape)}. The fault is in the weight loader."
            )
        destination.copy_(tensor)

    @property
    def synthetic(self) -> bool:
        """True if weights are made up, so that no name is missing or surplus."""
        return False

    def close(self) -> None:
        """Close the files. Reading afterwards is an error."""

    def __enter__(self) -> CheckpointReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class WeightLoader(ABC):
    """One or more file formats (API 1.0).

    The plugin's `load` is called with ``options`` and ``context`` (a `WeightLoaderContext`). Nothing
    is read before a method is called.
    """

    @abstractmethod
    def config(self) -> HFConfig:
        """The model's configuration, in the terms of Hugging Face's ``config.json``.

        And one of our own: ``embedding_pooling``, for formats that say how embeddings are made where there is no
        ``modules.json``: ``lasttoken``, ``mean``, ``none``, or what is not served, such as ``cls``.

        Raises:
            ModelError: it is missing or unreadable.
        """

    @abstractmethod
    def open(self) -> CheckpointReader:
        """Open the weights."""

    def open_headers(self) -> CheckpointReader:
        """As `open`, for a caller who asks for `CheckpointReader.tensors` alone: nothing is converted or prepared."""
        return self.open()

    def tokenizer_path(self) -> Path | None:
        """A folder that transformers' ``AutoTokenizer.from_pretrained`` reads, or None if there is no tokenizer."""
        return None

    def generation_config(self) -> dict[str, object]:
        """``generation_config.json``, or an empty dictionary."""
        return {}
