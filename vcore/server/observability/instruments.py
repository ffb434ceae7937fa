"""What is counted, in plain objects: a step adds to them in well under a microsecond, a scrape reads them.

They are written and read in one thread (the asyncio loop's), so that they need no locks; the text format is left
to prometheus_client, whose own instruments lock on every call.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

__all__ = ["Counter", "FollowedCounter", "Histogram", "LabelledCounter"]


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float) -> None:
        """Add `amount`, which is not negative."""
        self.value += amount


class FollowedCounter:
    """The sum of a total that somebody else keeps, and that begins at zero again when he is restarted."""

    __slots__ = ("_last", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self._last = 0.0

    def follow(self, total: float) -> None:
        """Take in the total of now: what came since the last one, or all of it if it was reset."""
        self.value += total - self._last if total >= self._last else total
        self._last = total

    def restart(self) -> None:
        """The next total begins at zero, even if it has outgrown the last one when it is seen."""
        self._last = 0.0


class LabelledCounter:
    """Counters by the values of their labels."""

    __slots__ = ("values",)

    def __init__(self, known: Iterable[tuple[str, ...]] = ()) -> None:
        """Counters at zero for `known` label values, so that rates are right from the first event."""
        self.values: dict[tuple[str, ...], float] = dict.fromkeys(known, 0.0)

    def add(self, labels: tuple[str, ...], amount: float = 1.0) -> None:
        """Add `amount` to the counter of these label values."""
        self.values[labels] = self.values.get(labels, 0.0) + amount


class Histogram:
    """Counts of values by upper bounds, and their sum."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """An empty histogram.

        Args:
            bounds: upper bounds (inclusive) of the buckets, ascending; one without a bound is added.
        """
        self._bounds = list(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self._counts)

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def observe_many(self, values: Sequence[float]) -> None:
        """Count several values. Neighbours are often equal: who gets a token in each step waits as long as others."""
        bounds, counts = self._bounds, self._counts
        last: float | None = None
        bucket = 0
        for value in values:
            if value != last:
                last, bucket = value, bisect_left(bounds, value)
            counts[bucket] += 1
        self.sum += sum(values)

    def cumulative(self) -> list[tuple[str, float]]:
        """Each upper bound, as text, with how many values are at most that; ``+Inf`` is the last."""
        names = [repr(float(bound)) for bound in self._bounds] + ["+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True))
