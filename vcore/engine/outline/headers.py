"""Whether a checkpoint's tensors are those that a model wants, by names and shapes, without reading any of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from vcore.errors import WeightsError
from vcore.interfaces.model import Model
from vcore.interfaces.weights import CheckpointReader, TensorInfo

__all__ = ["HeaderCheckpoint", "WeightFit", "fit_weights"]

logger = logging.getLogger(__name__)


class HeaderCheckpoint(CheckpointReader):
    """A checkpoint's headers; reading a tensor gives one of its shape without content, on ``meta``."""

    def __init__(self, tensors: Mapping[str, TensorInfo]) -> None:
        self._tensors = dict(tensors)

    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor there is."""
        return self._tensors

    def read(self, name: str, shape: tuple[int, ...], index: tuple[slice, ...] | None = None) -> torch.Tensor:
        """A float32 tensor on ``meta``, of the shape that the part has.

        Raises:
            WeightsError: there is no such tensor, or it has another shape.
        """
        info = self._tensors.get(name)
        if info is None:
            raise WeightsError(f"the checkpoint has no tensor {name!r}, which the model wants")
        if tuple(info.shape) != tuple(shape):
            raise WeightsError(f"tensor {name!r} has shape {list(info.shape)}, and the model expects {list(shape)}")
        tensor = torch.empty(shape, dtype=torch.float32, device="meta")
        return tensor if index is None else tensor[index]


@dataclass(frozen=True, slots=True)
class WeightFit:
    """Whether a checkpoint is one of a model."""

    fits: bool | None
    """None: it cannot be told without reading it."""
    reason: str = ""
    """Why it does not fit."""


def fit_weights(model: Model, tensors: Mapping[str, TensorInfo]) -> WeightFit:
    """Whether `tensors` are those that `model`, which was built on ``meta``, wants.

    The model is filled with nothing, so it is of no use afterwards.
    """
    try:
        with torch.no_grad():
            model.load_weights(HeaderCheckpoint(tensors))
    except WeightsError as error:
        return WeightFit(False, str(error))
    except Exception as error:  # a stranger's code that looks at values
        logger.debug("the weights cannot be checked without reading them: %s: %s", type(error).__name__, error)
        return WeightFit(None)
    return WeightFit(True)
