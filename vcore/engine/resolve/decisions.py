"""`Decision`: what an ``auto`` became, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from vcore.plugins.catalog import Catalog
    from vcore.plugins.specs import PluginKind

__all__ = ["Decision", "DecisionLog", "not_considered"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One key that was left to vcore."""

    key: str
    """Dotted, as in ``"model.dtype"``."""
    value: str | int
    """What the configuration would say had it been written there."""
    why: str
    rejected: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Each other candidate, with the reasons against it."""

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return {
            "key": self.key,
            "value": self.value,
            "why": self.why,
            "rejected": [{"candidate": name, "reasons": list(reasons)} for name, reasons in self.rejected],
        }


class DecisionLog:
    """Collects the decisions of those that make them."""

    __slots__ = ("decisions",)

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def take(self, outcome: tuple[T, Decision | None]) -> T:
        """The value of an outcome, after noting the decision behind it, if one had to be made."""
        value, decision = outcome
        if decision is not None:
            self.decisions.append(decision)
        return value

    def take_all(self, outcome: tuple[T, Iterable[Decision]]) -> T:
        """The same for an outcome with any number of decisions behind it."""
        value, decisions = outcome
        self.decisions.extend(decisions)
        return value


def not_considered(catalog: Catalog, kind: PluginKind) -> Sequence[tuple[str, tuple[str, ...]]]:
    """The plugins of `kind` that ``auto`` passes over (broken, hidden, of other distributions), with the reason."""
    return [(entry.address, (reason,)) for entry, reason in catalog.rejected(kind)]
