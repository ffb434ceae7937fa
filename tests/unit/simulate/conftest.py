"""Policies by name, and recorded traces where they are at hand."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
from vcore_policies.eviction import plugin

from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.traces import read_trace

TRACES = Path(__file__).resolve().parents[4] / "shared" / "data" / "traces"
SPECS = {spec.name: spec for spec in plugin.vcore_eviction_policies()}

Maker = Callable[[EvictionContext], EvictionPolicy]


@pytest.fixture
def maker() -> Callable[[str], Maker]:
    """What builds the policy of a name, with its default options."""

    def find(name: str) -> Maker:
        load = SPECS[name].load
        assert isinstance(load, str)
        module, _, attribute = load.partition(":")
        policy = getattr(importlib.import_module(module), attribute)
        return lambda context: policy(options=None, context=context)

    return find


@pytest.fixture
def recorded() -> Callable[[str], list[tuple[int, ...]]]:
    """The prompts of a recorded trace, as block ids."""

    def read(name: str) -> list[tuple[int, ...]]:
        file = TRACES / f"{name}_A.jsonl.gz"
        if not file.exists():
            pytest.skip(f"no recorded trace {file}")
        return [request.block_ids for request in read_trace(file).requests]

    return read
