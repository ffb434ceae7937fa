"""Which scheduling policy, eviction policy, executor, observers and plugin for structured output."""

from __future__ import annotations

from typing import cast

from vcore.config import PLUGIN_CHOICES, EngineConfig, PluginChoice
from vcore.engine.resolve.decisions import Decision, not_considered
from vcore.engine.resolve.lookup import selector
from vcore.errors import ConfigError
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import ExecutorSpec, LogitsProcessorSpec, PluginKind

__all__ = ["choose_executor", "choose_observers", "choose_policy", "choose_structured_output"]


def choose_policy(choice: PluginChoice, key: str, catalog: Catalog) -> tuple[CatalogEntry, Decision | None]:
    """The policy that is configured, or the one of the highest rank.

    Args:
        choice: what is configured.
        key: where, such as ``"scheduler.policy"``.
        catalog: where it is looked up.

    Raises:
        PluginError: it is missing, broken or ambiguous.
    """
    kind = PluginKind(PLUGIN_CHOICES[key])
    if not choice.is_auto:
        return catalog.find(kind, choice.name), None
    best = catalog.best(kind)
    lower = [(entry.address, ("its rank is lower",)) for entry in catalog.candidates(kind) if entry is not best]
    rejected = (*lower, *not_considered(catalog, kind))
    why = "the highest rank" if lower else "the only one there is"
    return best, Decision(key=key, value=selector(catalog, best), why=why, rejected=rejected)


def choose_executor(config: EngineConfig, catalog: Catalog) -> tuple[CatalogEntry, Decision | None]:
    """The executor that is configured, or the best of those that run as many ranks as are wanted.

    Raises:
        ConfigError: the one that is configured runs fewer, or all do.
        PluginError: it is missing, broken or ambiguous.
    """
    ranks = config.runtime.tensor_parallel_size
    if not config.executor.is_auto:
        entry = catalog.find(PluginKind.EXECUTOR, config.executor.name)
        if not _runs(entry, ranks):
            raise ConfigError(
                f"executor: {entry.title} runs at most {_most(entry)}, but runtime.tensor_parallel_size is {ranks}; "
                "lower that, or name another executor"
            )
        return entry, None
    candidates = catalog.candidates(PluginKind.EXECUTOR)
    able = [entry for entry in candidates if _runs(entry, ranks)]
    if not able:
        installed = "; ".join(f"{entry.address} runs at most {_most(entry)}" for entry in candidates) or "none"
        passed_over = not_considered(catalog, PluginKind.EXECUTOR)
        passed = "".join(f"\n  {address}: {'; '.join(why)}" for address, why in passed_over)
        raise ConfigError(
            f"runtime.tensor_parallel_size: found {ranks}, but no installed executor runs {ranks} ranks; "
            f"installed: {installed}{passed}"
        )
    best = catalog.best(PluginKind.EXECUTOR, able)
    rejected = list(not_considered(catalog, PluginKind.EXECUTOR))
    rejected += [(entry.address, (f"runs at most {_most(entry)}",)) for entry in candidates if entry not in able]
    rejected += [(entry.address, ("it can, but its rank is lower",)) for entry in able if entry is not best]
    ranks_text = "1 rank" if ranks == 1 else f"{ranks} ranks"
    why = f"the highest rank of those that run {ranks_text}"
    return best, Decision(key="executor", value=selector(catalog, best), why=why, rejected=tuple(rejected))


def choose_observers(config: EngineConfig, catalog: Catalog) -> tuple[CatalogEntry, ...]:
    """The observers that are configured, in their order.

    Raises:
        PluginError: one is missing, broken or ambiguous.
    """
    return tuple(catalog.find(PluginKind.OBSERVER, choice.name) for choice in config.observability.observers)


def choose_structured_output(
    choice: PluginChoice | None, catalog: Catalog
) -> tuple[CatalogEntry | None, Decision | None]:
    """The logits processor that keeps texts to their form: the one that is configured, or the one of the highest rank.

    Raises:
        ConfigError: the one that is configured takes no form.
        PluginError: it is missing, broken or ambiguous.
    """
    if choice is None:
        return None, None
    if not choice.is_auto:
        entry = catalog.find(PluginKind.LOGITS_PROCESSOR, choice.name)
        if not _forms(entry):
            raise ConfigError(
                f"sampling.structured_output: {entry.title} enforces no form of text (its spec's structured_output is "
                "empty); name another logits processor, or none"
            )
        return entry, None
    able = [entry for entry in catalog.candidates(PluginKind.LOGITS_PROCESSOR) if _forms(entry)]
    rejected = not_considered(catalog, PluginKind.LOGITS_PROCESSOR)
    key = "sampling.structured_output"
    if not able:
        why = "no logits processor that enforces forms of text is there"
        return None, Decision(key=key, value="none", why=why, rejected=tuple(rejected))
    best = catalog.best(PluginKind.LOGITS_PROCESSOR, able)
    lower = [(entry.address, ("its rank is lower",)) for entry in able if entry is not best]
    why = "the highest rank of those that enforce forms of text"
    return best, Decision(key=key, value=selector(catalog, best), why=why, rejected=(*lower, *rejected))


def _forms(entry: CatalogEntry) -> frozenset[str]:
    return cast(LogitsProcessorSpec, entry.spec).structured_output


def _runs(entry: CatalogEntry, ranks: int) -> bool:
    most = cast(ExecutorSpec, entry.spec).max_world_size
    return most is None or most >= ranks


def _most(entry: CatalogEntry) -> str:
    most = cast(ExecutorSpec, entry.spec).max_world_size
    return "1 rank" if most == 1 else f"{most} ranks"
