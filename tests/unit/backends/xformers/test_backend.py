"""The xformers backend over a stand-in for the library, in all that the contract suite asks, and beyond."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from vcore_backends.xformers import prefill
from vcore_backends.xformers.backend import XFormersBackend
from vcore_backends.xformers.plugin import vcore_attention_backends

from vcore.errors import ConfigError
from vcore.interfaces.attention import LayerSpec
from vcore.testing.attention_case import AttentionCase

BACKENDS = list(vcore_attention_backends())
SPEC = LayerSpec(num_heads=4, num_kv_heads=2, head_dim=32, scale=0.2)
WINDOWED = replace(SPEC, sliding_window=100)
DECODES = [(1, 1), (1, 300), (1, 17), (1, 64), (1, 65)]
MIXED = [*DECODES, (7, 7), (5, 520), (2, 90), (9, 9), (8, 8)]

each_spec = pytest.mark.parametrize(
    "spec", [SPEC, WINDOWED, replace(SPEC, causal=False)], ids=["plain", "window", "non_causal"]
)


def _case(spec: LayerSpec = SPEC, requests=MIXED, block_size: int = 64, **keywords) -> AttentionCase:
    return AttentionCase(spec, requests, block_size=block_size, **keywords)


def _check(case: AttentionCase, result: torch.Tensor) -> None:
    assert result.shape == case.q.shape
    assert result.dtype == case.q.dtype
    torch.testing.assert_close(result.double(), case.expected(), rtol=2e-6, atol=2e-6)


def test_contract(backend, contract_case, library, free_blocks):
    case = AttentionCase(**contract_case)
    if case.spec.sliding_window is not None:
        free_blocks(case, contract_case["block_size"])
    _check(case, case.run(XFormersBackend))


def test_whole_prompts_are_not_gathered_and_runs_are_as_long_as_can_be(library):
    case = _case()
    backend = XFormersBackend(options=None, context=case.context())
    runs = backend.plan(case.metadata).prefill(True, None)
    assert [(run.tokens.start, run.tokens.stop) for run in runs] == [(5, 12), (12, 19), (19, 36)]
    assert [run.index(2) is None for run in runs] == [True, False, True]


def test_what_is_gathered_is_cut_before_it_is_too_much(library, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prefill, "MAX_GATHERED_KEYS", 200)
    case = _case(requests=[(5, 90), (5, 100), (5, 110), (5, 300), (150, 150), (150, 150), (2, 20)])
    _check(case, case.run(XFormersBackend))
    rows = [len(mask.q_seqinfo.seqstart) - 1 for mask in library.flash.masks]
    assert rows == [2, 1, 1, 2, 1]


def test_a_window_gathers_only_what_it_sees(library):
    case = _case(WINDOWED, [(5, 520), (30, 60)])
    _check(case, case.run(XFormersBackend))
    assert library.flash.masks[0].k_seqinfo.seqstart.tolist() == [0, 104, 164]


def test_few_kernels_are_compiled(library):
    """One for each power of two of rows and of blocks, however lengths go on."""
    for rows in (1, 3, 4, 5, 8):
        for length in range(10, 600, 60):
            _check(case := _case(requests=[(1, length)] * rows), case.run(XFormersBackend))
    assert set(library.split_kv.compiled) == {(rows, width) for rows in (1, 4, 8) for width in (1, 2, 4, 8, 16)}


def test_a_window_keeps_tables_narrow(library):
    case = _case(WINDOWED, [(1, 900), (1, 500), (1, 3)])
    _check(case, case.run(XFormersBackend))
    assert library.split_kv.compiled == [(4, 4)]  # 100 tokens touch three blocks of 64


@pytest.mark.parametrize(("window", "width"), [(1, 1), (2, 2), (65, 2), (66, 4), (129, 4)])
def test_tables_hold_the_most_blocks_that_a_window_touches(window: int, width: int, library):
    for length in (639, 640, 641):
        case = _case(replace(SPEC, sliding_window=window), [(1, length)])
        _check(case, case.run(XFormersBackend))
    assert set(library.split_kv.compiled) == {(1, width)}


@each_spec
def test_host_lengths_may_be_upper_bounds(spec: LayerSpec, library):
    case = _case(spec)
    metadata = case.metadata
    whole = metadata.seq_lens_cpu == np.diff(metadata.query_start_loc_cpu)
    whole[: metadata.num_decodes] = False
    metadata.seq_lens_cpu = metadata.seq_lens_cpu + np.where(whole, 0, 70).astype(np.int32)
    metadata.max_seq_len += 70
    _check(case, case.run(XFormersBackend))


@each_spec
def test_decode_follows_the_tensors_alone(spec: LayerSpec, library):
    """As a CUDA graph sees it: the host has bounds, tables have their full width."""
    case = _case(spec, DECODES)
    metadata = case.metadata
    metadata.seq_lens_cpu = np.full(len(DECODES), 4096, dtype=np.int32)
    metadata.max_seq_len = 4096
    metadata.block_table = torch.nn.functional.pad(metadata.block_table, (0, 59))
    _check(case, case.run(XFormersBackend))


class _NoReads(TorchDispatchMode):
    """Fails where a value is fetched from the device, and where a shape depends on one."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.__name__.partition(".")[0] not in ("_local_scalar_dense", "nonzero", "masked_select")
        return function(*args, **(kwargs or {}))


