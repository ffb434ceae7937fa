"""Decode over a prefix that requests share, against float32 attention written out plainly.

On a CUDA device: ``pytest -m gpu tests/gpu/test_triton_shared_prefix.py``. On a CPU, with Triton installed, the same
command under ``TRITON_INTERPRET=1`` runs the kernels through Triton's interpreter on smaller cases.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from vcore_backends.triton_paged import backend as backend_module
from vcore_backends.triton_paged.backend import TritonPagedBackend
from vcore_backends.triton_paged.configs import shared_config
from vcore_backends.triton_paged.options import TritonPagedOptions
from vcore_backends.triton_paged.shared_prefix import num_shared_splits

from vcore.interfaces.attention import AttentionBackendContext, AttentionMetadata, LayerSpec

pytestmark = [pytest.mark.gpu, pytest.mark.interpreted]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1.5e-3, torch.bfloat16: 8e-3}
"""Of the norm of the difference, relative to the norm of the reference."""
DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])


@dataclass(frozen=True, kw_only=True)
class Case:
    """Decode rows: contexts longer than the shared blocks begin with them."""

    seq_lens: tuple[int, ...]
    num_shared: int
    """Shared blocks."""
    told: int | None = None
    """What the backend is told, if that is less."""
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 64
    block_size: int = 16
    dtype: torch.dtype = torch.float32
    soft_cap: float | None = None
    sliding_window: int | None = None
    prompt: int = 0
    """Tokens of a prompt behind the decode rows."""

    @property
    def spec(self) -> LayerSpec:
        return LayerSpec(
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            scale=self.head_dim**-0.5,
            soft_cap=self.soft_cap,
            sliding_window=self.sliding_window,
        )


def random(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(DEVICE)


def make_batch(case: Case, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, AttentionMetadata]:
    """Queries, cache and metadata. The null block, and whatever lies behind a context, is NaN."""
    size, num_decodes = case.block_size, len(case.seq_lens)
    seq_lens = np.array([*case.seq_lens, *([case.prompt] if case.prompt else [])], np.int32)
    query_lens = np.array([*[1] * num_decodes, *([case.prompt] if case.prompt else [])], np.int32)
    counts = [math.ceil(s / size) for s in seq_lens]
    num_blocks = case.num_shared + sum(counts)
    cache = random((num_blocks + 1, 2, size, case.num_kv_heads, case.head_dim), case.dtype, seed)
    cache[0] = float("nan")
    ids = (torch.randperm(num_blocks, generator=torch.Generator().manual_seed(seed)) + 1).tolist()
    shared = [ids.pop() for _ in range(case.num_shared)]
    # 2**30: a block id that no cache has, so that a kernel that reads it faults, or is wrong
    table = torch.full((len(seq_lens), max(counts) + 1), 2**30, dtype=torch.int32)
    for row, (seq_len, count) in enumerate(zip(seq_lens, counts, strict=True)):
        begin = shared if row < num_decodes and seq_len > case.num_shared * size else []
        table[row, :count] = torch.tensor([*begin, *(ids.pop() for _ in range(count - len(begin)))])
        if seq_len % size:
            cache[int(table[row, count - 1]), :, seq_len % size :] = float("nan")
    query_start_loc = np.concatenate([[0], np.cumsum(query_lens)]).astype(np.int32)
    told = case.num_shared if case.told is None else case.told
    num_tokens = int(query_lens.sum())
    metadata = AttentionMetadata(
        num_tokens=num_tokens,
        num_requests=len(seq_lens),
        num_decodes=num_decodes,
        query_start_loc=torch.from_numpy(query_start_loc).to(DEVICE),
        query_start_loc_cpu=query_start_loc,
        seq_lens=torch.from_numpy(seq_lens).to(DEVICE),
        seq_lens_cpu=seq_lens,
        max_query_len=int(query_lens.max()),
        max_seq_len=int(seq_lens.max()),
        block_table=table.to(DEVICE),
        slot_mapping=torch.zeros(num_tokens, dtype=torch.int64, device=DEVICE),
        num_shared_blocks=torch.tensor([told], dtype=torch.int32, device=DEVICE),
    )
    return random((num_tokens, case.num_heads, case.head_dim), case.dtype, seed + 1), cache, metadata


def reference(case: Case, q: torch.Tensor, cache: torch.Tensor, metadata: AttentionMetadata) -> torch.Tensor:
    """Attention in float32, one request after another."""
    out = torch.zeros(q.shape, dtype=torch.float32, device=DEVICE)
    group = case.num_heads // case.num_kv_heads
    for row, seq_len in enumerate(metadata.seq_lens.tolist()):
        start, stop = metadata.query_start_loc_cpu[row : row + 2]
        blocks = metadata.block_table[row, : math.ceil(seq_len / case.block_size)].long()
        k, v = (  # [seq_len, num_heads, head_dim]
            cache[blocks, side].flatten(0, 1)[:seq_len].float().repeat_interleave(group, 1) for side in (0, 1)
        )
        scores = torch.einsum("qhd,khd->hqk", q[start:stop].float(), k) * case.spec.scale
        if case.soft_cap is not None:
            scores = case.soft_cap * torch.tanh(scores / case.soft_cap)
        positions = torch.arange(seq_len - (stop - start), seq_len, device=DEVICE)[:, None]
        keys = torch.arange(seq_len, device=DEVICE)
        visible = keys <= positions
        if case.sliding_window is not None:
            visible &= keys > positions - case.sliding_window
        scores = scores.masked_fill(~visible, float("-inf"))
        out[start:stop] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)
    return out


def make_backend(dtype: torch.dtype, block_size: int = 16, **options: object) -> TritonPagedBackend:
    context = AttentionBackendContext(
        device=DEVICE,
        dtype=dtype,
        block_size=block_size,
        max_num_seqs=16 if INTERPRETED else 256,
        max_num_batched_tokens=8192,
        max_model_len=8192,
    )
    return TritonPagedBackend(
        options=TritonPagedOptions.model_validate({"shared_prefix": True, **options}), context=context
    )


def assert_close(out: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    error = ((out.float() - expected).norm() / expected.norm()).item()
    assert error < TOLERANCE[dtype], error  # NaN is not less


def check(case: Case) -> TritonPagedBackend:
    q, cache, metadata = make_batch(case)
    backend = make_backend(case.dtype, case.block_size)
    layer = backend.build_layer(case.spec)
    for buffer in (layer._workspace.partial, layer._workspace.shared, layer._workspace.shared_lse):
        buffer.fill_(float("nan"))
    out = torch.full_like(q, float("nan"))
    layer.forward(q, q[:, :0], q[:, :0], cache, backend.plan(metadata), out)
    assert_close(out, reference(case, q, cache, metadata), case.dtype)
    return backend


ROWS = (300, 257, 258, 290, 271)
"""Behind a prefix of 16 blocks of 16 tokens: from one token on."""


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("head_dim", [64, 80, 128, 256])
def test_each_head_dim_and_dtype(head_dim: int, dtype: torch.dtype) -> None:
    check(Case(seq_lens=ROWS, num_shared=16, head_dim=head_dim, dtype=dtype))


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(4, 4), (8, 2), (7, 1)])
def test_ratios_of_query_heads_to_kv_heads(num_heads: int, num_kv_heads: int) -> None:
    check(Case(seq_lens=ROWS[:3], num_shared=16, num_heads=num_heads, num_kv_heads=num_kv_heads))


@pytest.mark.parametrize(("block_size", "num_shared"), [(16, 3), (32, 7), (48, 3), (64, 1), (256, 1)])
def test_block_sizes_and_prefixes_that_end_within_a_tile(block_size: int, num_shared: int) -> None:
    longer = tuple(block_size * num_shared + own for own in (1, 20, 70))
    check(Case(seq_lens=longer, num_shared=num_shared, block_size=block_size))


@pytest.mark.parametrize("num_shared", [0, 1, 16])
def test_rows_that_pad_the_batch_share_nothing(num_shared: int) -> None:
    check(Case(seq_lens=(270, 300, 1, 1, 1), num_shared=num_shared))


def test_a_row_that_is_not_longer_than_the_prefix_shares_nothing_wherever_it_stands() -> None:
    check(Case(seq_lens=(256, 257, 40, 300, 1), num_shared=16))


def test_rows_without_context_give_zeros() -> None:
    case = Case(seq_lens=(270, 300, 1), num_shared=16)
    q, cache, metadata = make_batch(case)
    metadata.seq_lens[2] = 0
    backend = make_backend(case.dtype)
    out = backend.build_layer(case.spec).forward(q, q, q, cache, backend.plan(metadata))
    assert_close(out[:2], reference(case, q, cache, metadata)[:2], case.dtype)
    assert torch.equal(out[2], torch.zeros_like(out[2]))


def test_nobody_is_longer_than_the_prefix() -> None:
    check(Case(seq_lens=(40, 33, 1), num_shared=16))


def test_less_than_all_that_is_shared_may_be_told() -> None:
    check(Case(seq_lens=ROWS, num_shared=16, told=9))


def test_soft_cap() -> None:
    check(Case(seq_lens=ROWS, num_shared=16, soft_cap=1.5))


def test_a_window_has_no_shared_prefix() -> None:
    check(Case(seq_lens=ROWS, num_shared=16, sliding_window=30))


def test_prompts_in_the_same_step_are_computed_as_ever() -> None:
    check(Case(seq_lens=ROWS[:3], num_shared=16, prompt=37))


@pytest.mark.skipif(INTERPRETED, reason="large batches take the interpreter minutes")
@pytest.mark.parametrize("num_requests", [2, 8, 40, 256])
@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(16, 8), (32, 8), (8, 8)])
def test_large_batches(num_requests: int, num_heads: int, num_kv_heads: int) -> None:
    seq_lens = tuple(2048 + 1 + 7 * i % 190 for i in range(num_requests))
    case = Case(seq_lens=seq_lens, num_shared=128, num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=128)
    check(replace(case, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("options", "shares"),
    [(None, True), (TritonPagedOptions(), True), (TritonPagedOptions(shared_prefix=False), False)],
    ids=["no options", "default options", "shared_prefix: false"],
)
def test_a_prefix_is_shared_unless_the_option_says_no(options: TritonPagedOptions | None, shares: bool) -> None:
    case = Case(seq_lens=ROWS, num_shared=16)
    q, cache, metadata = make_batch(case)
    backend = TritonPagedBackend(options=options, context=make_backend(case.dtype)._context)
    plan, layer = backend.plan(metadata), backend.build_layer(case.spec)
    assert backend.uses_shared_prefix(2, 8) == shares
    assert (plan.num_shared_blocks is not None) == shares
    assert (layer._workspace.shared.numel() > 0) == shares  # what is not used takes no memory
    assert_close(layer.forward(q, q, q, cache, plan), reference(case, q, cache, metadata), case.dtype)


def test_a_prefix_must_be_long_enough_and_of_several_requests() -> None:
    backend = make_backend(torch.float32, min_shared_blocks=5)
    answers = [backend.uses_shared_prefix(*numbers) for numbers in [(2, 5), (2, 4), (1, 5)]]
    assert answers == [True, False, False]


def test_the_prefix_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decode kernel does not read it again: without the other kernel's result the answer is that of the rest."""
    case = Case(seq_lens=(48, 60), num_shared=2)
    q, cache, metadata = make_batch(case)
    attend = backend_module.attend_shared_prefix

    def forgetful(*arguments: torch.Tensor, **keywords: object) -> object:
        shared = attend(*arguments, **keywords)
        shared.partial_lse.fill_(float("-inf"))
        return shared

    monkeypatch.setattr(backend_module, "attend_shared_prefix", forgetful)
    backend = make_backend(case.dtype)
    out = backend.build_layer(case.spec).forward(q, q, q, cache, backend.plan(metadata))
    rest = replace(metadata, seq_lens=metadata.seq_lens - 32, block_table=metadata.block_table[:, 2:])
    assert_close(out, reference(case, q, cache, rest), case.dtype)


