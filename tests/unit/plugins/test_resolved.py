"""The resolved set is data, and refuses what differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from vcore.errors import PluginError
from vcore.plugins import CatalogEntry, EntryStatus, ResolvedPlugin, ResolvedSet

MakeEntry = Callable[..., CatalogEntry]


def test_it_goes_through_json(make_entry: MakeEntry) -> None:
    made = [ResolvedPlugin.of(make_entry(name=name), {"window": 3}) for name in ("b", "a", "b")]
    resolved = ResolvedSet.of(made)
    assert [one.name for one in resolved.plugins] == ["a", "b"]
    assert ResolvedSet.from_dict(json.loads(json.dumps(resolved.as_dict()))) == resolved


def test_the_same_plugins_are_the_same(make_entry: MakeEntry) -> None:
    entries = [make_entry(), make_entry(path="/a/mine.py", distribution="mine.py")]
    ResolvedSet.of([ResolvedPlugin.of(entry, {}) for entry in entries]).require_same(entries)


def test_what_differs_is_named(make_entry: MakeEntry) -> None:
    file = make_entry(path="/a/mine.py", distribution="mine.py", name="file")
    here = [make_entry(name="old"), file, make_entry(name="bad"), make_entry(name="gone")]
    resolved = ResolvedSet.of([ResolvedPlugin.of(entry, {}) for entry in here])
    there = [
        replace(here[0], version="2.0"),
        replace(file, origin=replace(file.origin, sha256="cd" * 32)),
        replace(here[2], status=EntryStatus.BROKEN, reason="no torch"),
    ]
    with pytest.raises(PluginError) as caught:
        resolved.require_same(there)
    message = str(caught.value)
    assert "eviction_policy/old@vcore-engine: version 2.0 instead of 1.0" in message
    assert "eviction_policy/file@mine.py: /a/mine.py has changed: sha256 cdcd" in message
    assert "eviction_policy/bad@vcore-engine: broken: no torch" in message
    assert "eviction_policy/gone@vcore-engine: not found here" in message


def test_objects_cannot_go_to_another_process(make_entry: MakeEntry) -> None:
    plugin = ResolvedPlugin.of(make_entry(), {})
    ResolvedSet.of([plugin]).require_portable()
    with pytest.raises(PluginError, match=r"eviction_policy/lru: passed as an object.*move it to a file"):
        ResolvedSet.of([replace(plugin, origin="object")]).require_portable()