@each_spec
def test_a_decode_step_reads_nothing_from_the_device(spec: LayerSpec, library, monkeypatch: pytest.MonkeyPatch):
    case = _case(spec, DECODES)
    backend = XFormersBackend(options=None, context=case.context())
    layer, cache = backend.build_layer(spec), case.cache()
    layer.forward(case.q, case.k, case.v, cache, backend.plan(case.metadata))  # the first time, constants are made
    monkeypatch.setattr(library.split_kv, "apply", lambda inputs, needs_gradient: (inputs.query, None))
    monkeypatch.setattr(torch, "tensor", None)
    with _NoReads():
        layer.forward(case.q, case.k, case.v, cache, backend.plan(case.metadata))


def test_the_result_goes_where_it_is_asked_to(library):
    case = _case()
    out = torch.full_like(case.q, float("nan"))
    assert case.run(XFormersBackend, out=out).data_ptr() == out.data_ptr()
    _check(case, out)


@pytest.mark.parametrize("requests", [MIXED, DECODES[:4]], ids=["padded", "exact"])
def test_queries_keys_and_values_may_be_views_of_one_projection(requests, library):
    case = _case(requests=requests)
    joined = torch.cat((case.q, case.k, case.v), 1)
    case.q, case.k, case.v = torch.split(joined, (4, 2, 2), 1)
    _check(case, case.run(XFormersBackend))


@pytest.mark.parametrize("pages", [3, 4])
def test_blocks_may_lie_whole_pages_apart(pages: int, library):
    case = _case()
    spread = _spread(case.cache(), pages * 64 * 2 * 32)
    backend = XFormersBackend(options=None, context=case.context())
    layer = backend.build_layer(SPEC)
    _check(case, layer.forward(case.q, case.k, case.v, spread, backend.plan(case.metadata)))


def test_layers_of_one_step_may_have_caches_of_several_strides(library):
    case = _case()
    backend = XFormersBackend(options=None, context=case.context())
    layer, plan = backend.build_layer(SPEC), backend.plan(case.metadata)
    for pages in (2, 3, 2, 5):
        _check(case, layer.forward(case.q, case.k, case.v, _spread(case.cache(), pages * 64 * 2 * 32), plan))


def test_other_strides_are_refused(library):
    case = _case()
    backend = XFormersBackend(options=None, context=case.context())
    spread = _spread(case.cache(), 2 * 64 * 2 * 32 + 16)
    with pytest.raises(ConfigError, match=r"pages of 4096 numbers.*lie 8208 apart"):
        backend.build_layer(SPEC).forward(case.q, case.k, case.v, spread, backend.plan(case.metadata))