def test_splits_fill_the_device_and_no_more() -> None:
    config = shared_config(itemsize=2, head_dim=128, num_queries=512)
    assert (config.block_m, config.programs_per_sm) == (64, 2)
    assert num_shared_splits(config, num_queries=512, num_kv_heads=8, num_sms=132) == 4
    assert num_shared_splits(config, num_queries=64, num_kv_heads=1, num_sms=132) == 64
    assert num_shared_splits(config, num_queries=100_000, num_kv_heads=8, num_sms=132) == 1


@pytest.mark.skipif(INTERPRETED, reason="CUDA graphs need a CUDA device")
def test_one_captured_graph_serves_all_prefixes() -> None:
    case = Case(seq_lens=(900,) * 4, num_shared=40, num_heads=8, head_dim=128, dtype=torch.bfloat16)
    backend = make_backend(case.dtype)
    layer = backend.build_layer(case.spec)
    q, cache, metadata = make_batch(case)
    out = torch.empty_like(q)
    layer.forward(q, q, q, cache, backend.plan(metadata), out)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        layer.forward(q, q, q, cache, backend.plan(metadata), out)
    others = [((600, 700, 620, 900), 37), ((300, 257, 1, 1), 16), ((90, 80, 1, 1), 0), ((700, 700, 700, 1), 12)]
    for seed, (seq_lens, num_shared) in enumerate(others, start=1):
        other = replace(case, seq_lens=seq_lens, num_shared=num_shared)
        new_q, new_cache, new_metadata = make_batch(other, seed)
        q.copy_(new_q)
        cache[: len(new_cache)] = new_cache
        metadata.seq_lens.copy_(new_metadata.seq_lens)
        metadata.num_shared_blocks.copy_(new_metadata.num_shared_blocks)
        width = min(metadata.block_table.shape[1], new_metadata.block_table.shape[1])
        metadata.block_table[:, :width] = new_metadata.block_table[:, :width]
        out.fill_(float("nan"))
        graph.replay()
        assert_close(out, reference(other, q, cache, metadata), case.dtype)
