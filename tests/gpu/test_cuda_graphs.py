"""Decode steps replayed as CUDA graphs against the same steps launched kernel by kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from vcore import LLM, EngineConfig, SamplingParams
from vcore.runner.cuda_graphs import DecodeGraphs
from vcore.runner.decode_input import DecodeInput, refill
from vcore.runner.input_builder import ForwardBatch

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "num_hidden_layers": 3,
    "vocab_size": 1000,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}
PROMPTS = [[(7 * i + j) % 1000 for j in range(3 + 11 * i)] for i in range(13)]
LENGTHS = [40, 3, 17, 60, 9, 33, 21, 5, 50, 12, 28, 44, 1]
"""So the batch shrinks through many sizes."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    return tmp_path


@contextmanager
def engine(model: Path, dtype: str = "float32", **runtime: Any) -> Iterator[LLM]:
    config = {
        "model": {"path": str(model), "load_format": "dummy", "skip_tokenizer": True, "dtype": dtype},
        "runtime": {"device": "cuda:0", **runtime},
        "attention": {"backend": "triton_paged"},
        "scheduler": {"max_num_seqs": 16},
        "cache": {"num_blocks": 400},
    }
    with LLM(config=EngineConfig.model_validate(config)) as llm:
        yield llm


def generate(llm: LLM, prompts: list[list[int]], lengths: list[int], **params: Any) -> list[list[int]]:
    wanted = [SamplingParams(max_tokens=n, ignore_eos=True, detokenize=False, **params) for n in lengths]
    return [list(output.outputs[0].token_ids) for output in llm.generate(prompts, wanted, use_tqdm=False)]


def graphs_of(llm: LLM) -> DecodeGraphs | None:
    return llm._engine.core._executor._runner._graphs  # the one way to see that they are used


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_tokens_are_those_of_eager_steps(model: Path, temperature: float, asynchronous: bool) -> None:
    params = {"temperature": temperature, "seed": 3} if temperature else {"temperature": 0.0}
    with engine(model, enforce_eager=True, async_scheduling=False) as llm:
        assert graphs_of(llm) is None
        expected = generate(llm, PROMPTS, LENGTHS, **params)
    with engine(model, async_scheduling=asynchronous) as llm:
        for _ in range(2):  # the second time from captured graphs, and from cached prefixes
            assert generate(llm, PROMPTS, LENGTHS, **params) == expected
        graphs = graphs_of(llm)
        assert graphs is not None
        assert sorted(graphs._graphs) == [1, 2, 4, 8, 16]


@pytest.mark.parametrize("rows", [1, 2, 4, 8])
def test_a_batch_of_a_captured_size_gives_the_same_in_half_precision(model: Path, rows: int) -> None:
    lengths = [30] * rows
    with engine(model, "bfloat16", enforce_eager=True) as llm:
        expected = generate(llm, PROMPTS[:rows], lengths, temperature=0.0)
    with engine(model, "bfloat16") as llm:
        assert generate(llm, PROMPTS[:rows], lengths, temperature=0.0) == expected


def test_the_cache_leaves_room_for_graphs(model: Path) -> None:
    config = {
        "model": {"path": str(model), "load_format": "dummy", "skip_tokenizer": True},
        "runtime": {"device": "cuda:0"},
        "attention": {"backend": "triton_paged"},
        "scheduler": {"max_num_seqs": 16},
        "cache": {"memory_fraction": 0.1},
    }
    with LLM(config=EngineConfig.model_validate(config)) as llm:
        assert generate(llm, PROMPTS, LENGTHS, temperature=0.0)
        graphs = graphs_of(llm)
        assert graphs is not None
        assert graphs._graphs


