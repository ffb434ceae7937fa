"""What is deprecated is said once to whoever uses it, and to nobody else."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

from vcore.interfaces.eviction import EvictionPolicy
from vcore.plugins import CatalogEntry, PluginKind, deprecations
from vcore.plugins.deprecations import Deprecation, warn_of_deprecations

KIND = PluginKind.EVICTION_POLICY
ITEMS = (
    Deprecation(KIND, "on_hit", "on_hits", "0.9"),
    Deprecation(KIND, "rank", "order", "0.9"),
    Deprecation(PluginKind.MODEL, "on_free", "nothing", "0.9"),
)


@pytest.fixture(autouse=True)
def _table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deprecations, "DEPRECATIONS", ITEMS)
    monkeypatch.setattr(deprecations, "_warned", set())


def messages(entry: CatalogEntry, instance: object) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_deprecations(entry, instance, EvictionPolicy)
    return [str(warning.message) for warning in caught]


def test_an_overridden_method_and_a_set_field_are_told_once(
    make_entry: Callable[..., CatalogEntry], list_eviction: Any
) -> None:
    entry, instance = make_entry(distribution="acme", rank=3), list_eviction(options=None, context=None)
    first, second = messages(entry, instance)
    assert first == (
        "eviction_policy 'lru' of acme 1.0 uses eviction_policy.on_hit, which vcore-engine 0.9 removes; "
        "use on_hits instead"
    )
    assert "eviction_policy.rank" in second
    assert messages(entry, instance) == []
    assert len(messages(make_entry(distribution="bold"), instance)) == 1


def test_what_is_not_used_is_not_told(make_entry: Callable[..., CatalogEntry], list_eviction: Any) -> None:
    silent = type("Silent", (list_eviction,), {"on_hit": EvictionPolicy.on_hit})
    silent.__abstractmethods__ = frozenset()
    assert messages(make_entry(), silent(options=None, context=None)) == []
