"""The triton_paged backend against float32 attention written out plainly.

On a CUDA device: ``pytest -m gpu tests/gpu/test_triton_paged.py``. On a CPU, with Triton installed, the
same command under ``TRITON_INTERPRET=1`` runs the kernels through Triton's interpreter on smaller cases.
"""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from vcore_backends.triton_paged import backend as backend_module
from vcore_backends.triton_paged.backend import TritonPagedBackend
from vcore_backends.triton_paged.configs import decode_config, prefill_config

from vcore.errors import CapacityError
from vcore.interfaces.attention import AttentionBackendContext, AttentionMetadata, LayerSpec

pytestmark = [pytest.mark.gpu, pytest.mark.interpreted]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1.5e-3, torch.bfloat16: 8e-3}
"""Of the norm of the difference, relative to the norm of the reference."""
DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])

GARBAGE_ID = 2**30
"""A block id that no cache has: a kernel that reads it faults, or is wrong."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A batch: (query tokens, tokens of context) of each request, decode rows first."""

    rows: tuple[tuple[int, int], ...]
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 64
    block_size: int = 16
    dtype: torch.dtype = torch.float32
    sliding_window: int | None = None
    soft_cap: float | None = None

    @property
    def spec(self) -> LayerSpec:
        return LayerSpec(
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            scale=self.head_dim**-0.5,
            sliding_window=self.sliding_window,
            soft_cap=self.soft_cap,
        )


def random(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype).to(DEVICE)


def make_batch(case: Case, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, AttentionMetadata]:
    """Queries, cache and metadata. Whatever no query may see is NaN; table entries past a context are garbage."""
    query_lens = np.array([q for q, _ in case.rows], np.int32)
    seq_lens = np.array([s for _, s in case.rows], np.int32)
    num_blocks = [math.ceil(s / case.block_size) for s in seq_lens]
    cache_shape = (sum(num_blocks) + 3, 2, case.block_size, case.num_kv_heads, case.head_dim)
    cache = random(cache_shape, case.dtype, seed)
    ids = torch.randperm(cache_shape[0] - 1, generator=torch.Generator().manual_seed(seed)) + 1
    table = torch.full((len(case.rows), max(num_blocks) + 2), GARBAGE_ID, dtype=torch.int32)
    cache[0] = float("nan")
    taken = 0
    for row, count in enumerate(num_blocks):
        table[row, :count] = ids[taken : taken + count]
        taken += count
        if seq_lens[row] % case.block_size:
            cache[int(table[row, count - 1]), :, seq_lens[row] % case.block_size :] = float("nan")
    cache[ids[taken:].to(DEVICE)] = float("nan")
    query_start_loc = np.concatenate([[0], np.cumsum(query_lens)]).astype(np.int32)
    metadata = AttentionMetadata(
        num_tokens=int(query_lens.sum()),
        num_requests=len(case.rows),
        num_decodes=int((query_lens == 1).sum()),
        query_start_loc=torch.from_numpy(query_start_loc).to(DEVICE),
        query_start_loc_cpu=query_start_loc,
        seq_lens=torch.from_numpy(seq_lens).to(DEVICE),
        seq_lens_cpu=seq_lens,
        max_query_len=int(query_lens.max()),
        max_seq_len=int(seq_lens.max()),
        block_table=table.to(DEVICE),
        slot_mapping=torch.zeros(int(query_lens.sum()), dtype=torch.int64, device=DEVICE),
    )
    q = random((metadata.num_tokens, case.num_heads, case.head_dim), case.dtype, seed + 1)
    return q, cache, metadata


def reference(case: Case, q: torch.Tensor, cache: torch.Tensor, metadata: AttentionMetadata) -> torch.Tensor:
    """Attention in float32, one request after another."""
    out = torch.zeros(q.shape, dtype=torch.float32, device=DEVICE)
    group = case.num_heads // case.num_kv_heads
    for row, seq_len in enumerate(metadata.seq_lens.tolist()):
        start, stop = metadata.query_start_loc_cpu[row : row + 2]
        if seq_len == 0:
            continue
        blocks = metadata.block_table[row, : math.ceil(seq_len / case.block_size)].long()
        k, v = (  # [seq_len, num_heads, head_dim]
            cache[blocks, side].flatten(0, 1)[:seq_len].float().repeat_interleave(group, 1) for side in (0, 1)
        )
        scores = torch.einsum("qhd,khd->hqk", q[start:stop].float(), k) * case.spec.scale
        if case.soft_cap is not None:
            scores = case.soft_cap * torch.tanh(scores / case.soft_cap)
        positions = torch.arange(seq_len - (stop - start), seq_len, device=DEVICE)[:, None]
        keys = torch.arange(seq_len, device=DEVICE)[None, :]
        visible = keys <= positions
        if case.sliding_window is not None:
            visible &= keys > positions - case.sliding_window
        scores = scores.masked_fill(~visible, float("-inf"))
        out[start:stop] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)
    return out


