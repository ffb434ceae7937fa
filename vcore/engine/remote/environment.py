"""`engine_environment`: the variables that an engine's process is started with.

They are settings of libraries, which read them once when they are loaded and have no other way to be told; nothing of
vcore's own is set this way.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["engine_environment"]

_PRIMITIVES = "128"

_LIBRARY_SETTINGS = {
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": _PRIMITIVES,
    "LRU_CACHE_CAPACITY": _PRIMITIVES,
}
"""On a CPU, oneDNN compiles code for each shape of a matrix product and keeps the last 1,024, and torch's layer above
it keeps as many again: a process that computes prompts of all lengths grows by 700 to 900 MB, and by 400 if only one of
the two is bounded. With 128 of each it is 100 MB, room for the products of 25 batch sizes, and takes no more time."""


def engine_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Our variables, and those that libraries of the engine need; what the user has set himself stays as it is."""
    return {**_LIBRARY_SETTINGS, **ours}
