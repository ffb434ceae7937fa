"""`FrozenDict`: a dictionary that cannot be changed, so that a frozen configuration is frozen all the way down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

__all__ = ["FrozenDict", "freeze"]


class FrozenDict(dict[str, Any]):
    """A `dict` (so that JSON and YAML writers know it) whose every mutator raises `TypeError`."""

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("a configuration cannot be changed; make a new one with load_config(config, overrides)")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # dict is unhashable because it changes; this one does not
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type[FrozenDict], tuple[dict[str, Any]]]:
        return FrozenDict, (dict(self),)


def freeze(value: Any) -> Any:  # whatever YAML, TOML or JSON hold
    """`value` with every mapping in it as a `FrozenDict` and every list as a tuple."""
    if isinstance(value, Mapping):
        return FrozenDict({key: freeze(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    return value
