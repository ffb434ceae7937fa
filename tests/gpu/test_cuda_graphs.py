"""Decode steps replayed as CUDA graphs against the same steps launched kernel by kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vcore import LLM, EngineConfig, SamplingParams
from vcore.runner.batch_state import BatchState
from vcore.runner.choice import choose_and_record
from vcore.runner.cuda_graphs import DecodeGraphs
from vcore.runner.decode_input import DecodeInput

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
    return llm._engine.core._executor._runner._forward.graphs  # the one way to see that they are used


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
        assert sorted(graphs._graphs) == [(size, True, False) for size in (1, 2, 4, 8, 16)]


def test_all_graphs_are_there_before_the_first_request_if_asked_for(model: Path) -> None:
    with engine(model) as llm:
        expected = generate(llm, PROMPTS, LENGTHS, temperature=0.0)
    with engine(model, graph_capture="at_start") as llm:
        graphs = graphs_of(llm)
        assert graphs is not None
        captured = list(graphs._graphs)
        assert {size for size, _, _ in captured} == {1, 2, 4, 8, 16}
        assert generate(llm, PROMPTS, LENGTHS, temperature=0.0) == expected
        assert list(graphs._graphs) == captured


def test_requests_that_sample_in_their_own_ways_run_in_graphs_too(model: Path) -> None:
    params = [{"temperature": 0.8, "seed": 1, "top_p": 0.7}, {"temperature": 0.0, "presence_penalty": 1.0}, {}]
    wanted = [
        SamplingParams(max_tokens=12 + 5 * i, ignore_eos=True, detokenize=False, **{"temperature": 0.0, **fields})
        for i, fields in enumerate(params)
    ]
    results = []
    for eager in (True, False):
        with engine(model, enforce_eager=eager) as llm:
            outputs = llm.generate(PROMPTS[:3], wanted, use_tqdm=False)
            results.append([list(output.outputs[0].token_ids) for output in outputs])
            graphs = graphs_of(llm)
            assert (graphs is None) == eager
            if graphs is not None:
                assert {samples for _, samples, _ in graphs._graphs} == {False, True}
    assert results[0] == results[1]


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
        "cache": {"memory_fraction": 0.9},
    }
    with LLM(config=EngineConfig.model_validate(config)) as llm:
        assert generate(llm, PROMPTS, LENGTHS, temperature=0.0)
        graphs = graphs_of(llm)
        assert graphs is not None
        assert graphs._graphs


def state_of(rows: int = 4) -> BatchState:
    """Rows with recognisable tokens and blocks, all of whose tokens but the last are computed."""
    state = BatchState(max_num_seqs=rows, max_model_len=4096, block_size=4)
    state.set_groups((None, 8))
    state.token_ids[:, :50] = np.arange(rows * 50).reshape(rows, 50)
    state.block_tables[:] = 100 + np.arange(2 * rows * 1024).reshape(2, rows, 1024)
    state.num_computed[:] = 7 * np.arange(rows) + 3
    state.num_tokens[:] = state.num_computed + 1
    return state


def input_of(state: BatchState, max_size: int, device: torch.device = CUDA) -> DecodeInput:
    return DecodeInput(state, max_size=max_size, windows=(None, 8), device=device)


@pytest.mark.parametrize("longest", [20, 3000])
def test_the_input_is_that_of_the_reference(longest: int) -> None:
    state = state_of()
    state.num_computed[1] = longest
    state.num_unknown[:] = [0, 0, 1, 0]
    results = []
    for device in (CUDA, torch.device("cpu")):
        given = input_of(state, 8, device)
        for rows, size in (([0, 1, 2, 3], 4), ([2], 1), ([3, 1, 2], 6)):
            given.fill(np.array(rows), size, np.full(len(rows), 0.5, dtype=np.float32), np.arange(len(rows)))
            given.prepare(torch.tensor([71, 72, 73, 74], device=device), size)
        tensors = [*given.tokens(6), *given.choice(6)]
        for group in given.groups(6):
            tensors += [group.seq_lens, group.slot_mapping, group.block_table, group.query_start_loc]
        results.append([tensor.cpu() for tensor in tensors])
    for found, expected in zip(*results, strict=True):
        assert torch.equal(found, expected)


def sums(input_ids: torch.Tensor, positions: torch.Tensor, groups: Any) -> torch.Tensor:
    """A stand-in for a model, whose "logits" are large where a digest of all its input says."""
    total = input_ids + positions
    for group in groups:
        total = total + group.seq_lens + group.slot_mapping + group.block_table[:, 0]
    return total.float()[:, None].expand(-1, 3)


def logits(hidden_states: torch.Tensor) -> torch.Tensor:
    ids = torch.arange(997, device=CUDA)
    return -(ids - hidden_states[:, :1] % 997).abs()


def small_graphs(forward: Any = sums, sizes: tuple[int, ...] = (1, 2, 4)) -> DecodeGraphs:
    last = torch.zeros(4, dtype=torch.int64, device=CUDA)
    return DecodeGraphs(forward, logits, input_of(state_of(), sizes[-1]), last, sizes)


def expected_sums(rows: list[int]) -> torch.Tensor:
    given = input_of(state_of(), 4)
    given.fill(np.array(rows), len(rows))
    given.prepare(torch.zeros(4, dtype=torch.int64, device=CUDA), len(rows))
    return sums(*given.tokens(len(rows)), given.groups(len(rows)))


def test_a_replay_computes_the_rows_of_its_step() -> None:
    graphs = small_graphs()
    for rows in ([2, 0, 1], [3], [0, 1, 2, 3], [1, 3], [0, 3, 2]):
        hidden_states = graphs.run(np.array(rows))
        assert hidden_states is not None
        assert torch.equal(hidden_states, expected_sums(rows))
        sampled = graphs.sample(np.array(rows), None, None)
        assert sampled is not None
        wanted = logits(expected_sums(rows))
        assert torch.equal(sampled[0, : len(rows)], wanted.argmax(1))
        assert torch.equal(sampled[1].view(torch.float32)[: len(rows)], wanted.amax(1))
        assert torch.equal(graphs._last_token_ids[torch.tensor(rows, device=CUDA)], wanted.argmax(1))
    assert sorted(graphs._graphs) == [(size, samples, False) for size in (1, 2, 4) for samples in (False, True)]


def test_a_model_that_waits_for_the_device_goes_on_without_graphs(caplog: pytest.LogCaptureFixture) -> None:
    def waits(input_ids: torch.Tensor, positions: torch.Tensor, groups: Any) -> torch.Tensor:
        return sums(input_ids, positions, groups) * int(input_ids.sum())

    graphs = small_graphs(waits)
    with caplog.at_level("WARNING", logger="vcore"):
        assert graphs.run(np.array([1])) is None
        assert not graphs.takes(1)
    assert len([record for record in caplog.records if "without CUDA graphs" in record.message]) == 1
    assert torch.ones(3, device=CUDA).sum().item() == 3.0  # the device is as it was
    assert small_graphs().run(np.array([1])) is not None


def test_measuring_captures_the_largest_size_first() -> None:
    calls: list[int] = []

    def counts(input_ids: torch.Tensor, positions: torch.Tensor, groups: Any) -> torch.Tensor:
        calls.append(input_ids.shape[0])
        return sums(input_ids, positions, groups)

    assert small_graphs(counts).measure() >= 0
    assert calls == [4, 4, 1, 1] * 2  # those that sample, and those that do not


@pytest.mark.parametrize("vocab_size", [40, 128_256])
def test_greedy_and_random_rows_of_a_batch_are_chosen_as_by_the_reference(vocab_size: int) -> None:
    given = torch.randn(5, vocab_size, generator=torch.Generator(device=CUDA).manual_seed(1), device=CUDA)
    temperature = torch.tensor([0.0, 0.7, 1.5, 0.0, 1e-8], device=CUDA)
    keys = torch.arange(5, device=CUDA) * 12345
    rows = torch.tensor([5, 0, 2, -1, 1], device=CUDA)
    results = []
    for choose in (choose_and_record, choose_and_record.reference):
        last_token_ids = torch.full((6,), -7, device=CUDA)
        token_ids, scores = torch.empty(5, dtype=torch.int64, device=CUDA), torch.empty(5, device=CUDA)
        choose(given, temperature, keys, rows, last_token_ids, token_ids, scores)
        results.append((token_ids, scores, last_token_ids))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
