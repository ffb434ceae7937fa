"""Renamed keys keep their old names for two minor versions."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from vcore.config import aliases, load_config
from vcore.config.aliases import RENAMED, Renamed, apply_renames
from vcore.config.models import EngineConfig
from vcore.config.problems import dotted_keys
from vcore.errors import ConfigError

RENAME = Renamed(old="kv.share", new="cache.memory_fraction", since="0.3")


@pytest.fixture(autouse=True)
def fresh_warnings() -> None:
    aliases._warn_once.cache_clear()


def test_every_entry_leads_to_a_key_that_exists() -> None:
    assert {rename.new for rename in RENAMED} <= set(dotted_keys(EngineConfig))


def test_an_old_name_works_and_warns_once() -> None:
    with pytest.warns(FutureWarning, match=r"kv\.share was renamed to cache\.memory_fraction in 0\.3.*until 0\.5"):
        assert apply_renames({"kv": {"share": 0.5}}, [RENAME], "0.3.0") == {"cache": {"memory_fraction": 0.5}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree: dict[str, Any] = {"kv": {"share": 0.5, "other": 1}, "cache": {"block_size": 8}}
        moved = apply_renames(tree, [RENAME], "0.4.9")
    assert moved == {"kv": {"other": 1}, "cache": {"block_size": 8, "memory_fraction": 0.5}}


def test_it_ends_after_two_minor_versions() -> None:
    with pytest.raises(ConfigError, match=r"kv\.share: renamed to cache\.memory_fraction in 0\.3; write cache"):
        apply_renames({"kv": {"share": 0.5}}, [RENAME], "0.5.0")


def test_old_and_new_together_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"kv\.share and cache\.memory_fraction are both given"):
        apply_renames({"kv": {"share": 0.5}, "cache": {"memory_fraction": 0.5}}, [RENAME], "0.3.0")


def test_a_tree_without_old_names_is_left_alone() -> None:
    for tree in ({}, {"kv": 3}, {"cache": {"block_size": 8}}, {"kv": {"other": 1}}):
        assert apply_renames(dict(tree), [RENAME], "0.3.0") == tree


def test_load_config_applies_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliases, "RENAMED", (Renamed(old="cache.share", new="cache.memory_fraction", since="0.1"),))
    with pytest.warns(FutureWarning, match=r"cache\.share was renamed"):
        assert load_config({"cache.share": 0.25}).cache.memory_fraction == 0.25
    assert load_config(None, ["cache.share=0.5"]).cache.memory_fraction == 0.5
