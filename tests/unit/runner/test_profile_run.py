"""The largest step: as many tokens as may be, in requests no longer than may be, and nothing written but block 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from vcore.runner import RunnerSettings
from vcore.runner.memory import allocate_caches
from vcore.runner.profile_run import largest_metadata, run_largest_step


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