def make_backend(dtype: torch.dtype, block_size: int = 16, max_num_seqs: int = 16) -> TritonPagedBackend:
    context = AttentionBackendContext(
        device=DEVICE,
        dtype=dtype,
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=8192,
        max_model_len=8192,
    )
    return TritonPagedBackend(options=None, context=context)


def poisoned(q: torch.Tensor) -> torch.Tensor:
    return torch.full_like(q, float("nan"), memory_format=torch.contiguous_format)


def assert_close(out: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    error = ((out.float() - expected).norm() / expected.norm()).item()
    assert error < TOLERANCE[dtype], error  # NaN is not less


def check(case: Case) -> None:
    q, cache, metadata = make_batch(case)
    backend = make_backend(case.dtype, case.block_size)
    layer, out = backend.build_layer(case.spec), poisoned(q)
    result = layer.forward(q, q[:, :0], q[:, :0], cache, backend.plan(metadata), out)
    assert result is out
    assert_close(out, reference(case, q, cache, metadata), case.dtype)


MIXED = ((1, 40), (1, 1), (1, 16), (20, 20), (3, 50), (17, 33))
"""Decode rows, a whole prompt, a short chunk and a chunk after a cached prefix."""


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("head_dim", [64, 80, 96, 128, 192, 256])
def test_mixed_batch_for_each_head_dim_and_dtype(head_dim: int, dtype: torch.dtype) -> None:
    check(Case(rows=MIXED, head_dim=head_dim, dtype=dtype))


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(4, 4), (8, 2), (6, 1), (7, 1), (20, 1)])
def test_ratios_of_query_heads_to_kv_heads(num_heads: int, num_kv_heads: int) -> None:
    check(Case(rows=MIXED, num_heads=num_heads, num_kv_heads=num_kv_heads))


@pytest.mark.parametrize("block_size", [16, 32, 48, 64, 256])
def test_block_sizes(block_size: int) -> None:
    check(Case(rows=(*MIXED[:3], (1, 300), *MIXED[3:], (70, 70)), block_size=block_size))


@pytest.mark.parametrize("window", [1, 10, 16, 33, 1000])
def test_a_token_sees_the_window_alone(window: int) -> None:
    check(Case(rows=((1, 40), (1, 100), (1, 5), (40, 90), (70, 70), (2, 35)), sliding_window=window))


@pytest.mark.parametrize("window", [None, 20])
def test_soft_cap(window: int | None) -> None:
    check(Case(rows=MIXED, soft_cap=1.5, sliding_window=window))


def test_a_context_is_split_over_many_programs() -> None:
    check(Case(rows=((1, 700), (1, 3), (1, 333)), num_kv_heads=1))


def test_partial_results_may_be_merged_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "decode_config", lambda **shape: replace(decode_config(**shape), merge_block=2))
    check(Case(rows=((1, 700), (1, 3), (1, 333)), num_kv_heads=1))


@pytest.mark.skipif(INTERPRETED, reason="long contexts take the interpreter minutes")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_long_contexts(dtype: torch.dtype) -> None:
    rows = ((1, 16384), (1, 2047), *((1, 30 * i + 1) for i in range(13)), (2000, 4096), (1500, 1500))
    check(Case(rows=rows, num_heads=8, num_kv_heads=2, head_dim=128, dtype=dtype))


def test_a_padding_row_gives_zeros() -> None:
    case = Case(rows=((1, 20), (1, 0), (1, 0)))
    q, cache, metadata = make_batch(case)
    backend = make_backend(case.dtype)
    out = poisoned(q)
    backend.build_layer(case.spec).forward(q, q, q, cache, backend.plan(metadata), out)
    assert_close(out[:1], reference(case, q, cache, metadata)[:1], case.dtype)
    assert torch.equal(out[1:], torch.zeros_like(out[1:]))


def test_queries_may_be_a_slice_of_a_fused_projection() -> None:
    case = Case(rows=MIXED)
    q, cache, metadata = make_batch(case)
    fused = torch.cat([q.flatten(1), torch.full((q.shape[0], 64), float("nan"), device=DEVICE)], dim=1)
    sliced = fused[:, : q.shape[1] * q.shape[2]].unflatten(1, q.shape[1:])
    backend = make_backend(case.dtype)
    out = backend.build_layer(case.spec).forward(sliced, sliced, sliced, cache, backend.plan(metadata))
    assert out.is_contiguous()
    assert_close(out, reference(case, q, cache, metadata), case.dtype)


