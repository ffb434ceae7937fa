"""The largest step: as many tokens as may be, in requests no longer than may be, and nothing written but block 0."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vcore.kv_cache.layout import build_cache_layout
from vcore.kv_cache.spec import FullAttentionSpec, LatentCacheSpec
from vcore.runner import RunnerSettings
from vcore.runner import profile_run as profile
from vcore.runner.memory import allocate_caches
from vcore.runner.null_steps import largest_metadata, null_metadata
from vcore.runner.profile_run import run_largest_step


def settings(max_num_batched_tokens: int, max_num_seqs: int = 8, max_model_len: int = 60) -> RunnerSettings:
    return RunnerSettings(
        device=torch.device("cpu"),
        dtype=torch.float32,
        block_size=4,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        max_model_len=max_model_len,
        memory_fraction=0.5,
        vocab_size=40,
    )


@pytest.mark.parametrize(
    ("tokens", "seqs", "length", "lengths"),
    [(10, 8, 60, [10]), (150, 8, 60, [30, 60, 60]), (61, 8, 60, [1, 60]), (999, 3, 5, [5, 5, 5])],
)
def test_the_largest_step_keeps_to_every_limit(tokens: int, seqs: int, length: int, lengths: list[int]) -> None:
    metadata = largest_metadata(settings(tokens, seqs, length))
    assert metadata.seq_lens.tolist() == metadata.seq_lens_cpu.tolist() == lengths
    assert metadata.query_start_loc.diff().tolist() == lengths
    assert metadata.num_tokens == sum(lengths) == metadata.slot_mapping.shape[0]
    assert metadata.num_decodes == lengths.count(1)
    assert metadata.block_table.shape == (len(lengths), -(-length // 4))


def test_it_runs_model_head_and_sampler_and_writes_the_null_block_alone(
    setup_runner: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = setup_runner(windows=(None, 5))
    chosen, layout = settings(150), setup.runner.cache_layout()
    caches = allocate_caches(setup.model.kv_cache_specs(), layout, 3, 4, torch.device("cpu"))
    monkeypatch.setattr(setup.model, "forward", _write_slots)
    run_largest_step(setup.model, setup.runner._forward.attention, chosen, layout, caches, largest_metadata(chosen))
    for cache in caches:
        assert cache[0].any()
        assert not cache[1:].any()
    assert setup.model.logits_rows[-1] == chosen.max_num_seqs


def _write_slots(input_ids: torch.Tensor, positions: torch.Tensor, attn: Any) -> torch.Tensor:
    assert positions.max() < 60
    assert [group.metadata.sliding_window for group in attn.layer_groups] == [None, 5]
    assert [group.plan.sliding_window for group in attn.layer_groups] == [None, 5]
    for cache, group in zip(attn.layer_caches, attn.layer_groups, strict=True):
        cache.view(-1)[group.slot_mapping] = 1.0
    return torch.zeros(input_ids.shape[0], 1)


@pytest.mark.parametrize(
    ("tokens", "seqs", "length", "cached", "new", "before"),
    [
        (60, 8, 60, 16, [16, 44], 16),
        (150, 8, 60, 999, [30] * 5, 30),
        (999, 3, 60, 30, [30] * 3, 30),
        (10, 8, 60, 16, [10], 16),
    ],
)
def test_a_largest_step_over_a_cache_keeps_to_every_limit(
    tokens: int, seqs: int, length: int, cached: int, new: list[int], before: int
) -> None:
    metadata = largest_metadata(settings(tokens, seqs, length), num_cached=cached)
    assert metadata.query_start_loc.diff().tolist() == new
    assert metadata.seq_lens.tolist() == [count + before for count in new]
    assert metadata.seq_lens.max() <= length
    assert metadata.num_tokens == sum(new) <= tokens
    assert metadata.block_table.shape == (len(new), -(-length // 4))
    assert not metadata.block_table.any()


@pytest.mark.parametrize(("tokens", "lengths"), [(1, [1]), (60, [60]), (61, [30, 31]), (64, [32, 32])])
def test_tokens_of_nobody_come_in_requests_that_there_may_be(tokens: int, lengths: list[int]) -> None:
    metadata = null_metadata(settings(200), tokens, 7)
    assert metadata.seq_lens.tolist() == metadata.query_start_loc.diff().tolist() == lengths
    assert metadata.sliding_window == 7
    assert not metadata.slot_mapping.any()


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory counters of a device that is not there: 100 bytes are allocated, 700 were at the peak."""
    for name, value in (("memory_allocated", 100), ("max_memory_allocated", 700)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda device: None)


@pytest.mark.usefixtures("fake_cuda")
@pytest.mark.parametrize("latent", [False, True])
def test_latent_attention_is_profiled_over_a_cache_too(monkeypatch: pytest.MonkeyPatch, latent: bool) -> None:
    spec = (
        LatentCacheSpec(dtype=torch.float32, latent_dim=4)
        if latent
        else FullAttentionSpec(dtype=torch.float32, num_kv_heads=1, head_dim=4)
    )
    cached: list[int] = []

    def run(model: Any, attention: Any, settings: Any, layout: Any, caches: Any, metadata: Any) -> None:
        cached.append(int((metadata.seq_lens_cpu - metadata.query_start_loc_cpu[1:]).max()))

    monkeypatch.setattr(profile, "run_largest_step", run)
    model: Any = SimpleNamespace(kv_cache_specs=lambda: [spec])
    chosen = settings(30, 8, 60)
    assert profile.profile_run(model, None, chosen, build_cache_layout([spec], 4)) == 600  # type: ignore[arg-type]
    assert cached == ([0, 30] if latent else [0])


def test_the_cache_leaves_room_for_what_is_recorded(
    setup_runner: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs that sample and graphs that do not, with shared blocks where attention wants them, and segments."""
    for module in ("cuda_graphs", "segments"):
        monkeypatch.setattr(f"vcore.runner.{module}.memory_taken_by", lambda act: 1000)
    forward = setup_runner(graph_sizes=(1, 2, 4), max_segment_tokens=30).runner._forward
    assert forward._recorded_bytes() == 2 * 3000 + 3000  # segments of 8, 16 and 30 tokens
    assert forward.caches is forward.graphs is forward._segments is None
    monkeypatch.setattr(forward.attention, "uses_shared_prefix", lambda rows, blocks: True, raising=False)
    assert forward._recorded_bytes() == 4 * 3000 + 3000
