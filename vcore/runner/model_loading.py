"""`load_model`: build a model on its device and fill it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from vcore.interfaces.model import BuildContext, Model
from vcore.interfaces.weights import WeightLoader

__all__ = ["load_model"]


def load_model(context: BuildContext, build: Callable[[BuildContext], Model], loader: WeightLoader) -> Model:
    """The model that `build` makes, uninitialised, with the loader's weights.

    Raises:
        ModelError: the files are missing, or do not fit the architecture.
    """
    default_dtype = torch.get_default_dtype()
    torch.set_default_dtype(context.dtype)
    try:
        with torch.device(context.device):
            model = build(context)
    finally:
        torch.set_default_dtype(default_dtype)
    with torch.no_grad(), loader.open() as checkpoint:
        model.load_weights(checkpoint)
    return model.eval().requires_grad_(False)