def _spread(cache: torch.Tensor, stride: int) -> torch.Tensor:
    """The same blocks, `stride` numbers apart, NaN between them."""
    wide = torch.full((len(cache), stride), float("nan"))
    spread = wide[:, : cache[0].numel()].view(cache.shape)
    return spread.copy_(cache)


def test_layers_share_a_plan_steps_a_backend_and_all_of_them_scratch(library):
    first, second = _case(seed=1), _case(requests=MIXED[3:9], seed=2)
    backend = XFormersBackend(options=None, context=first.context())
    layers = [backend.build_layer(spec) for spec in (SPEC, WINDOWED, SPEC)]
    assert layers[0] is layers[2]
    assert layers[0]._scratch is layers[1]._scratch
    memory = set()
    for case in (first, second, first):
        plan = backend.plan(case.metadata)
        for layer, spec in zip(layers, (SPEC, WINDOWED, SPEC), strict=True):
            case.spec = spec
            _check(case, layer.forward(case.q, case.k, case.v, case.cache(), plan))
            memory.add(layer._scratch._memory.data_ptr())
    assert len(memory) == 1  # the first step needs most


def test_a_window_that_no_context_outgrows_is_none(library):
    _case(replace(SPEC, sliding_window=520)).run(XFormersBackend)
    assert library.flash.masks[0].window is None
    library.flash.masks.clear()
    _case(replace(SPEC, sliding_window=519)).run(XFormersBackend)
    assert library.flash.masks[0].window == 519


def test_inputs_and_metadata_stay_as_they_are(library):
    case = _case(WINDOWED)
    metadata, cache = case.metadata, case.cache()
    tensors = [case.q, case.k, case.v, cache, metadata.block_table, metadata.seq_lens, metadata.query_start_loc]
    before = [tensor.clone() for tensor in tensors]
    backend = XFormersBackend(options=None, context=case.context())
    backend.build_layer(WINDOWED).forward(case.q, case.k, case.v, cache, backend.plan(metadata))
    for tensor, copy in zip(tensors, before, strict=True):
        torch.testing.assert_close(tensor, copy, rtol=0, atol=0, equal_nan=True)


def test_what_it_refuses(library):
    context = _case().context()
    small = replace(SPEC, num_heads=2, num_kv_heads=1)
    assert XFormersBackend.unsupported_reasons(context, [SPEC, small]) == ()
    refused = {
        "values of 16 dimensions beside keys of 32": replace(SPEC, v_head_dim=16),
        "must be positive": replace(SPEC, scale=0.0),
        "causal layers only": replace(SPEC, causal=False, sliding_window=3),
        "take 64, 96 numbers a token": replace(SPEC, num_heads=6, num_kv_heads=3),
    }
    for text, spec in refused.items():
        (reason,) = XFormersBackend.unsupported_reasons(context, [SPEC, spec])
        assert text in reason


def test_an_operator_that_is_not_available_is_a_reason(library):
    library.flash.available = False
    (reason,) = XFormersBackend.unsupported_reasons(_case().context(), [SPEC])
    assert "flash.FwOp" in reason
    assert "xformers.info" in reason


def test_a_library_that_does_not_load_is_a_reason(library, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "xformers.ops.fmha", None)
    (reason,) = XFormersBackend.unsupported_reasons(_case().context(), [SPEC])
    assert "does not load" in reason
    assert torch.__version__ in reason


def test_powers_of_two():
    from vcore_backends.xformers.buckets import bucket

    sizes = [bucket(size) for size in range(1, 600)]
    assert all(size <= found < 2 * size for size, found in enumerate(sizes, 1))
    assert all(later >= earlier for earlier, later in pairwise(sizes))
    assert len(set(sizes)) == 11
