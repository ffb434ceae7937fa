"""The order in which ``auto`` and look-ups by key take plugins, so that installing a package changes neither."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins.distributions import CORE_DISTRIBUTION, canonical_name
from vcore.plugins.entry import CatalogEntry, OriginKind

__all__ = ["AutoOrder"]


class AutoOrder:
    """``auto`` considers the core's own distribution and the preferred ones; the highest rank wins.

    Of equal ranks the preferred distribution's wins, the earlier before the later, and the core's
    comes last: to prefer is to ask for just that. Within one distribution equal ranks are a tie.
    """

    def __init__(self, preferred: Sequence[str]) -> None:
        self._preferred = [canonical_name(name) for name in preferred]

    def considers(self, entry: CatalogEntry) -> bool:
        """Whether ``auto`` may take it, if it works."""
        return self._position(entry) is not None

    def sort(self, entries: Sequence[CatalogEntry]) -> list[CatalogEntry]:
        """The best first."""
        return sorted(entries, key=self._key)

    def tied_for_best(self, entries: Sequence[CatalogEntry]) -> list[CatalogEntry]:
        """The best of them: one, unless there is a tie."""
        best = min(map(self._key, entries), default=None)
        return [entry for entry in entries if self._key(entry) == best]

    def foremost(self, entries: Sequence[CatalogEntry]) -> list[CatalogEntry]:
        """Who serves a key that `entries` serve: the core's own, else the first preferred distribution's,
        else whoever does; within one distribution the highest rank. More than one is a clash."""
        core = [entry for entry in entries if _is_core(entry)]
        positions = [position for entry in entries if (position := self._position(entry)) is not None]
        first = [entry for entry in entries if positions and self._position(entry) == min(positions)]
        group = core or first or list(entries)
        if len({entry.origin.path or entry.distribution for entry in group}) > 1:
            return group
        return [entry for entry in group if _rank(entry) == max(map(_rank, group))]

    def _position(self, entry: CatalogEntry) -> int | None:
        """The place of the entry's distribution: the preferred ones in their order, then the core's; None: neither."""
        name = canonical_name(entry.distribution)
        if entry.origin.how is not OriginKind.OBJECT and name in self._preferred:
            return self._preferred.index(name)
        return len(self._preferred) if _is_core(entry) else None

    def _key(self, entry: CatalogEntry) -> tuple[int, int]:
        position = self._position(entry)
        return -_rank(entry), len(self._preferred) + 1 if position is None else position


def _is_core(entry: CatalogEntry) -> bool:
    return entry.origin.how is OriginKind.ENTRY_POINT and canonical_name(entry.distribution) == CORE_DISTRIBUTION


def _rank(entry: CatalogEntry) -> int:
    return entry.spec.rank if entry.spec is not None else 0
