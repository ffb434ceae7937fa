"""The triton_mla backend against latent attention by its formula, in float64.

On a CUDA device: ``pytest -m gpu tests/gpu/test_triton_mla.py``. On a CPU, with Triton installed, the same command
under ``TRITON_INTERPRET=1`` runs the kernels through Triton's interpreter on smaller cases.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import replace

import pytest
import torch
from vcore_backends.triton_mla import backend
from vcore_backends.triton_mla.absorbed import partial_rows, queries_per_tile
from vcore_backends.triton_mla.backend import TritonMLABackend
from vcore_backends.triton_mla.configs import AbsorbedConfig, chunk_config, decode_config, ragged_config
from vcore_backends.triton_mla.query_tiles import QueryTiles

from vcore.errors import UnsupportedModelError
from vcore.interfaces.attention import LatentSpec, LayerSpec
from vcore.testing.latent_case import LatentCase, RaggedCase

pytestmark = [pytest.mark.gpu, pytest.mark.interpreted]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1.5e-3, torch.bfloat16: 8e-3}
"""Of the norm of the difference, relative to the norm of the reference."""
DTYPES = [torch.float32, torch.float16] if INTERPRETED else [torch.float16, torch.bfloat16]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
on_cuda_alone = pytest.mark.skipif(INTERPRETED, reason="takes a CUDA device")

ODD = LatentSpec(num_heads=5, kv_lora_rank=80, qk_nope_head_dim=24, qk_rope_head_dim=16, v_head_dim=40, scale=0.125)
"""No size is a power of two, and no two are equal, but for the rotary part."""
LITE = LatentSpec(num_heads=16, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, scale=0.07)
"""A layer of DeepSeek-V2-Lite."""
SMALL = LatentSpec(num_heads=4, kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=24, scale=0.125)

SPECS = {"odd": ODD, "small": SMALL} | ({} if INTERPRETED else {"lite": LITE})
each_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)

MIXED = [(1, 1), (1, 5), (1, 70), (1, 17), (7, 7), (5, 70), (2, 33), (34, 40)]
"""Tokens in the step and in all: decode rows, whole prompts, chunks after a cached part."""
RAGGED = [(5, 5), (1, 1), (2, 33), (17, 17), (1, 40), (40, 70)]
"""Queries and keys."""


def assert_close(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    error = ((found.cpu().double() - expected).norm() / expected.norm()).item()
    assert error < TOLERANCE[dtype], error  # NaN is not less


def check(spec: LatentSpec, requests: list[tuple[int, int]], dtype: torch.dtype, block_size: int = 16) -> None:
    case = LatentCase(spec, requests, block_size=block_size, dtype=dtype, device=DEVICE)
    out = torch.full((*case.q.shape[:2], spec.kv_lora_rank), float("nan"), dtype=dtype, device=DEVICE)
    assert case.run(TritonMLABackend, out=out) is out
    assert_close(out, case.expected(), dtype)


def check_ragged(spec: LatentSpec, requests: list[tuple[int, int]], dtype: torch.dtype, *, causal: bool) -> None:
    case = RaggedCase(spec, requests, causal=causal, dtype=dtype, device=DEVICE)
    expected, expected_lse = case.expected()
    out, lse = case.run(TritonMLABackend, return_lse=True)
    assert lse is not None
    assert_close(out, expected, dtype)
    seen = expected_lse > float("-inf")
    assert torch.equal(lse.cpu() > float("-inf"), seen)
    assert_close(lse[seen.to(DEVICE)], expected_lse[seen], dtype)
    alone, none = case.run(TritonMLABackend, return_lse=False)
    assert none is None
    assert torch.equal(alone, out)


# In the absorbed form


@each_dtype
@each_spec
def test_a_mixed_batch(spec: LatentSpec, dtype: torch.dtype) -> None:
    check(spec, MIXED, dtype)


@pytest.mark.parametrize("num_heads", [1, 2, 16, 20, 72])
def test_numbers_of_heads(num_heads: int) -> None:
    requests = [(1, 70), (1, 17), (3, 40)] if INTERPRETED else MIXED[2:6]
    check(replace(SMALL, num_heads=num_heads), requests, DTYPES[0])


@pytest.mark.parametrize("block_size", [16, 32, 256] if INTERPRETED else [16, 32, 64, 256])
def test_block_sizes(block_size: int) -> None:
    check(SMALL, [*MIXED, (20 if INTERPRETED else 70, 150)], DTYPES[0], block_size)


@pytest.mark.parametrize(
    "requests",
    [
        [(1, 300)],
        [(1, 1)],
        [(1, 300), (1, 3), (1, 200)],
        [(20, 300)],
        [(3, 3)],
        [(1, 9), (64, 64), (1, 1), (33, 200), (2, 130)],
    ],
    ids=str,
)
def test_contexts_that_are_split_and_chunks_over_several_tiles(requests: list[tuple[int, int]]) -> None:
    requests = sorted(requests, key=lambda request: request[0] > 1)
    check(SMALL, requests, DTYPES[0])


def test_partial_results_may_be_merged_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "decode_config", lambda **shape: replace(decode_config(**shape), merge_block=2))
    monkeypatch.setattr(backend, "chunk_config", lambda **shape: replace(chunk_config(**shape), merge_block=2))
    check(replace(SMALL, num_heads=1), [(1, 300)], DTYPES[0])
    check(replace(SMALL, num_heads=1), [(3, 300)], DTYPES[0])


@pytest.mark.parametrize("keys_first", [False, True])
@pytest.mark.parametrize("block_n", [32, 64])
def test_scores_may_be_laid_out_either_way(monkeypatch: pytest.MonkeyPatch, keys_first: bool, block_n: int) -> None:
    def lay_out(config: AbsorbedConfig) -> AbsorbedConfig:
        return replace(config, keys_first=keys_first, block_n=block_n)

    monkeypatch.setattr(backend, "decode_config", lambda **shape: lay_out(decode_config(**shape)))
    monkeypatch.setattr(backend, "chunk_config", lambda **shape: lay_out(chunk_config(**shape)))
    for spec in (SMALL, ODD):
        check(spec, MIXED[2:6], DTYPES[-1])


@on_cuda_alone
@each_dtype
@pytest.mark.parametrize("num_heads", [16, 128])
def test_long_contexts(num_heads: int, dtype: torch.dtype) -> None:
    requests = [(1, 16384), (1, 2047), *((1, 30 * i + 1) for i in range(23)), (37, 5000), (150, 3000), (9, 9)]
    check(replace(LITE, num_heads=num_heads), requests, dtype, block_size=64)


@on_cuda_alone
def test_large_batches() -> None:
    check(LITE, [(1, 1 + 7 * i % 300) for i in range(300)], torch.bfloat16)


def test_a_row_without_context_gives_zeros() -> None:
    case = LatentCase(SMALL, [(1, 20), (1, 16), (1, 40)], block_size=16, dtype=DTYPES[0], device=DEVICE)
    engine = TritonMLABackend(options=None, context=case.context())
    case.metadata.seq_lens[1] = 0
    out = torch.full((3, SMALL.num_heads, SMALL.kv_lora_rank), float("nan"), dtype=DTYPES[0], device=DEVICE)
    engine.build_latent_layer(SMALL).forward_absorbed(case.q, case.cache(), engine.plan(case.metadata), out)
    expected = case.expected()
    assert_close(out[[0, 2]], expected[[0, 2]], DTYPES[0])
    assert torch.equal(out[1], torch.zeros_like(out[1]))


def test_queries_results_and_cache_may_be_slices_of_something_larger() -> None:
    case = LatentCase(SMALL, MIXED, block_size=16, dtype=DTYPES[0], device=DEVICE)
    q, cache = case.q, case.cache()
    joined = torch.cat((q, torch.full_like(q, float("nan"))), 1)[:, : SMALL.num_heads]
    pool = torch.stack((torch.full_like(cache, float("nan")), cache), 1)[:, 1]
    wide = torch.full((len(q), SMALL.num_heads, 2 * SMALL.kv_lora_rank), float("nan"), dtype=q.dtype, device=DEVICE)
    out = wide[..., : SMALL.kv_lora_rank]
    engine = TritonMLABackend(options=None, context=case.context())
    engine.build_latent_layer(SMALL).forward_absorbed(joined, pool, engine.plan(case.metadata), out)
    assert_close(out, case.expected(), DTYPES[0])
    assert wide[..., SMALL.kv_lora_rank :].isnan().all()


def test_query_tiles_follow_the_lengths_on_the_device() -> None:
    case = LatentCase(SMALL, [(1, 9), (5, 45), (2, 2)], block_size=16, device=DEVICE)
    case.metadata.seq_lens_cpu = case.metadata.seq_lens_cpu + 100  # an upper bound
    tiles = QueryTiles.cut(case.metadata, 4)
    assert tiles.lengths.tolist() == [44, 45, 2]
    assert tiles.requests.tolist() == [1, 1, 2]
    assert tiles.first_queries.tolist() == [1, 5, 6]
    assert tiles.num_queries.tolist() == [4, 1, 2]


def test_layers_of_equal_spec_are_one_and_of_equal_shape_share_their_workspace() -> None:
    case = LatentCase(SMALL, MIXED, block_size=16, device=DEVICE)
    engine = TritonMLABackend(options=None, context=case.context())
    layer = engine.build_latent_layer(SMALL)
    assert engine.build_latent_layer(replace(SMALL)) is layer
    scaled = engine.build_latent_layer(replace(SMALL, scale=0.5))
    assert scaled is not layer
    assert scaled._workspace is layer._workspace


def test_the_workspace_holds_what_any_configuration_writes() -> None:
    case = LatentCase(SMALL, MIXED, block_size=16, dtype=DTYPES[0], device=DEVICE)
    engine = TritonMLABackend(options=None, context=case.context())
    rows = len(engine.build_latent_layer(SMALL)._workspace.partial)
    itemsize = DTYPES[0].itemsize
    for num_requests in (1, 3, 64, 300, 5000):
        config = decode_config(itemsize=itemsize, num_heads=SMALL.num_heads, num_requests=num_requests)
        assert partial_rows(config, SMALL.num_heads, engine._num_sms) <= rows
    assert partial_rows(chunk_config(itemsize=itemsize), SMALL.num_heads, engine._num_sms) <= rows


# In the up-projected form


@each_dtype
@pytest.mark.parametrize("causal", [False, True])
@each_spec
def test_ragged_requests(spec: LatentSpec, causal: bool, dtype: torch.dtype) -> None:
    check_ragged(spec, RAGGED, dtype, causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "requests", [[(3, 0)], [(4, 9), (3, 0), (30, 0), (2, 5)], [(7, 3), (50, 20)], [(16, 16)] * 3], ids=str
)
def test_ragged_requests_with_fewer_keys_than_queries(requests: list[tuple[int, int]], causal: bool) -> None:
    if requests[0] != (3, 0):
        check_ragged(SMALL, requests, DTYPES[0], causal=causal)
    case = RaggedCase(SMALL, requests, causal=causal, dtype=DTYPES[0], device=DEVICE)
    out, lse = case.run(TritonMLABackend, return_lse=True)
    assert lse is not None
    unseen = (case.expected()[1] == float("-inf")).to(DEVICE)
    assert torch.equal(lse == float("-inf"), unseen)
    assert not out[unseen].any()


@on_cuda_alone
@each_dtype
@pytest.mark.parametrize("causal", [False, True])
def test_long_ragged_requests(causal: bool, dtype: torch.dtype) -> None:
    check_ragged(LITE, [(700, 700), (150, 2800), (1, 4000), (300, 301)], dtype, causal=causal)


def test_no_queries_at_all() -> None:
    case = RaggedCase(SMALL, [(0, 3)], causal=True, dtype=DTYPES[0], device=DEVICE)
    out, lse = case.run(TritonMLABackend, return_lse=True)
    assert out.shape == (0, SMALL.num_heads, SMALL.v_head_dim)
    assert lse is not None
    assert lse.shape == (0, SMALL.num_heads)


# What is served


def test_the_shipped_table_has_a_configuration_for_every_shape() -> None:
    for itemsize, num_heads, num_requests in itertools.product((2, 4), (1, 16, 20, 128), (1, 64, 4096)):
        config = decode_config(itemsize=itemsize, num_heads=num_heads, num_requests=num_requests)
        assert min(config.rows, config.block_n) >= 16
    for itemsize, max_query_len in itertools.product((2, 4), (1, 300, 100_000)):
        assert queries_per_tile(chunk_config(itemsize=itemsize), 16) >= 1
        tiles = ragged_config(itemsize=itemsize, max_query_len=max_query_len)
        assert min(tiles.block_m, tiles.block_n) >= 16


def test_what_it_does_not_serve_is_named() -> None:
    context = LatentCase(SMALL, [(1, 1)], block_size=16, device=DEVICE).context()
    plain = LayerSpec(num_heads=4, num_kv_heads=4, head_dim=64, scale=1.0)
    assert TritonMLABackend.unsupported_reasons(context, []) == ()
    assert "latent attention alone" in TritonMLABackend.unsupported_reasons(context, [plain])[0]
    with pytest.raises(UnsupportedModelError, match=r"latent attention alone.*another attention\.backend"):
        TritonMLABackend(options=None, context=context).build_layer(plain)
    assert TritonMLABackend.unsupported_latent_reasons(context, [SMALL]) == ()
    assert "-1.0" in TritonMLABackend.unsupported_latent_reasons(context, [replace(SMALL, scale=-1.0)])[0]
    on_cpu = replace(context, device=torch.device("cpu"), dtype=torch.bfloat16)
    assert "bfloat16" in TritonMLABackend.unsupported_latent_reasons(on_cpu, [SMALL])[0]


# On the device


@on_cuda_alone
@pytest.mark.parametrize("num_requests", [1, 5, 64])
def test_one_captured_graph_serves_all_lengths(num_requests: int) -> None:
    cases = [
        LatentCase(
            LITE,
            [(1, 1 + (seed * 577 + 391 * row) % (4000 // num_requests)) for row in range(num_requests)],
            block_size=16,
            dtype=torch.bfloat16,
            device=DEVICE,
            seed=seed,
        )
        for seed in range(4)
    ]
    engine = TritonMLABackend(options=None, context=cases[0].context())
    layer, metadata = engine.build_latent_layer(LITE), replace(cases[0].metadata)  # refilled below
    q = cases[0].q.clone()
    caches = [case.cache() for case in cases]
    cache = torch.zeros(max(map(len, caches)), *caches[0].shape[1:], dtype=q.dtype, device=DEVICE)
    width = max(case.metadata.block_table.shape[1] for case in cases)
    metadata.block_table = torch.zeros(num_requests, width, dtype=torch.int32, device=DEVICE)
    metadata.seq_lens = torch.ones_like(metadata.seq_lens)
    out = torch.empty(num_requests, LITE.num_heads, LITE.kv_lora_rank, dtype=q.dtype, device=DEVICE)
    layer.forward_absorbed(q, cache, engine.plan(metadata), out)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        layer.forward_absorbed(q, cache, engine.plan(metadata), out)
    for case, its_cache in zip(cases, caches, strict=True):
        q.copy_(case.q)
        cache[: len(its_cache)] = its_cache
        metadata.seq_lens.copy_(case.metadata.seq_lens)
        table = case.metadata.block_table
        metadata.block_table[:, : table.shape[1]] = table
        out.fill_(float("nan"))
        graph.replay()
        assert_close(out, case.expected(), torch.bfloat16)


@on_cuda_alone
def test_results_do_not_change_from_run_to_run() -> None:
    requests = [(1, 1024), (1, 333), (1, 2000), (40, 900)]
    case = LatentCase(LITE, requests, block_size=16, dtype=torch.bfloat16, device=DEVICE)
    engine = TritonMLABackend(options=None, context=case.context())
    layer, cache, plan = engine.build_latent_layer(LITE), case.cache(), engine.plan(case.metadata)
    first = layer.forward_absorbed(case.q, cache, plan)
    for _ in range(100):
        layer._workspace.partial.fill_(float("nan"))
        assert torch.equal(layer.forward_absorbed(case.q, cache, plan), first)
