"""`ContentMemory`: what a policy remembers of contents, cached or not, up to a bound."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["ContentMemory"]

T = TypeVar("T")


class ContentMemory(Generic[T]):
    """A value for each of the `limit` contents that were set last; O(1) an event."""

    __slots__ = ("_limit", "_values")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[bytes, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, content: bytes, default: T) -> T:
        """What was set for it, if it is not forgotten."""
        return self._values.get(content, default)

    def put(self, content: bytes, value: T) -> None:
        """Remember it, and forget the one that was set longest ago if there are too many."""
        values = self._values
        values[content] = value
        values.move_to_end(content)
        if len(values) > self._limit:
            values.popitem(last=False)