def step(num_rows: int, width: int = 3) -> ForwardBatch:
    """A decode step of `num_rows` rows with recognisable numbers."""
    decode_input = DecodeInput(max_size=num_rows, windows=(None,), max_model_len=64, max_blocks=width, device=CUDA)
    groups = decode_input.groups(num_rows)
    numbers = torch.arange(1, num_rows + 1, device=CUDA)
    groups[0].seq_lens.copy_(numbers + 20)
    groups[0].slot_mapping.copy_(numbers + 30)
    groups[0].block_table.copy_(torch.arange(num_rows * width, device=CUDA).view(num_rows, width) + 40)
    rows = numbers.cpu().numpy() - 1
    return ForwardBatch(
        input_ids=numbers, positions=numbers + 10, groups=groups, rows=rows, starts=rows, sampled_rows=rows,
        logits_indices=None,
    )  # fmt: skip


@pytest.mark.parametrize(("num_rows", "size", "width"), [(1, 1, 1), (3, 8, 3), (5, 5, 1500)])
def test_refilling_is_that_of_the_reference(num_rows: int, size: int, width: int) -> None:
    batch, group = step(num_rows, width), step(num_rows, width).groups[0]
    sources = (batch.input_ids, batch.positions, group.seq_lens, group.slot_mapping, group.block_table)
    results = []
    for fill in (refill, refill.reference):
        targets = [torch.full((9,), 99, dtype=source.dtype, device=CUDA) for source in sources[:4]]
        table = torch.full((9, 1600), 99, dtype=torch.int32, device=CUDA)
        fill(*targets, table, sources, size)
        table[num_rows:size, 1:] = 0  # one entry of a padding row means something
        results.append([*targets, table])
    for found, expected in zip(*results, strict=True):
        assert torch.equal(found, expected)


def small_graphs(forward: Any, sizes: tuple[int, ...] = (1, 2, 4)) -> DecodeGraphs:
    decode_input = DecodeInput(max_size=sizes[-1], windows=(None,), max_model_len=64, max_blocks=4, device=CUDA)
    return DecodeGraphs(forward, decode_input, sizes)


def sums(input_ids: torch.Tensor, positions: torch.Tensor, groups: Any) -> torch.Tensor:
    group = groups[0]
    total = input_ids + positions * group.seq_lens + group.slot_mapping + group.block_table[:, 0]
    return total.float()[:, None].expand(-1, 3)


def test_a_replay_computes_the_rows_of_its_step() -> None:
    graphs = small_graphs(sums)
    for num_rows in (3, 1, 4, 2, 3):
        batch = step(num_rows)
        found = graphs.run(batch)
        assert found is not None
        assert torch.equal(found, sums(batch.input_ids, batch.positions, batch.groups))
    assert sorted(graphs._graphs) == [1, 2, 4]


def test_steps_without_a_graph_are_left_to_the_caller() -> None:
    graphs = small_graphs(sums)
    assert graphs.run(step(5)) is None
    prefill = step(2)
    prefill.groups[0].num_tokens = 7
    assert graphs.run(prefill) is None
    graphs.close()
    assert graphs.run(step(1)) is None


def test_a_model_that_waits_for_the_device_goes_on_without_graphs(caplog: pytest.LogCaptureFixture) -> None:
    def waits(input_ids: torch.Tensor, positions: torch.Tensor, groups: Any) -> torch.Tensor:
        return sums(input_ids, positions, groups) * int(input_ids.sum())

    graphs = small_graphs(waits)
    with caplog.at_level("WARNING", logger="vcore"):
        assert graphs.run(step(2)) is None
        assert graphs.run(step(2)) is None
    assert len([record for record in caplog.records if "without CUDA graphs" in record.message]) == 1
    assert torch.ones(3, device=CUDA).sum().item() == 3.0  # the device is as it was
    other = small_graphs(sums)
    assert other.run(step(1)) is not None


def test_measuring_captures_the_largest_size_first() -> None:
    calls: list[int] = []

    def counts(input_ids: torch.Tensor, positions: torch.Tensor, groups: Any) -> torch.Tensor:
        calls.append(input_ids.shape[0])
        return sums(input_ids, positions, groups)

    assert small_graphs(counts).measure() >= 0
    assert calls == [4, 4, 1, 1]
