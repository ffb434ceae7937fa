"""What is rehearsed: steps that keep to every limit, on either side of each size that kernels tell apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from vcore.interfaces.attention import AttentionMetadata
from vcore.kv_cache.spec import LatentCacheSpec
from vcore.ops.compile_ahead import AheadCompiler
from vcore.runner import RunnerSettings, rehearsal
from vcore.runner.cuda_graphs import DecodeGraphs
from vcore.runner.rehearsal import Rehearsal, attention_steps, either_side_of_powers

Make = Callable[..., Any]


def settings(**changes: Any) -> RunnerSettings:
    values: dict[str, Any] = {
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "block_size": 16,
        "max_num_seqs": 100,
        "max_num_batched_tokens": 5000,
        "max_model_len": 20_000,
        "memory_fraction": 0.5,
        "vocab_size": 40,
    }
    return RunnerSettings(**{**values, **changes})


@pytest.mark.parametrize(
    ("base", "limit", "expected"),
    [
        (2, 1, [1]),
        (2, 2, [1, 2]),
        (2, 20, [1, 2, 3, 4, 5, 8, 9, 16, 17, 20]),
        (4, 64, [1, 2, 4, 5, 16, 17, 64]),
        (4, 70, [1, 2, 4, 5, 16, 17, 64, 65, 70]),
    ],
)
def test_sizes_on_either_side_of_powers(base: int, limit: int, expected: list[int]) -> None:
    assert either_side_of_powers(base, limit) == expected


def chunks(steps: list[AttentionMetadata]) -> set[tuple[int, int]]:
    """How many chunks, and the longest, of steps without decode rows and without anything cached."""
    fresh = [step for step in steps if not step.num_decodes and step.seq_lens_cpu.sum() == step.num_tokens]
    return {(step.num_requests, step.max_query_len) for step in fresh}


@pytest.mark.parametrize("latent", [False, True])
@pytest.mark.parametrize("changes", [{}, {"max_num_seqs": 3, "max_num_batched_tokens": 30}, {"max_model_len": 50}])
def test_steps_keep_to_every_limit(latent: bool, changes: dict[str, int]) -> None:
    chosen = settings(**changes)
    steps = attention_steps(chosen, latent=latent)
    for step in steps:
        assert step.num_requests <= chosen.max_num_seqs
        assert step.num_tokens <= chosen.max_num_batched_tokens
        assert step.max_seq_len <= chosen.max_model_len
        assert step.num_decodes in (0, step.num_requests)
        assert step.num_tokens == step.slot_mapping.shape[0] == step.query_start_loc_cpu[-1]
        assert not step.block_table.any()
        assert not step.slot_mapping.any()
    decodes = [step.num_requests for step in steps if step.num_decodes]
    assert decodes == either_side_of_powers(2, chosen.max_num_seqs)


def test_many_chunks_and_long_ones_meet() -> None:
    found = chunks(attention_steps(settings(), latent=False))
    assert {(1, 2), (1, 4097), (17, 2), (17, 1025), (65, 256), (65, 257), (100, 4097)} <= found


def test_latents_are_read_as_they_are_and_projected_up_in_pieces() -> None:
    steps = [step for step in attention_steps(settings(), latent=True) if step.seq_lens_cpu.sum() > step.num_tokens]
    cached = [int((step.seq_lens_cpu - 1).sum()) - step.num_tokens for step in steps]
    lengths = {(step.num_requests, step.max_query_len) for step, count in zip(steps, cached, strict=True)}
    assert {(1, 256), (1, 257), (17, 256), (17, 257)} <= lengths
    assert {step.num_tokens for step in steps if step.max_query_len <= 64} == {
        size for size in either_side_of_powers(4, 5000) if size > 1
    }


def test_model_attention_and_choice_are_rehearsed(setup_runner: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every kind of layer once in each step of attention, and the shared blocks where attention wants them."""
    setup = setup_runner(windows=(None, 5, None, 5))
    forward, model = setup.runner._forward, setup.model
    chosen = []
    for name in ("greedy", "race"):
        monkeypatch.setattr(rehearsal, name, lambda logits, *rest, name=name: chosen.append((name, logits.dtype)))
    wants_shared = lambda rows, blocks: rows > 2  # noqa: E731
    monkeypatch.setattr(forward.attention, "uses_shared_prefix", wants_shared, raising=False)
    seen: list[AttentionMetadata] = []

    def attend(attn: Any, out: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
        metadata = attn.layer_groups[0].metadata
        assert x.shape[0] == metadata.num_tokens
        assert attn.layer_groups[1].metadata.num_shared_blocks is None  # it has a window
        seen.append(metadata)
        return x

    sizes: list[int] = []

    def compute(input_ids: torch.Tensor, positions: torch.Tensor, attn: Any) -> torch.Tensor:
        sizes.append(input_ids.shape[0])
        for _ in range(4):
            attn.run(attend, input_ids)
        return torch.zeros(input_ids.shape[0], 1)

    monkeypatch.setattr(model, "forward", compute)
    model.logits_dtype = torch.float16
    Rehearsal(model, model.compute_logits, forward.attention, forward._settings, forward.layout, forward.caches).run(
        beyond=5
    )
    assert sizes == [64, 8, 9, 16, 17, 32, 33]
    steps = attention_steps(forward._settings, latent=False)
    shared = [step for step in seen if step.num_shared_blocks is not None]
    kinds = 2  # of layers: with a window, and without
    assert len(shared) == kinds * len([rows for rows in either_side_of_powers(2, 8) if rows > 2])
    assert len(seen) == 4 * len(sizes) + kinds * len(steps) + len(shared)
    assert chosen == [
        (name, dtype) for _ in range(2) for dtype in (torch.float16, torch.float32) for name in ("greedy", "race")
    ]


def test_a_model_with_latents_has_steps_of_its_own(setup_runner: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = setup_runner()
    forward, asked = setup.runner._forward, []
    monkeypatch.setattr(
        rehearsal,
        "attention_steps",
        lambda settings, latent: asked.append(latent) or attention_steps(settings, latent=latent),
    )
    arguments = (setup.model, setup.model.compute_logits, forward.attention, forward._settings, forward.layout)
    Rehearsal(*arguments, forward.caches).run()
    setup.model.kv_cache_specs = lambda: [LatentCacheSpec(dtype=torch.float32, latent_dim=4)]
    Rehearsal(*arguments, forward.caches).run()
    assert asked == [False, True]


def test_kernels_are_compiled_once_before_anything_is_recorded(
    setup_runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of graphs, and of whatever is larger."""
    done: list[Any] = []

    monkeypatch.setattr(AheadCompiler, "run", lambda self, compute: compute())
    monkeypatch.setattr(
        DecodeGraphs, "_compute", lambda self, size, samples, shares: done.append((size, samples, shares))
    )
    monkeypatch.setattr(Rehearsal, "run", lambda self, *, beyond: done.append(beyond))
    runner = setup_runner(graph_sizes=(1, 2, 4, 8)).runner
    assert done == [8, *((size, True, False) for size in (1, 2, 4, 8))]
    runner.initialize_cache(9)
    assert len(done) == 5
