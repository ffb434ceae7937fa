"""Runs `compile_worker.work` in a process of its own, in which there is no torch.

Importing torch takes 4 s, longer than many kernels take to compile, and what compiles them needs none of it: where the
modules of kernels name it, for the functions beside the kernels, they find names that mean nothing. A module that makes
more of torch as it is imported fails; its kernels are then compiled by whoever asked.

Started as a script, so that no package is imported before.
"""

from __future__ import annotations

import sys
from abc import ABCMeta
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["NoTorch"]


class _Named(ABCMeta):
    def __getattr__(cls, name: str) -> Any:
        return _meaningless(name)


class _Nothing(metaclass=_Named):
    """Whatever is named in torch: a class to derive from, a decorator, a number."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __call__(self, decorated: Any = None, *args: object, **kwargs: object) -> Any:
        return decorated

    def __getattr__(self, name: str) -> Any:
        return _meaningless(name)


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return _meaningless(name)


def _meaningless(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Nothing


class NoTorch(MetaPathFinder, Loader):
    """Finds modules without content for torch and all within."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As `importlib` wants it."""
        return ModuleSpec(fullname, self, is_package=True) if fullname.partition(".")[0] == "torch" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """As `importlib` wants it."""
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to do."""


if __name__ == "__main__":
    sys.meta_path.insert(0, NoTorch())

    from vcore.ops.triton.compile_worker import work

    work(*map(int, sys.argv[1:]))
