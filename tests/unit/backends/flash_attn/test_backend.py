"""The flash_attn backends over stand-ins for the library, in all that the contract suite asks, and beyond."""

from __future__ import annotations

import sys
from dataclasses import replace
from pkgutil import resolve_name

import numpy as np
import pytest
import torch
from vcore_backends.flash_attn.backend import FlashAttention2Backend, FlashAttention4Backend
from vcore_backends.flash_attn.plugin import vcore_attention_backends

from vcore.interfaces.attention import LayerSpec
from vcore.plugins.specs import AttentionBackendSpec
from vcore.testing.attention_case import AttentionCase

BACKENDS = list(vcore_attention_backends())
SPEC = LayerSpec(num_heads=4, num_kv_heads=2, head_dim=32, scale=0.2)
MIXED = [(1, 1), (1, 300), (1, 17), (7, 7), (5, 520)]

each = pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)


def _case(backend: AttentionBackendSpec, spec: LayerSpec = SPEC, requests=MIXED, **keywords) -> AttentionCase:
    assert backend.capabilities.block_sizes is not None
    return AttentionCase(spec, requests, block_size=backend.capabilities.block_sizes[0], **keywords)


def _check(case: AttentionCase, result: torch.Tensor) -> None:
    assert result.shape == case.q.shape
    assert result.dtype == case.q.dtype
    torch.testing.assert_close(result.double(), case.expected(), rtol=2e-6, atol=2e-6)


def test_contract(backend: AttentionBackendSpec, contract_case, libraries, free_blocks):
    case = AttentionCase(**contract_case)
    if case.spec.sliding_window is not None:
        free_blocks(case, contract_case["block_size"])
    _check(case, case.run(resolve_name(backend.load)))


@each
def test_each_step_is_at_most_two_calls(backend: AttentionBackendSpec, libraries):
    calls = libraries[backend.name].calls
    case = _case(backend)
    case.run(resolve_name(backend.load))
    assert [arguments["rows"] for _, arguments in calls] == [3, 2]
    calls.clear()
    _case(backend, requests=MIXED[:3]).run(resolve_name(backend.load))
    _case(backend, requests=MIXED[3:]).run(resolve_name(backend.load))
    assert [arguments["rows"] for _, arguments in calls] == [3, 2]


def test_version_2_decodes_by_the_function_that_splits_contexts(libraries):
    _case(BACKENDS[0]).run(FlashAttention2Backend)
    assert [name for name, _ in libraries["flash_attn"].calls] == ["kvcache", "varlen"]


@each
@pytest.mark.parametrize("requests", [MIXED, MIXED[:3], MIXED[3:]], ids=["mixed", "decode", "prefill"])
def test_the_result_goes_where_it_is_asked_to(backend: AttentionBackendSpec, requests, libraries):
    case = _case(backend, requests=requests)
    out = torch.full_like(case.q, float("nan"))
    result = case.run(resolve_name(backend.load), out=out)
    assert result.data_ptr() == out.data_ptr()
    _check(case, out)


@each
def test_queries_may_be_views_of_a_projection(backend: AttentionBackendSpec, libraries):
    case = _case(backend)
    joined = torch.cat((case.q, case.k, case.v), 1)
    case.q, case.k, case.v = torch.split(joined, (4, 2, 2), 1)
    _check(case, case.run(resolve_name(backend.load)))


@each
@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, sliding_window=100)], ids=["plain", "window"])
def test_blocks_may_lie_further_apart_than_they_are_long(backend: AttentionBackendSpec, spec: LayerSpec, libraries):
    case = _case(backend, spec)
    engine = resolve_name(backend.load)(options=None, context=case.context())
    cache = case.cache()
    wide = torch.full((len(cache), cache[0].numel() + 48), float("nan"))
    spread = wide[:, : cache[0].numel()].view(cache.shape)
    spread.copy_(cache)
    _check(case, engine.build_layer(spec).forward(case.q, case.k, case.v, spread, engine.plan(case.metadata)))


