"""Every attention backend that runs on this device, against attention by its formula.

Each backend is tried in all that its capabilities list, and in nothing else. Under ``TRITON_INTERPRET=1`` they are
those written in Triton, on the CPU, in fewer shapes: the interpreter is slow.
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

from vcore.interfaces.attention import AttentionBackend, LayerSpec
from vcore.plugins.distributions import requirement_problem
from vcore.plugins.specs import AttentionBackendSpec
from vcore.testing.attention_case import AttentionCase

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [pytest.mark.interpreted] if INTERPRETED else []
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
SPEC = LayerSpec(num_heads=4, num_kv_heads=2, head_dim=64, scale=0.125)

# Tokens in this step, tokens in all: decode rows of all sorts, whole prompts, chunks.
MIXED = [(1, 1), (1, 5), (1, 16), (1, 17), (1, 40), (1, 3), (7, 7), (5, 20), (2, 33), (17, 17)]
LONG = 80 if INTERPRETED else 300
"""Tokens of a long prompt."""
TOLERANCES = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


HOOK = "vcore_attention_backends"


def _backends_here() -> list[AttentionBackendSpec]:
    plugins = [point.load() for point in entry_points(group="vcore") if point.module.startswith("vcore_backends.")]
    specs = [
        spec for plugin in plugins if hasattr(plugin, HOOK) for spec in getattr(plugin, HOOK)() if _is_installed(spec)
    ]
    return [spec for spec in specs if _runs_here(spec) and spec.capabilities.features != {"mla"}]


def _runs_here(backend: AttentionBackendSpec) -> bool:
    if INTERPRETED:
        return any(Requirement(line).name == "triton" for line in backend.requires)
    return not {"*", DEVICE}.isdisjoint(backend.capabilities.devices)


def _is_installed(backend: AttentionBackendSpec) -> bool:
    """Whether the libraries that it computes with are."""
    return not any(requirement_problem(line) for line in backend.requires)


BACKENDS = _backends_here()


def _attention(backend: AttentionBackendSpec) -> Callable[..., AttentionBackend]:
    assert isinstance(backend.load, str)
    return resolve_name(backend.load)


def _each(*features: str) -> pytest.MarkDecorator:
    """The backends that list all of `features`."""
    able = [spec for spec in BACKENDS if spec.capabilities.features.issuperset(features)]
    return pytest.mark.parametrize("backend", able, ids=lambda spec: spec.name)


def _block_sizes(backend: AttentionBackendSpec) -> tuple[int, ...]:
    return backend.capabilities.block_sizes or (1, 4, 16)


def _head_dims(backend: AttentionBackendSpec) -> tuple[int, ...]:
    head_dims = backend.capabilities.head_dims or (64, 80, 96, 128, 256)
    return (*head_dims[:2], head_dims[-1]) if INTERPRETED else head_dims


def _dtypes(backend: AttentionBackendSpec) -> list[torch.dtype]:
    # The interpreter computes bfloat16 wrongly.
    names = [name for name in backend.capabilities.dtypes if not (INTERPRETED and name == "bfloat16")]
    return [getattr(torch, name) for name in names]


def _shapes() -> list[object]:
    return [
        pytest.param(backend, block_size, head_dim, heads, id=f"{backend.name}-{block_size}-{head_dim}-{heads}")
        for backend in BACKENDS
        for block_size in _block_sizes(backend)
        for head_dim in _head_dims(backend)
        for heads in (((4, 2), (6, 1)) if INTERPRETED else ((4, 4), (4, 2), (6, 1)))
    ]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def _check(case: AttentionCase, backend: AttentionBackendSpec) -> None:
    result = case.run(_attention(backend), fuses=backend.capabilities.fuses)
    tolerance = TOLERANCES[case.q.dtype]
    assert result.shape == case.q.shape
    assert result.dtype == case.q.dtype
    torch.testing.assert_close(result.cpu().double(), case.expected(), rtol=tolerance, atol=tolerance)


def _case(backend: AttentionBackendSpec, spec: LayerSpec = SPEC, requests=MIXED, **keywords) -> AttentionCase:
    keywords = {
        "block_size": _block_sizes(backend)[-1],
        "dtype": _dtypes(backend)[0],
        "device": DEVICE,
    } | keywords
    return AttentionCase(spec, requests, **keywords)


def test_some_backend_runs_here():
    assert BACKENDS


@pytest.mark.parametrize(("backend", "block_size", "head_dim", "heads"), _shapes())
def test_a_mixed_batch_of_every_shape(
    backend: AttentionBackendSpec, block_size: int, head_dim: int, heads: tuple[int, int]
):
    num_heads, num_kv_heads = heads
    spec = LayerSpec(num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim, scale=head_dim**-0.5)
    _check(_case(backend, spec, block_size=block_size), backend)


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [(spec, dtype) for spec in BACKENDS for dtype in _dtypes(spec)],
    ids=lambda value: getattr(value, "name", str(value)),  # not a set's repr, which differs from process to process
)
def test_every_dtype(backend: AttentionBackendSpec, dtype: torch.dtype):
    _check(_case(backend, dtype=dtype), backend)


@_each()
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


@_each("sliding_window")
@pytest.mark.parametrize("window", [1, 5, 16, 1000])
def test_sliding_window(backend: AttentionBackendSpec, window: int):
    for block_size in _block_sizes(backend):
        _check(_case(backend, replace(SPEC, sliding_window=window), block_size=block_size), backend)
    _check(
        _case(
            backend,
            replace(SPEC, sliding_window=window),
            [(1, LONG), (LONG - 10, LONG - 10), (LONG * 2 // 3, LONG + 10)],
        ),
        backend,
    )


@_each("soft_cap")
@pytest.mark.parametrize(
    "requests", [MIXED, [(1, LONG - 20), (LONG // 2, LONG // 2), (LONG // 2 - 10, LONG - 20)]], ids=["mixed", "long"]
)
def test_soft_cap(backend: AttentionBackendSpec, requests: list[tuple[int, int]]):
    # At this scale many scores lie above the cap.
    _check(_case(backend, replace(SPEC, soft_cap=2.0, scale=1.0), requests), backend)


@_each("soft_cap", "sliding_window")
def test_soft_cap_in_a_sliding_window(backend: AttentionBackendSpec):
    _check(_case(backend, replace(SPEC, soft_cap=2.0, scale=1.0, sliding_window=6)), backend)


@_each("non_causal")
def test_non_causal(backend: AttentionBackendSpec):
    _check(_case(backend, replace(SPEC, causal=False)), backend)


@_each()
def test_the_scale_is_the_one_asked_for(backend: AttentionBackendSpec):
    _check(_case(backend, replace(SPEC, scale=0.7)), backend)


@_each()
def test_the_result_goes_where_it_is_asked_to(backend: AttentionBackendSpec):
    case = _case(backend)
    out = torch.full_like(case.q, float("nan"))
    result = case.run(_attention(backend), fuses=backend.capabilities.fuses, out=out)
    assert result.data_ptr() == out.data_ptr()
    assert not out.isnan().any()


@_each()
def test_queries_keys_and_values_may_be_views_of_one_projection(backend: AttentionBackendSpec):
    case = _case(backend)
    joined = torch.cat((case.q, case.k, case.v), 1)
    counts = (SPEC.num_heads, SPEC.num_kv_heads, SPEC.num_kv_heads)
    case.q, case.k, case.v = torch.split(joined, counts, 1)
    _check(case, backend)


@_each()
def test_a_request_gets_the_same_in_any_batch_and_blocks(backend: AttentionBackendSpec):
    """To the rounding of the last digit, so that greedy tokens depend on neither."""
    for lens in [(1, 40), (9, 9), (6, 31)]:
        mates = MIXED if lens[0] == 1 else [request for request in MIXED if request[0] > 1]
        alone = _case(backend, requests=[lens])
        result = alone.run(_attention(backend), fuses=backend.capabilities.fuses)
        for block_size in _block_sizes(backend):
            # The numbers of the first request are drawn first, so that they stay when others join.
            crowd = _case(backend, requests=[lens, *mates], block_size=block_size)
            crowd.q[: lens[0]] = alone.q
            joined = crowd.run(_attention(backend), fuses=backend.capabilities.fuses)[: lens[0]]
            tolerance = TOLERANCES[alone.q.dtype] / 2
            torch.testing.assert_close(joined, result, rtol=tolerance, atol=tolerance)


@_each()
def test_layers_share_a_plan_and_steps_a_backend(backend: AttentionBackendSpec):
    first, second = _case(backend, seed=1), _case(backend, requests=MIXED[2:], seed=2)
    engine = _attention(backend)(options=None, context=first.context())
    layers = [engine.build_layer(SPEC) for _ in range(2)]
    tolerance = TOLERANCES[first.q.dtype]
    for case in (first, second, first):
        plan = engine.plan(case.metadata)
        for layer in layers:
            cache = case.cache(with_step="kv_write" not in backend.capabilities.fuses)
            result = layer.forward(case.q, case.k, case.v, cache, plan)
            torch.testing.assert_close(result.cpu().double(), case.expected(), rtol=tolerance, atol=tolerance)


@_each()
def test_neither_inputs_nor_metadata_are_changed(backend: AttentionBackendSpec):
    case = _case(backend)
    metadata = case.metadata
    inputs = [case.q, case.k, case.v, metadata.block_table, metadata.seq_lens, metadata.slot_mapping]
    before = [tensor.clone() for tensor in inputs]
    case.run(_attention(backend), fuses=backend.capabilities.fuses)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(inputs, before, strict=True))


@_each()
def test_the_case_sees_a_wrong_answer(backend: AttentionBackendSpec):
    """The comparison itself notices another scale."""
    case = _case(backend)
    case.spec = replace(SPEC, scale=0.2)
    result = case.run(_attention(backend), fuses=backend.capabilities.fuses)
    case.spec = SPEC
    assert (result.cpu().double() - case.expected()).abs().max() > 1e-2
