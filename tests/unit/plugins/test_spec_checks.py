"""The slips that authors make in a spec, and the sentence that each gets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vcore.plugins import (
    AttentionBackendSpec,
    AttentionCapabilities,
    EvictionPolicySpec,
    LogitsProcessorSpec,
    ModelSourceSpec,
    ModelSpec,
    ObserverSpec,
    PluginSpec,
    ReasoningParserSpec,
    ToolParserSpec,
    WeightLoaderSpec,
)
from vcore.plugins.spec_checks import spec_faults

EVICTION = EvictionPolicySpec(name="lru", load="acme.lru:LRU", api="1.0")
MODEL = ModelSpec(name="m", load="acme:M", api="1.0", architectures=("MForCausalLM",))
SOURCE = ModelSourceSpec(name="s", load="acme:S", api="1.0", schemes=("s",))
LOADER = WeightLoaderSpec(name="w", load="acme:W", api="1.0", formats=("w",))
ABILITIES = AttentionCapabilities(devices=("*",), dtypes=("float32",), head_dims=None, block_sizes=(16,))
OBSERVER = ObserverSpec(name="o", load="acme:O", api="1.0")
BACKEND = AttentionBackendSpec(name="b", load="acme:B", api="1.0", capabilities=ABILITIES)
PROCESSOR = LogitsProcessorSpec(name="p", load="acme:P", api="1.0")
TOOLS = ToolParserSpec(name="t", load="acme:T", api="1.0", templates=("<call>",))
REASONING = ReasoningParserSpec(name="r", load="acme:R", api="1.0")


@pytest.mark.parametrize(
    "spec", [PROCESSOR, TOOLS, REASONING, EVICTION, MODEL, SOURCE, LOADER, BACKEND, replace(EVICTION, load=dict)]
)
def test_good_specs_pass(spec: PluginSpec) -> None:
    assert spec_faults(spec, own_module=False) == []


@pytest.mark.parametrize(
    ("spec", "changes", "fault"),
    [
        (EVICTION, {"name": "LRU"}, "name='LRU': expected lower case"),
        (EVICTION, {"name": ""}, "name=''"),
        (EVICTION, {"name": "a@b"}, "name='a@b'"),
        (EVICTION, {"name": 3}, "name=3"),
        (EVICTION, {"name": "auto"}, "leave the choice to vcore"),
        (EVICTION, {"load": "acme.lru"}, "load='acme.lru' is not of the form 'package.module:Attribute'"),
        (EVICTION, {"load": "acme/lru.py:LRU"}, "load='acme/lru.py:LRU' is not"),
        (EVICTION, {"load": ":LRU"}, "load=':LRU' is not of the form"),
        (EVICTION, {"load": 5}, "load=5: expected 'package.module:Attribute', or in a notebook the class"),
        (EVICTION, {"options": "nope"}, "options='nope' is not of the form"),
        (EVICTION, {"options": 5}, "options=5: expected"),
        (EVICTION, {"api": "1"}, "api='1' is not of the form 'MAJOR.MINOR'"),
        (EVICTION, {"api": 1.0}, "api=1.0: expected a string 'MAJOR.MINOR'"),
        (EVICTION, {"summary": None}, "summary=None: expected a string"),
        (EVICTION, {"rank": "high"}, "rank='high': expected an integer"),
        (EVICTION, {"rank": True}, "rank=True: expected an integer"),
        (EVICTION, {"requires": "triton>=3"}, "expected a tuple of strings, such as ('triton>=3',)"),
        (EVICTION, {"requires": ("triton > > 3",)}, "'triton > > 3' is not a PEP 508 requirement"),
        (MODEL, {"architectures": "MForCausalLM"}, "such as ('MForCausalLM',)"),
        (PROCESSOR, {"structured_output": ("regex",)}, "structured_output=('regex',): expected a frozenset"),
        (PROCESSOR, {"structured_output": frozenset({"sonnet"})}, "structured_output has 'sonnet'; the core knows"),
        (TOOLS, {"templates": "<call>"}, "expected a tuple of strings, such as ('<call>',)"),
        (REASONING, {"templates": ("(",)}, "templates has no regular expression: "),
        (MODEL, {"architectures": ()}, "architectures is empty"),
        (MODEL, {"architectures": ("",)}, "expected a tuple of strings"),
        (MODEL, {"features": ("moe",)}, "features=('moe',): expected a frozenset"),
        (MODEL, {"features": frozenset({"moe", "telepathy"})}, "features has 'telepathy'; the core knows mla, moe"),
        (LOADER, {"suffixes": ".bin"}, "suffixes='.bin'"),
        (SOURCE, {"pattern": "("}, "pattern is not a regular expression"),
        (OBSERVER, {"events": ["step"]}, "events=['step']: expected a frozenset"),
        (OBSERVER, {"events": frozenset({"steps"})}, "events has 'steps'; the core knows finished, step"),
        (BACKEND, {"capabilities": {}}, "capabilities={}: expected an AttentionCapabilities"),
        (BACKEND, {"capabilities": replace(ABILITIES, dtypes="float32")}, "dtypes='float32': expected a tuple"),
        (BACKEND, {"capabilities": replace(ABILITIES, features=["mla"])}, "features=['mla']: expected a frozenset"),
        (BACKEND, {"capabilities": replace(ABILITIES, fuses=frozenset({"ropes"}))}, "fuses has 'ropes'; the core"),
        (BACKEND, {"capabilities": replace(ABILITIES, graph_support="some")}, "graph_support='some': expected one of"),
    ],
)  # fmt: skip
def test_a_slip_gets_its_sentence(spec: PluginSpec, changes: dict[str, object], fault: str) -> None:
    [found] = spec_faults(replace(spec, **changes), own_module=False)
    assert fault in found


def test_every_slip_is_told_at_once() -> None:
    assert len(spec_faults(replace(EVICTION, name="X", load="x", api="x"), own_module=False)) == 3


def test_a_file_may_name_its_own_attributes() -> None:
    assert spec_faults(replace(EVICTION, load=":LRU"), own_module=True) == []
