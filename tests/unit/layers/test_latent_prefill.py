"""How prefill rows of latent attention are computed: which form is cheaper, and what the pieces hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vcore.interfaces.attention import AttentionMetadata, LatentSpec
from vcore.layers.latent_prefill import LatentPiece, absorbed_is_cheaper, plan_prefill
from vcore.testing.attention_batch import build_attention_metadata

V3 = LatentSpec(num_heads=1, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, scale=1.0)
BLOCK_SIZE = 4


def _multiply_adds(spec: LatentSpec, num_new: int, num_cached: int) -> tuple[int, int]:
    """Of one head: absorbed and up-projected, counted pair by pair."""
    rank, nope, rope, v = spec.kv_lora_rank, spec.qk_nope_head_dim, spec.qk_rope_head_dim, spec.v_head_dim
    absorbed = up_projected = 0
    for query in range(num_new):
        absorbed += nope * rank + rank * v
        for _ in range(num_cached + query + 1):
            absorbed += (rank + rope) + rank
            up_projected += (nope + rope) + v
    return absorbed, up_projected + (num_cached + num_new) * rank * (nope + v)


@pytest.mark.parametrize("rows", [[(3, 0)], [(1, 50)], [(20, 4)], [(9, 9), (30, 0)], [(200, 40)], [(150, 20), (2, 90)]])
@pytest.mark.parametrize("sizes", [(16, 8, 4, 6), (64, 8, 16, 8), (8, 8, 4, 8)])
def test_the_form_with_fewer_multiply_adds_is_taken(rows: list[tuple[int, int]], sizes: tuple[int, int, int, int]):
    rank, nope, rope, v = sizes
    spec = LatentSpec(
        num_heads=3, kv_lora_rank=rank, qk_nope_head_dim=nope, qk_rope_head_dim=rope, v_head_dim=v, scale=1.0
    )
    costs = np.array([_multiply_adds(spec, *row) for row in rows]).sum(0)
    num_new, num_cached = np.array(rows, dtype=np.int64).T
    assert absorbed_is_cheaper(spec, num_new, num_cached) == (costs[0] < costs[1])


@pytest.mark.parametrize(
    ("num_new", "num_cached", "absorbed"),
    [
        (4096, 0, False),
        (2, 0, False),
        (16, 4096, True),
        (150, 100_000, True),
        (180, 100_000, False),
        (512, 8192, False),
    ],
)
def test_published_sizes(num_new: int, num_cached: int, absorbed: bool):
    """A fresh prompt goes up-projected, a small chunk over a long context absorbed."""
    assert absorbed_is_cheaper(V3, np.array([num_new]), np.array([num_cached])) == absorbed


def _metadata(requests: list[tuple[int, int]]) -> AttentionMetadata:
    """Of requests with these numbers of new and of cached tokens, in blocks that are scattered."""
    requests = sorted(requests, key=lambda request: request[0] > 1)
    seq_lens = [new + cached for new, cached in requests]
    block_ids = iter(np.random.default_rng(0).permutation(1000).tolist())
    tables = [[next(block_ids) + 1 for _ in range(-(-length // BLOCK_SIZE))] for length in seq_lens]
    return build_attention_metadata([new for new, _ in requests], seq_lens, tables, block_size=BLOCK_SIZE)


def _plan(metadata: AttentionMetadata, workspace_tokens: int) -> list[LatentPiece]:
    # Of no use in attention, but never cheaper absorbed.
    spec = LatentSpec(num_heads=1, kv_lora_rank=10**6, qk_nope_head_dim=0, qk_rope_head_dim=0, v_head_dim=0, scale=1.0)
    pieces = plan_prefill(metadata, spec, block_size=BLOCK_SIZE, workspace_tokens=workspace_tokens)
    assert pieces is not None
    return pieces


def _seen(metadata: AttentionMetadata, pieces: list[LatentPiece]) -> dict[int, list[int]]:
    """Of each query out of the prefill rows, the slots of the keys that it sees, in all pieces."""
    seen: dict[int, list[int]] = {}
    own_slots = metadata.slot_mapping[metadata.num_decodes :].tolist()
    for piece in pieces:
        slots = own_slots if piece.slots is None else piece.slots.tolist()
        batch = piece.batch
        queries, keys = batch.query_start_loc_cpu.tolist(), batch.kv_start_loc_cpu.tolist()
        assert queries == batch.query_start_loc.tolist()
        assert keys == batch.kv_start_loc.tolist()
        assert piece.queries.stop - piece.queries.start == queries[-1]
        assert len(slots) == keys[-1]
        assert batch.max_query_len == max(np.diff(queries))
        assert batch.max_kv_len == max(np.diff(keys))
        for row in range(batch.num_requests):
            row_keys = slots[keys[row] : keys[row + 1]]
            num_queries = queries[row + 1] - queries[row]
            for query in range(num_queries):
                visible = row_keys[: len(row_keys) - (num_queries - 1 - query)] if batch.causal else row_keys
                seen.setdefault(piece.queries.start + queries[row] + query, []).extend(visible)
    return seen


@given(
    requests=st.lists(st.tuples(st.integers(1, 9), st.one_of(st.just(0), st.integers(0, 30))), min_size=1, max_size=6),
    workspace_tokens=st.integers(1, 60),
)
def test_every_query_sees_its_context_once(requests: list[tuple[int, int]], workspace_tokens: int):
    requests.append((2, 3))  # some row has several tokens
    metadata = _metadata(requests)
    pieces = _plan(metadata, workspace_tokens)
    seen = _seen(metadata, pieces)
    first, starts = metadata.num_decodes, metadata.query_start_loc_cpu.tolist()
    for row in range(first, metadata.num_requests):
        length = int(metadata.seq_lens_cpu[row])
        table = metadata.block_table[row].tolist()
        slots = [table[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE for position in range(length)]
        for query in range(starts[row], starts[row + 1]):
            num_seen = length - (starts[row + 1] - query) + 1
            assert sorted(seen[query - first]) == sorted(slots[:num_seen])
    assert all(len(piece.slots) <= workspace_tokens for piece in pieces if piece.slots is not None)


def test_fresh_prompts_read_nothing_from_the_cache():
    (piece,) = _plan(_metadata([(1, 7), (5, 0), (3, 0)]), 4)
    assert piece.slots is None
    assert piece.queries == slice(0, 8)
    assert piece.batch.causal


def test_one_piece_does_where_all_fits():
    metadata = _metadata([(5, 6), (3, 0)])
    (piece,) = _plan(metadata, 14)
    assert piece.batch.causal
    assert piece.batch.kv_start_loc_cpu.tolist() == [0, 11, 14]
    assert len(_plan(metadata, 13)) == 2


def test_pieces_hold_whole_workspaces_and_only_rows_that_have_some():
    own, *pieces = _plan(_metadata([(2, 6), (3, 0), (4, 9), (2, 0), (5, 1)]), 8)
    assert own.slots is None
    assert [len(piece.slots) for piece in pieces if piece.slots is not None] == [8, 8]
    assert [piece.queries for piece in pieces] == [slice(0, 9), slice(5, 16)]
    assert pieces[0].batch.kv_start_loc_cpu.tolist() == [0, 6, 6, 8]
    assert pieces[1].batch.kv_start_loc_cpu.tolist() == [0, 7, 7, 8]
    assert not any(piece.batch.causal for piece in pieces)


def test_the_whole_batch_is_absorbed_where_that_is_cheaper():
    metadata = _metadata([(1, 5), (2, 300)])
    assert plan_prefill(metadata, V3, block_size=BLOCK_SIZE, workspace_tokens=8192) is None


def test_bounds_of_decode_rows_play_no_part():
    metadata = _metadata([(1, 5), (5, 6)])
    expected = _plan(metadata, 4)
    metadata.seq_lens_cpu = metadata.seq_lens_cpu.copy()
    metadata.seq_lens_cpu[0] += 1000
    for piece, other in zip(expected, _plan(metadata, 4), strict=True):
        assert (piece.slots is None and other.slots is None) or torch.equal(piece.slots, other.slots)