@each
def test_host_lengths_may_be_upper_bounds(backend: AttentionBackendSpec, libraries):
    case = _case(backend)
    case.metadata.seq_lens_cpu = case.metadata.seq_lens_cpu + np.int32(9)
    case.metadata.max_seq_len += 9
    _check(case, case.run(resolve_name(backend.load)))


@each
def test_a_plan_of_decode_rows_follows_its_tensors(backend: AttentionBackendSpec, libraries):
    """As a CUDA graph replays it: planned once with bounds, then the tensors are refilled."""
    case = _case(backend, requests=MIXED[:3])
    metadata, context = case.metadata, case.context()
    seq_lens, block_table = metadata.seq_lens.clone(), metadata.block_table.clone()
    metadata.seq_lens.fill_(1)
    metadata.block_table.zero_()
    metadata.seq_lens_cpu = np.full(3, context.max_model_len, dtype=np.int32)
    engine = resolve_name(backend.load)(options=None, context=context)
    layer, plan = engine.build_layer(SPEC), engine.plan(metadata)
    metadata.seq_lens.copy_(seq_lens)
    metadata.block_table.copy_(block_table)
    _check(case, layer.forward(case.q, case.k, case.v, case.cache(), plan))


@each
def test_layers_share_a_plan_and_steps_a_backend(backend: AttentionBackendSpec, libraries):
    first, second = _case(backend, seed=1), _case(backend, requests=MIXED[1:4], seed=2)
    engine = resolve_name(backend.load)(options=None, context=first.context())
    layer = engine.build_layer(SPEC)
    assert engine.build_layer(SPEC) is layer
    for case in (first, second, first):
        plan = engine.plan(case.metadata)
        for _ in range(2):
            _check(case, layer.forward(case.q, case.k, case.v, case.cache(), plan))


@each
@pytest.mark.parametrize(("window", "sent"), [(519, 518), (520, None), (1000, None)])
def test_a_window_that_no_context_outgrows_is_none(backend: AttentionBackendSpec, window: int, sent, libraries):
    _case(backend, replace(SPEC, sliding_window=window)).run(resolve_name(backend.load))
    unlimited = (None, None) if backend.name == "flash_attn_4" else (-1, -1)
    expected = unlimited if sent is None else (sent, 0)
    assert [arguments["window"] for _, arguments in libraries[backend.name].calls] == [expected, expected]


@each
def test_what_it_refuses(backend: AttentionBackendSpec, libraries):
    attention, context = resolve_name(backend.load), _case(backend).context()
    assert attention.unsupported_reasons(context, [SPEC]) == ()
    (reason,) = attention.unsupported_reasons(context, [replace(SPEC, v_head_dim=16)] * 2)
    assert "values of 16 dimensions beside keys of 32" in reason
    (reason,) = attention.unsupported_reasons(context, [replace(SPEC, scale=0.0)])
    assert "must be positive" in reason
    (reason,) = attention.unsupported_reasons(context, [replace(SPEC, causal=False, sliding_window=3)])
    assert "causal layers only" in reason


@each
def test_a_library_that_does_not_load_is_a_reason(
    backend: AttentionBackendSpec, libraries, monkeypatch: pytest.MonkeyPatch
):
    for name in ("flash_attn", "flash_attn_interface", "flash_attn.cute"):
        monkeypatch.setitem(sys.modules, name, None)
    (reason,) = resolve_name(backend.load).unsupported_reasons(_case(backend).context(), [SPEC])
    assert "does not load" in reason
    assert torch.__version__ in reason


@pytest.mark.parametrize(("capability", "refused"), [((9, 0), False), ((10, 3), False), ((12, 0), True)])
def test_version_4_knows_its_devices(capability, refused: bool, libraries, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    context = replace(_case(BACKENDS[2]).context(), device=torch.device("cuda:0"))
    reasons = FlashAttention4Backend.unsupported_reasons(context, [SPEC])
    assert [("12.0" in reason) for reason in reasons] == ([True] if refused else [])
