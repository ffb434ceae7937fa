"""The cases of the contract suite, for backends whose library is not there: a stand-in computes in its place.

A test that takes `backend` and `contract_case` gets each of its module's `BACKENDS` with each case that the backend's
capabilities cover.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from vcore.interfaces.attention import LayerSpec
from vcore.plugins.specs import AttentionBackendSpec
from vcore.testing.attention_case import AttentionCase

SPEC = LayerSpec(num_heads=4, num_kv_heads=2, head_dim=32, scale=32**-0.5)
MIXED = [(1, 1), (1, 5), (1, 256), (1, 257), (1, 600), (1, 3), (7, 7), (5, 20), (2, 533), (17, 17)]
LONG = [(1, 700), (90, 90), (200, 610)]
BATCHES = [
    [(1, 9)],
    [(12, 12)],
    [(140, 300)],
    [(1, length) for length in (2, 900, 60, 61, 450, 1, 1, 333)],
    [(1, 30), (1, 30), (1, 30)],
    [(3, 3), (4, 260), (5, 261), (6, 6)],
    LONG,
]


def _cases(backend: AttentionBackendSpec) -> Iterator[tuple[str, dict[str, object]]]:
    assert backend.capabilities.block_sizes is not None
    size = backend.capabilities.block_sizes[0]
    features = backend.capabilities.features
    for heads, kv_heads in ((4, 4), (4, 2), (6, 1)):
        spec = replace(SPEC, num_heads=heads, num_kv_heads=kv_heads)
        for block_size in (size, 2 * size):
            yield f"heads-{heads}-{kv_heads}-{block_size}", {"spec": spec, "requests": MIXED, "block_size": block_size}
    for requests in BATCHES:
        yield str(requests), {"spec": SPEC, "requests": requests, "block_size": size}
    yield "scale", {"spec": replace(SPEC, scale=0.7), "requests": MIXED, "block_size": size}
    if "sliding_window" in features:
        for window in (1, 5, 256, 257, 300, 1000):
            for name, requests in (("mixed", MIXED), ("long", LONG)):
                spec = replace(SPEC, sliding_window=window)
                yield f"window-{window}-{name}", {"spec": spec, "requests": requests, "block_size": size}
    if "soft_cap" in features:
        capped = replace(SPEC, soft_cap=2.0, scale=1.0)
        yield "soft_cap", {"spec": capped, "requests": MIXED, "block_size": size}
        yield "capped-window", {"spec": replace(capped, sliding_window=6), "requests": MIXED, "block_size": size}
    if "non_causal" in features:
        yield "non_causal", {"spec": replace(SPEC, causal=False), "requests": MIXED, "block_size": size}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "contract_case" in metafunc.fixturenames:
        found = [
            pytest.param(backend, case, id=f"{backend.name}-{name}")
            for backend in metafunc.module.BACKENDS
            for name, case in _cases(backend)
        ]
        metafunc.parametrize(("backend", "contract_case"), found)


@pytest.fixture
def free_blocks():
    """Makes entries of blocks wholly behind the window of a row's first query null, as the core does."""

    def free(case: AttentionCase, block_size: int) -> None:
        window = case.spec.sliding_window
        assert window is not None
        for row, (query, seq) in enumerate(zip(case.query_lens, case.seq_lens, strict=True)):
            first_seen = max(0, seq - query + 1 - window)
            case.metadata.block_table[row, : first_seen // block_size] = 0

    return free
