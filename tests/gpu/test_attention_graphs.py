"""Every attention backend that lists CUDA graphs, captured once and replayed for other lengths, tables and numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from pkgutil import resolve_name

import numpy as np
import pytest
import torch

from vcore.interfaces.attention import LayerSpec
from vcore.plugins.distributions import requirement_problem
from vcore.plugins.specs import AttentionBackendSpec
from vcore.testing.attention_case import AttentionCase

pytestmark = pytest.mark.gpu

DEVICE = "cuda"
SPEC = LayerSpec(num_heads=8, num_kv_heads=2, head_dim=64, scale=0.125)
MAX_LEN = 1024
ROWS = 5
LENGTHS = [[1, 300, 17, 64, 65], [1024, 1, 255, 256, 257], [2, 3, 700, 5, 1000]]
"""Of three steps; the graph is captured in none of them."""


HOOK = "vcore_attention_backends"


def _backends() -> list[AttentionBackendSpec]:
    plugins = [point.load() for point in entry_points(group="vcore") if point.module.startswith("vcore_backends.")]
    specs = [spec for plugin in plugins if hasattr(plugin, HOOK) for spec in getattr(plugin, HOOK)()]
    return [
        spec
        for spec in specs
        if spec.capabilities.graph_support != "none"
        and spec.capabilities.features != {"mla"}
        and not any(requirement_problem(line) for line in spec.requires)
    ]


def capture(step: Callable[[], object]) -> Callable[[], object]:
    """What launches `step` again, as it was: with the same addresses, and what the host knew."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()  # kernels are compiled, constants made
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


@pytest.mark.parametrize("window", [None, 1, 100])
@pytest.mark.parametrize("backend", _backends(), ids=lambda backend: backend.name)
def test_a_captured_step_of_decode_rows_follows_its_tensors(backend: AttentionBackendSpec, window: int | None):
    capabilities, spec = backend.capabilities, replace(SPEC, sliding_window=window)
    assert capabilities.block_sizes is not None
    size, dtype = capabilities.block_sizes[0], getattr(torch, capabilities.dtypes[0])
    cases = [
        AttentionCase(spec, [(1, length) for length in lengths], block_size=size, dtype=dtype, device=DEVICE, seed=seed)
        for seed, lengths in enumerate(LENGTHS)
    ]
    caches = [case.cache(with_step="kv_write" not in capabilities.fuses) for case in cases]
    cache = torch.zeros(max(map(len, caches)), *caches[0].shape[1:], dtype=dtype, device=DEVICE)
    q, k, v = (torch.zeros_like(tensor) for tensor in (cases[0].q, cases[0].k, cases[0].v))
    out = torch.empty_like(q)
    metadata = replace(
        cases[0].metadata,
        seq_lens=torch.ones(ROWS, dtype=torch.int32, device=DEVICE),
        seq_lens_cpu=np.full(ROWS, MAX_LEN, dtype=np.int32),
        max_seq_len=MAX_LEN,
        block_table=torch.zeros(ROWS, -(-MAX_LEN // size), dtype=torch.int32, device=DEVICE),
        slot_mapping=torch.zeros(ROWS, dtype=torch.int64, device=DEVICE),
    )
    context = replace(cases[0].context(), max_model_len=MAX_LEN)
    engine = resolve_name(str(backend.load))(options=None, context=context)
    layer = engine.build_layer(spec)
    replay = capture(lambda: layer.forward(q, k, v, cache, engine.plan(metadata), out))
    for case, filled in zip(cases, caches, strict=True):
        table = case.metadata.block_table
        metadata.block_table.zero_()
        metadata.block_table[:, : table.shape[1]].copy_(table)
        metadata.seq_lens.copy_(case.metadata.seq_lens)
        metadata.slot_mapping.copy_(case.metadata.slot_mapping)
        cache.fill_(float("nan"))
        cache[: len(filled)].copy_(filled)
        for tensor, new in ((q, case.q), (k, case.k), (v, case.v)):
            tensor.copy_(new)
        replay()
        torch.testing.assert_close(out.cpu().double(), case.expected(), rtol=2e-2, atol=2e-2)
