"""The errors that a choice of plugin ends in: none there, several there, one there that does not work.

Each names kind, name, distribution and version, what was expected, what was found, and what to write.
"""

from __future__ import annotations

from collections.abc import Sequence

from vcore.errors import PluginBrokenError, PluginConflictError, PluginNotFoundError
from vcore.plugins.distributions import CORE_DISTRIBUTION
from vcore.plugins.entry import CatalogEntry, EntryStatus
from vcore.plugins.specs import PluginKind
from vcore.plugins.stale_metadata import stale_entry_points
from vcore.suggestions import did_you_mean

__all__ = ["broken_error", "config_key", "conflict_error", "not_found_error", "raise_first_unusable"]


def config_key(kind: PluginKind) -> str | None:
    """The configuration's key that selects a plugin of `kind`; None for kinds that a request or a URI selects."""
    from vcore.config import PLUGIN_CHOICES

    if kind is PluginKind.LOGITS_PROCESSOR:
        return None  # `sampling.structured_output` names one of them, for requests that name none
    return next((key for key, chosen in PLUGIN_CHOICES.items() if chosen == kind.value), None)


def broken_error(entry: CatalogEntry, found: str, *, expected: str = "", remedy: str = "") -> PluginBrokenError:
    """The error about `entry`, of which `found` is wrong; the remedy is by where it came from unless given."""
    parts = [f"{entry.title} ({entry.origin}): {found}" if entry.spec is not None else f"{entry.title}: {found}"]
    if expected:
        parts.append(f"expected {expected}")
    parts.append(remedy or _remedy(entry))
    return PluginBrokenError("; ".join(parts))


def _remedy(entry: CatalogEntry) -> str:
    if entry.origin.path is not None:
        return f"mend {entry.origin.path}"
    if entry.distribution == CORE_DISTRIBUTION:
        return f"reinstall it: `pip install --force-reinstall --no-deps {CORE_DISTRIBUTION}`"
    if entry.version is None:
        return "mend it, or do not pass it"
    return f"upgrade or uninstall {entry.distribution}, or select another plugin"


def raise_first_unusable(entries: Sequence[CatalogEntry]) -> None:
    """Raise about the first of `entries`, none of which is ``ok``; do nothing if there are none.

    Raises:
        PluginBrokenError: with the entry's reason, and its cause chained.
    """
    for entry in entries:
        found = f"is {entry.status.value}: {entry.reason}"
        if entry.status in (EntryStatus.HIDDEN, EntryStatus.DISABLED):
            raise broken_error(entry, found, remedy="change that, or select another plugin")
        raise broken_error(entry, found) from entry.cause


def not_found_error(
    kind: PluginKind,
    wanted: str,
    word: str,
    known: Sequence[str],
    entries: Sequence[CatalogEntry],
    *,
    by_name: bool = False,
) -> PluginNotFoundError:
    """The error that nothing answers, with what does and what might have.

    Args:
        kind: the kind.
        wanted: what was looked for, after "there is no KIND".
        word: the word to find close matches for.
        known: what there is.
        entries: the catalog's; those that do not work are listed, since what is missing may be among them.
        by_name: somebody wrote the name, so that it is worth a look whether stale metadata misses it.
    """
    installed = ", ".join(known) if known else "none"
    message = f"there is no {kind.value} {wanted}{did_you_mean(word, known)}; installed: {installed}"
    unusable = [entry for entry in entries if not entry.ok and entry.kind in (None, kind)]
    if unusable:
        message += "; not usable:" + "".join(
            f"\n  {entry.title}: {entry.status.value}: {entry.reason}" for entry in unusable
        )
    stale = "".join(f"\n{one}" for one in stale_entry_points() if not one.is_gone) if by_name else ""
    return PluginNotFoundError(
        f"{message}\n`vcore plugins list` shows all; install the distribution that has it, or load its file{stale}"
    )


def conflict_error(
    kind: PluginKind, what: str, entries: Sequence[CatalogEntry], names: Sequence[str]
) -> PluginConflictError:
    """The error that several plugins answer, with what to write for each.

    Args:
        kind: the kind.
        what: what they have in common, as ``"are called 'lru'"``.
        entries: those that answer.
        names: what the configuration calls each, without the distribution.
    """
    owners = " and ".join(f"{entry.name!r} of {entry.owner}" for entry in entries)
    key = config_key(kind)
    addresses = [f"{name}@{_distribution_key(entry, entries)}" for entry, name in zip(entries, names, strict=True)]
    if len({entry.distribution for entry in entries}) == 1 and len(set(addresses)) < len(addresses):
        remedy = f"hide all but one with plugins.disable, as '{kind.value}/{entries[-1].name}'"
    elif key is not None:
        remedy = "write " + " or ".join(f"`{key}: {address}`" for address in addresses)
    else:
        choices = " or ".join(f"'{kind.value}/{address}'" for address in addresses)
        remedy = f"hide all but one with plugins.disable: {choices}"
    return PluginConflictError(f"several plugins of kind {kind.value} {what}: {owners}; {remedy}")


def _distribution_key(entry: CatalogEntry, entries: Sequence[CatalogEntry]) -> str:
    """What to write after ``@``: the distribution, or the path where that does not tell the entries apart."""
    same = [other for other in entries if other.distribution == entry.distribution]
    return entry.origin.path if len(same) > 1 and entry.origin.path is not None else entry.distribution
