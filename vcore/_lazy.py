"""Public names that are imported when first used (PEP 562), so that a package costs nothing to import."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence

__all__ = ["lazy_exports"]


def lazy_exports(
    package: str, exports: Mapping[str, Sequence[str]]
) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """``__all__``, ``__getattr__`` and ``__dir__`` for `package`, whose submodules define the `exports`.

    Args:
        package: the package's ``__name__``.
        exports: submodule (relative, without the dot) to the public names that it defines.
    """
    homes = {name: module for module, names in exports.items() for name in names}
    names = sorted(homes)

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(names)}")
        value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return names, load, lambda: names