def test_the_cache_may_be_a_slice_of_a_larger_pool() -> None:
    case = Case(rows=MIXED)
    q, cache, metadata = make_batch(case)
    pool = torch.full((cache.shape[0], 3, *cache.shape[1:]), float("nan"), device=DEVICE)
    pool[:, 1] = cache
    backend = make_backend(case.dtype)
    out = backend.build_layer(case.spec).forward(q, q, q, pool[:, 1], backend.plan(metadata))
    assert_close(out, reference(case, q, cache, metadata), case.dtype)


def test_layers_of_equal_spec_are_one_and_of_equal_shape_share_their_workspace() -> None:
    backend, spec = make_backend(torch.float32), Case(rows=MIXED).spec
    layer = backend.build_layer(spec)
    assert backend.build_layer(replace(spec)) is layer
    windowed = backend.build_layer(replace(spec, sliding_window=8))
    assert windowed is not layer
    assert windowed._workspace is layer._workspace


def test_more_decode_rows_than_the_workspace_holds_are_refused() -> None:
    case = Case(rows=((1, 1),) * 17)
    backend = make_backend(case.dtype, max_num_seqs=3)
    backend.build_layer(case.spec)
    _, _, metadata = make_batch(case)
    with pytest.raises(CapacityError, match=r"17 decode rows.*holds 16.*max_num_seqs 3"):
        backend.plan(metadata)


def test_the_shipped_table_has_a_configuration_for_every_shape() -> None:
    for itemsize, head_dim in itertools.product((2, 4), (64, 80, 96, 128, 192, 256)):
        for num_requests in (1, 32, 256, 4096):
            config = decode_config(itemsize=itemsize, head_dim=head_dim, num_requests=num_requests)
            assert config.block_n >= 16
        for block_size, max_query_len in itertools.product((16, 64, 256), (2, 1024, 100_000)):
            tiles = prefill_config(
                itemsize=itemsize, head_dim=head_dim, block_size=block_size, max_query_len=max_query_len
            )
            assert min(tiles.block_m, tiles.block_n) >= 16


def test_unsupported_shapes_are_named() -> None:
    context = make_backend(torch.float32)._context
    spec = Case(rows=MIXED).spec
    assert TritonPagedBackend.unsupported_reasons(context, [spec]) == ()
    odd = [replace(spec, v_head_dim=32), replace(spec, scale=-1.0)]
    reasons = TritonPagedBackend.unsupported_reasons(context, odd)
    assert ["32 dimensions" in reasons[0], "-1.0" in reasons[1]] == [True, True]
    on_cpu = replace(context, device=torch.device("cpu"), dtype=torch.bfloat16)
    assert "bfloat16" in TritonPagedBackend.unsupported_reasons(on_cpu, [spec])[0]


@pytest.mark.skipif(INTERPRETED, reason="CUDA graphs need a CUDA device")
def test_one_captured_graph_serves_all_lengths() -> None:
    case = Case(rows=tuple((1, s) for s in (2000, 1, 17, 900)), num_heads=8, head_dim=128, dtype=torch.bfloat16)
    backend = make_backend(case.dtype)
    layer = backend.build_layer(case.spec)
    q, cache, metadata = make_batch(case)
    out = poisoned(q)
    layer.forward(q, q, q, cache, backend.plan(metadata), out)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        layer.forward(q, q, q, cache, backend.plan(metadata), out)
    for seed, seq_lens in enumerate([(2000, 1, 17, 900), (1, 0, 1999, 16), (333, 1500, 1, 1)], start=1):
        shorter = replace(case, rows=tuple((1, s) for s in seq_lens))
        new_q, new_cache, new_metadata = make_batch(shorter, seed)
        q.copy_(new_q)
        cache[: new_cache.shape[0]] = new_cache[: cache.shape[0]]
        metadata.seq_lens.copy_(new_metadata.seq_lens)
        width = min(metadata.block_table.shape[1], new_metadata.block_table.shape[1])
        metadata.block_table[:, :width] = new_metadata.block_table[:, :width]
        out.fill_(float("nan"))
        graph.replay()
        assert_close(out, reference(shorter, q, cache, metadata), case.dtype)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter runs one program after another")
def test_results_do_not_change_from_run_to_run() -> None:
    case = Case(rows=tuple((1, s) for s in (1024, 333, 2000)), num_heads=8, head_dim=128, dtype=torch.bfloat16)
    backend = make_backend(case.dtype)
    layer = backend.build_layer(case.spec)
    q, cache, metadata = make_batch(case)
    plan = backend.plan(metadata)
    first = layer.forward(q, q, q, cache, plan)
    for _ in range(100):
        layer._workspace.partial.fill_(float("nan"))
        assert torch.equal(layer.forward(q, q, q, cache, plan), first)
