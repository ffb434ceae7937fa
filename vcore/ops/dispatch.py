"""`Op`: a torch reference that a fused kernel may stand in for, by device. It knows no particular op."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import update_wrapper
from pkgutil import resolve_name
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

import torch

__all__ = ["Op", "op"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class Op(Generic[P, R]):
    """A function on tensors, computed by the kernel of its first argument's device, or by the reference.

    A kernel takes and returns what the reference does. It is imported when its device is first seen, so
    that a kernel library costs nothing where it cannot run.
    """

    def __init__(self, reference: Callable[Concatenate[torch.Tensor, P], R], kernels: dict[str, str]) -> None:
        update_wrapper(self, reference)
        self.reference = reference
        """The torch implementation, right on every device."""
        self._lazy_kernels = dict(kernels)
        self._kernels: dict[str, Callable[Concatenate[torch.Tensor, P], R]] = {}

    def __call__(self, x: torch.Tensor, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if not self._lazy_kernels:
            return self.reference(x, *args, **kwargs)
        return self._kernel_for(x.device.type)(x, *args, **kwargs)

    def _kernel_for(self, device_type: str) -> Callable[Concatenate[torch.Tensor, P], R]:
        kernel = self._kernels.get(device_type)
        if kernel is None:
            name = self._lazy_kernels.get(device_type)
            found: Any = self.reference if name is None else self._import(name)
            kernel = cast("Callable[Concatenate[torch.Tensor, P], R]", found)
            self._kernels[device_type] = kernel
        return kernel

    def _import(self, name: str) -> Any:
        """The kernel of that name; the reference, if the library that it is written in is not installed."""
        try:
            return resolve_name(name)
        except ModuleNotFoundError as error:
            if error.name != "triton":
                raise
            logger.warning("%s runs without its fused kernel: triton is not installed", self.reference.__name__)
            return self.reference


def op(
    **kernels: str,
) -> Callable[[Callable[Concatenate[torch.Tensor, P], R]], Op[P, R]]:
    """Make a torch function an `Op`.

    Args:
        kernels: by torch device type, the fused kernel as ``"package.module:function"``.
    """

    def wrap(reference: Callable[Concatenate[torch.Tensor, P], R]) -> Op[P, R]:
        return Op(reference, kernels)

    return wrap
