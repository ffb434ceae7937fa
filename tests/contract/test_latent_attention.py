"""Every attention backend that lists ``mla`` and runs on this device, against latent attention by its formula.

Under ``TRITON_INTERPRET=1`` they are those written in Triton, on the CPU, in fewer shapes: the interpreter is slow.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from pkgutil import resolve_name

import pytest
import torch
from packaging.requirements import Requirement

from vcore.interfaces.attention import AttentionBackend, LatentSpec
from vcore.plugins.specs import AttentionBackendSpec
from vcore.testing.latent_case import LatentCase, RaggedCase

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [pytest.mark.interpreted] if INTERPRETED else []
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
LITE = LatentSpec(num_heads=4, kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=24, scale=0.125)
"""All sizes differ, so that none can stand for another."""
PUBLISHED = LatentSpec(
    num_heads=16, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, scale=0.07
)
"""A layer of DeepSeek-V2-Lite; with 128 heads, or as many a rank, of DeepSeek-V3."""

# Tokens in this step, tokens in all: decode rows of all sorts, whole prompts, chunks.
MIXED = [(1, 1), (1, 5), (1, 16), (1, 17), (1, 40), (1, 3), (7, 7), (5, 20), (2, 33), (17, 17)]
if INTERPRETED:
    MIXED = [(1, 1), (1, 17), (1, 40), (7, 7), (5, 20)]
# Queries and keys.
RAGGED = [(5, 5), (1, 1), (2, 33), (17, 17), (1, 40)]
LONG = 80 if INTERPRETED else 300
"""Tokens of a long prompt."""
TOLERANCES = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


HOOK = "vcore_attention_backends"


def _backends_here() -> list[AttentionBackendSpec]:
    plugins = [point.load() for point in entry_points(group="vcore") if point.module.startswith("vcore_backends.")]
    specs = [spec for plugin in plugins if hasattr(plugin, HOOK) for spec in getattr(plugin, HOOK)()]
    return [spec for spec in specs if _runs_here(spec) and "mla" in spec.capabilities.features]


def _runs_here(backend: AttentionBackendSpec) -> bool:
    if INTERPRETED:
        return any(Requirement(line).name == "triton" for line in backend.requires)
    return not {"*", DEVICE}.isdisjoint(backend.capabilities.devices)


BACKENDS = _backends_here()
each = pytest.mark.parametrize("backend", BACKENDS, ids=lambda spec: spec.name)


def _attention(backend: AttentionBackendSpec) -> Callable[..., AttentionBackend]:
    assert isinstance(backend.load, str)
    return resolve_name(backend.load)


def _block_sizes(backend: AttentionBackendSpec) -> tuple[int, ...]:
    return backend.capabilities.block_sizes or (1, 4, 16)


def _dtypes(backend: AttentionBackendSpec) -> list[torch.dtype]:
    # The interpreter computes bfloat16 wrongly.
    names = [name for name in backend.capabilities.dtypes if not (INTERPRETED and name == "bfloat16")]
    return [getattr(torch, name) for name in names]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def _own_reasons(backend: AttentionBackendSpec, case: LatentCase | RaggedCase) -> list[str]:
    """What the backend itself has against the case."""
    attention = _attention(backend)
    assert isinstance(attention, type)
    return list(attention.unsupported_latent_reasons(case.context(), [case.spec]))


def _check(case: LatentCase, backend: AttentionBackendSpec, **keywords) -> None:
    assert not _own_reasons(backend, case)
    result = case.run(_attention(backend), **keywords)
    tolerance = TOLERANCES[case.q.dtype]
    expected = case.expected()[: len(result)]
    assert result.shape == (*case.q[: len(result)].shape[:2], case.spec.kv_lora_rank)
    assert result.dtype == case.q.dtype
    torch.testing.assert_close(result.cpu().double(), expected, rtol=tolerance, atol=tolerance)


def _check_ragged(case: RaggedCase, backend: AttentionBackendSpec) -> None:
    assert not _own_reasons(backend, case)
    tolerance = TOLERANCES[case.q.dtype]
    expected, expected_lse = case.expected()
    for return_lse in (False, True):
        result, lse = case.run(_attention(backend), return_lse=return_lse)
        assert result.dtype == case.q.dtype
        torch.testing.assert_close(result.cpu().double(), expected, rtol=tolerance, atol=tolerance)
        assert (lse is not None) == return_lse
        if lse is not None:
            assert lse.dtype == torch.float32
            torch.testing.assert_close(lse.cpu().double(), expected_lse, rtol=tolerance, atol=tolerance)


def _case(backend: AttentionBackendSpec, spec: LatentSpec = LITE, requests=MIXED, **keywords) -> LatentCase:
    keywords = {
        "block_size": _block_sizes(backend)[-1],
        "dtype": _dtypes(backend)[0],
        "device": DEVICE,
    } | keywords
    return LatentCase(spec, requests, **keywords)


def _ragged(backend: AttentionBackendSpec, spec: LatentSpec = LITE, requests=RAGGED, **keywords) -> RaggedCase:
    keywords = {"causal": True, "dtype": _dtypes(backend)[0], "device": DEVICE} | keywords
    return RaggedCase(spec, requests, **keywords)


def test_some_backend_runs_here():
    assert BACKENDS


# In the absorbed form, over the cache


@each
@pytest.mark.parametrize("num_heads", [1, 16] if INTERPRETED else [1, 4, 16])
@pytest.mark.parametrize("decodes_only", [False, True])
def test_a_mixed_batch_of_every_shape(backend: AttentionBackendSpec, num_heads: int, decodes_only: bool):
    for block_size in _block_sizes(backend):
        case = _case(backend, replace(LITE, num_heads=num_heads), block_size=block_size)
        _check(case, backend, decodes_only=decodes_only)


@each
def test_the_published_shape(backend: AttentionBackendSpec):
    _check(_case(backend, PUBLISHED), backend)
    _check_ragged(_ragged(backend, PUBLISHED, RAGGED[:3] if INTERPRETED else RAGGED), backend)


@each
def test_every_dtype(backend: AttentionBackendSpec):
    cases = [(_case(backend, dtype=dtype), _ragged(backend, dtype=dtype)) for dtype in _dtypes(backend)]
    served = [pair for pair in cases if not _own_reasons(backend, pair[0])]
    assert served
    for case, ragged in served:
        _check(case, backend)
        _check_ragged(ragged, backend)


@each
@pytest.mark.parametrize(
    "requests",
    [
        [(1, 9)],
        [(1, 600)],
        [(12, 12)],
        [(LONG // 2, LONG // 2)],
        [(LONG // 2 - 10, LONG)],
        [(1, length) for length in (2, 900, 60, 61, 450, 1, 1, 333)],
        [(1, 30), (1, 30), (1, 30)],
        [(1, 20), (LONG, LONG), (LONG // 2, LONG - 20)],
    ],
    ids=str,
)
def test_batches_of_one_kind_and_long_ones(backend: AttentionBackendSpec, requests: list[tuple[int, int]]):
    _check(_case(backend, requests=requests), backend)


@each
def test_the_scale_is_the_one_asked_for(backend: AttentionBackendSpec):
    _check(_case(backend, replace(LITE, scale=0.3)), backend)
    _check_ragged(_ragged(backend, replace(LITE, scale=0.3)), backend)


@each
def test_the_result_goes_where_it_is_asked_to(backend: AttentionBackendSpec):
    case = _case(backend)
    out = case.q.new_full((*case.q.shape[:2], LITE.kv_lora_rank), float("nan"))
    result = case.run(_attention(backend), out=out)
    assert result.data_ptr() == out.data_ptr()
    assert not out.isnan().any()


@each
def test_a_request_gets_the_same_in_any_batch_and_blocks(backend: AttentionBackendSpec):
    """To the rounding of the last digit, so that greedy tokens depend on neither."""
    for lens in [(1, 40), (9, 9), (6, 31)]:
        mates = MIXED if lens[0] == 1 else [request for request in MIXED if request[0] > 1]
        alone = _case(backend, requests=[lens])
        result = alone.run(_attention(backend))
        for block_size in _block_sizes(backend):
            # The numbers of the first request are drawn first, so that they stay when others join.
            crowd = _case(backend, requests=[lens, *mates], block_size=block_size)
            crowd.q[: lens[0]] = alone.q
            joined = crowd.run(_attention(backend))[: lens[0]]
            tolerance = TOLERANCES[alone.q.dtype] / 2
            torch.testing.assert_close(joined, result, rtol=tolerance, atol=tolerance)


@each
def test_layers_share_a_plan_and_steps_a_backend(backend: AttentionBackendSpec):
    first, second = _case(backend, seed=1), _case(backend, requests=MIXED[2:], seed=2)
    engine = _attention(backend)(options=None, context=first.context())
    layers = [engine.build_latent_layer(LITE) for _ in range(2)]
    tolerance = TOLERANCES[first.q.dtype]
    for case in (first, second, first):
        plan, num_decodes = engine.plan(case.metadata), case.metadata.num_decodes
        expected = case.expected()
        for layer in layers:
            whole = layer.forward_absorbed(case.q, case.cache(), plan)
            decodes = layer.forward_absorbed(case.q[:num_decodes], case.cache(), plan)
            torch.testing.assert_close(whole.cpu().double(), expected, rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(decodes, whole[:num_decodes], rtol=tolerance, atol=tolerance)


@each
def test_neither_inputs_nor_metadata_are_changed(backend: AttentionBackendSpec):
    case, ragged = _case(backend), _ragged(backend)
    metadata = case.metadata
    inputs = [case.q, metadata.block_table, metadata.seq_lens, ragged.q, ragged.k, ragged.v]
    before = [tensor.clone() for tensor in inputs]
    case.run(_attention(backend))
    ragged.run(_attention(backend), return_lse=True)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(inputs, before, strict=True))


# In the up-projected form, over keys and values at hand


@each
@pytest.mark.parametrize("num_heads", [1, 16] if INTERPRETED else [1, 4, 16])
@pytest.mark.parametrize("causal", [False, True])
def test_ragged_requests(backend: AttentionBackendSpec, num_heads: int, causal: bool):
    _check_ragged(_ragged(backend, replace(LITE, num_heads=num_heads), causal=causal), backend)


@each
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "requests", [[(LONG, LONG)], [(LONG // 2, LONG - 20), (LONG // 2 - 10, LONG // 2 - 9)], [(3, 700)]], ids=str
)
def test_long_ragged_requests(backend: AttentionBackendSpec, requests: list[tuple[int, int]], causal: bool):
    _check_ragged(_ragged(backend, requests=requests, causal=causal), backend)


@each
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("requests", [[(3, 0)], [(4, 9), (3, 0), (200, 0), (2, 5)], [(7, 3), (150, 2)]], ids=str)
def test_queries_without_keys_give_zeros(backend: AttentionBackendSpec, requests: list[tuple[int, int]], causal: bool):
    case = _ragged(backend, requests=requests, causal=causal)
    _check_ragged(case, backend)
    if requests[0][1] == 0:
        result, lse = case.run(_attention(backend), return_lse=True)
        assert not result[:3].any()
        assert lse is not None
        assert (lse[:3] == float("-inf")).all()


@each
def test_the_cases_see_a_wrong_answer(backend: AttentionBackendSpec):
    """The comparison itself notices another scale."""
    wrong = replace(LITE, scale=0.2)
    case, ragged = _case(backend, wrong), _ragged(backend, wrong)
    result, (ragged_result, lse) = case.run(_attention(backend)), ragged.run(_attention(backend), return_lse=True)
    case.spec = ragged.spec = LITE
    assert lse is not None
    assert (result.cpu().double() - case.expected()).abs().max() > 1e-2
    assert (ragged_result.cpu().double() - ragged.expected()[0]).abs().max() > 1e-2
    assert (lse.cpu().double() - ragged.expected()[1]).abs().max() > 1e-2
