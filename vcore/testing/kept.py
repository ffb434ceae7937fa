"""`count_kept`: how much an object holds, for tests that nothing is kept for ever."""

from __future__ import annotations

import gc
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

import numpy as np

__all__ = ["count_kept"]

_OUTSIDE = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)


def count_kept(root: object) -> int:
    """References that can be reached from `root`, and elements of arrays; not beyond what is vcore's own.

    Views, contexts and the like are the core's, and count as one each; so do classes, functions and modules.
    """
    seen = {id(root)}
    stack, count = [root], 0
    while stack:
        one = stack.pop()
        if isinstance(one, np.ndarray):
            count += one.size
        for other in gc.get_referents(one):
            if isinstance(other, _OUTSIDE):
                continue
            count += 1
            if id(other) not in seen and not type(other).__module__.startswith("vcore."):
                seen.add(id(other))
                stack.append(other)
    return count
