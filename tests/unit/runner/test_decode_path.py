"""Steps that go the short way, on the CPU: `EagerGraphs` computes what a CUDA graph would replay."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from vcore.interfaces.step import SchedulerOutput
from vcore.runner import forward_pass
from vcore.runner.batch_state import BatchState
from vcore.runner.choice import choose_and_record, greedy, race
from vcore.runner.cuda_graphs import DecodeGraphs, graph_sizes
from vcore.runner.decode_input import DecodeInput
from vcore.runner.gumbel import position_keys, token_offsets

Make = Callable[..., Any]
CPU = torch.device("cpu")
PLAIN: list[dict[str, Any]] = [{}, {"temperature": 0.9, "seed": 5}, {"temperature": 1.3, "seed": 6}, {}]
DEMANDING: list[dict[str, Any]] = [
    {"logprobs": 2},
    {"temperature": 1.2, "top_p": 0.8, "seed": 6},
    {"presence_penalty": 1.0, "repetition_penalty": 1.3},
    {"bad_words": tuple((a, b) for a in range(0, 40, 2) for b in range(0, 40, 3))},
]


class EagerGraphs(DecodeGraphs):
    """Computes at once. What it gives is a copy, as that on an accelerator's host would be."""

    def _capture(self, size: int, samples: bool = True, shares: bool = False) -> Any:
        graphs = self

        self._graphs[size, samples, shares] = lambda: graphs._compute(size, samples, shares)
        return self._graphs[size, samples, shares]

    def sample(self, *arguments: Any) -> torch.Tensor | None:
        sampled = super().sample(*arguments)
        return None if sampled is None else sampled.clone()


@pytest.fixture
def with_graphs(setup_runner: Make, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a runner that decodes through `EagerGraphs`, and counts the steps that went the short way."""
    monkeypatch.setattr(forward_pass, "DecodeGraphs", EagerGraphs)

    def make(**fields: Any) -> Any:
        setup = setup_runner(num_blocks=200, keep_tokens_on_device=True, graph_sizes=tuple(range(1, 9)), **fields)
        path = setup.runner._decode_path
        launch = path.launch
        setup.steps = []

        def counted(output: SchedulerOutput, num_shared_blocks: int) -> Any:
            step = launch(output, num_shared_blocks)
            setup.steps.append(step is not None)
            return step

        monkeypatch.setattr(path, "launch", counted)
        return setup

    return make


def run_all(driver: Any, make_request: Make, params: list[dict[str, Any]], depth: int) -> list[Any]:
    """Every request to its end, `depth` steps in flight; they end one after another."""
    running = [make_request(list(range(i, i + 3 + i)), f"r{i}", **fields) for i, fields in enumerate(params)]
    while any(len(request.output) < 9 + i for i, request in enumerate(running)):
        wanted = [(r, r.num_tokens - r.computed) for i, r in enumerate(running) if len(r.output) + r.launched < 9 + i]
        if wanted:
            driver.launch(wanted)
        if len(driver.in_flight) >= depth or not wanted:
            driver.collect()
    return running


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("windows", [(None,), (None, 6)])
@pytest.mark.parametrize("params", [PLAIN, DEMANDING, PLAIN[:2] + DEMANDING], ids=["plain", "demanding", "mixed"])
def test_tokens_are_those_of_the_long_way(
    setup_runner: Make,
    with_graphs: Make,
    make_request: Make,
    params: list[dict[str, Any]],
    windows: tuple[int | None, ...],
    depth: int,
) -> None:
    expected = run_all(setup_runner(num_blocks=200, windows=windows).driver, make_request, params, 1)
    setup = with_graphs(windows=windows)
    found = run_all(setup.driver, make_request, params, depth)
    for request, wanted in zip(found, expected, strict=True):
        assert request.output == wanted.output
        assert [entry.token_ids for entry in request.logprobs] == [entry.token_ids for entry in wanted.logprobs]
    assert any(setup.steps) == (params is PLAIN)
    if params is PLAIN:
        assert not setup.steps[0]  # the prompts
        assert all(setup.steps[1:])


@pytest.mark.parametrize("depth", [1, 2])
def test_rows_that_pool_take_the_graphs_up_to_the_hidden_states(
    setup_runner: Make, with_graphs: Make, make_request: Make, depth: int
) -> None:
    """A token at a time, alone and beside rows that decode, whose tokens stay what they are."""
    prompt = list(range(7, 13))
    [expected] = run_all(setup_runner(num_blocks=200).driver, make_request, [{}], 1)
    setup = with_graphs()
    driver, text = setup.driver, make_request(expected.prompt, "r0")
    driver.step((text, 3))
    beside, alone = (make_request(prompt, mode, pooling=mode) for mode in ("mean", "last"))
    vectors: dict[int, Any] = {}
    for wanted in [*[[(text, 1), (beside, 1)]] * 6, *[[(alone, 1)]] * 6, *[[(text, 1)]] * 2]:
        driver.launch(wanted)
        if len(driver.in_flight) == depth:
            vectors |= driver.collect().vectors
    while driver.in_flight:
        vectors |= driver.collect().vectors
    assert setup.steps == [False] * 13 + [True] * 2
    assert text.output == expected.output
    digests = [0]
    for token in prompt:
        digests.append((digests[-1] * 31 + token + 1) % 1_000_003)
    assert vectors[beside.row][0] == pytest.approx(sum(digests) / 6, rel=1e-6)
    assert vectors[alone.row][0] == digests[-1]
    assert setup.runner._forward.graphs._graphs, "hidden states come of the graphs"


def test_a_row_of_nan_is_an_error_of_its_request_alone(with_graphs: Make, make_request: Make) -> None:
    setup = with_graphs()
    requests = [make_request([1, 2], "a"), make_request([3, 4], "b")]
    setup.driver.step(*((request, 2) for request in requests))
    compute = setup.model.compute_logits

    def broken(hidden_states: torch.Tensor) -> torch.Tensor:
        logits = compute(hidden_states)
        logits[1] = float("nan")
        return logits

    setup.runner._forward.graphs._compute_logits = broken
    sampled = setup.driver.step(*((request, 1) for request in requests))
    assert setup.steps[-1]
    assert [int(row) for row in sampled.errors] == [int(sampled.rows[1])]
    assert "NaN" in next(iter(sampled.errors.values()))


def test_sizes_are_few_and_end_with_the_largest_batch() -> None:
    assert graph_sizes(1) == (1,)
    assert graph_sizes(3) == (1, 2, 3)
    assert graph_sizes(16) == (1, 2, 4, 8, 16)
    assert graph_sizes(100)[-3:] == (80, 96, 100)
    sizes = graph_sizes(256)
    assert (len(sizes), sizes[-1]) == (19, 256)
    assert graph_sizes(100_000)[-1] == 512
    assert all(b <= max(a + 8, 1.34 * a) for a, b in itertools.pairwise(sizes))


def state_of(rows: int = 4) -> BatchState:
    state = BatchState(max_num_seqs=rows, max_model_len=40, block_size=4)
    state.set_groups((None, 8))
    state.token_ids[:] = np.arange(rows * 40).reshape(rows, 40)
    state.block_tables[:] = 100 + np.arange(2 * rows * 10).reshape(2, rows, 10)
    return state


def test_padding_rows_see_the_null_block_alone_and_record_nothing() -> None:
    state = state_of()
    state.num_computed[:] = [9, 0, 4, 17]
    state.num_tokens[:] = [10, 1, 5, 18]
    state.num_unknown[3] = 1
    given = DecodeInput(state, max_size=6, windows=(None, 8), device=CPU)
    last_token_ids = torch.tensor([11, 12, 13, 14])
    given.fill(np.array([0, 1, 2, 3]), 4)
    given.prepare(last_token_ids, 4)
    rows = np.array([3, 0])
    given.fill(rows, 5, np.array([0.5, 0.0], dtype=np.float32), np.array([77, 78]))
    given.prepare(last_token_ids, 5)
    input_ids, positions = given.tokens(5)
    assert input_ids.tolist() == [14, 9, 0, 0, 0]  # row 3's is known to the device alone
    assert positions.tolist() == [17, 9, 0, 0, 0]
    temperature, keys, of_rows = given.choice(5)
    assert (temperature.tolist(), keys.tolist()) == ([0.5, 0.0, 0.0, 0.0, 0.0], [77, 78, 0, 0, 0])
    assert of_rows.tolist() == [3, 0, -1, -1, -1]
    for index, (group, window) in enumerate(zip(given.groups(5), (None, 8), strict=True)):
        tables = state.block_tables[index]
        assert group.sliding_window == window
        assert group.seq_lens.tolist() == [18, 10, 1, 1, 1]
        assert group.block_table[:2, :3].tolist() == tables[[3, 0], :3].tolist()
        assert group.block_table[2:, 0].tolist() == [0, 0, 0]
        assert group.slot_mapping.tolist() == [int(tables[3, 4]) * 4 + 1, int(tables[0, 2]) * 4 + 1, 0, 0, 0]
        assert group.query_start_loc.tolist() == [0, 1, 2, 3, 4, 5]
        assert (group.num_tokens, group.num_decodes, group.max_query_len, group.max_seq_len) == (5, 5, 1, 40)


def test_one_row_and_none_at_all() -> None:
    state = state_of(1)
    state.num_computed[0], state.num_tokens[0] = 3, 4
    given = DecodeInput(state, max_size=1, windows=(None, 8), device=CPU)
    last_token_ids = torch.tensor([5])
    given.fill(np.array([0]), 1)
    given.prepare(last_token_ids, 1)
    assert [given.tokens(1)[0].tolist(), given.groups(1)[0].seq_lens.tolist()] == [[3], [4]]
    given.fill(np.empty(0, dtype=np.int64), 1)
    given.prepare(last_token_ids, 1)
    assert [given.tokens(1)[0].tolist(), given.groups(1)[0].seq_lens.tolist()] == [[0], [1]]
    assert given.choice(1)[2].tolist() == [-1]


def test_host_buffers_take_turns() -> None:
    state = state_of()
    given = DecodeInput(state, max_size=4, windows=(None, 8), device=CPU)
    used = set()
    for _ in range(3):
        given.fill(np.array([0]), 1)
        used.add(given._turn)
    assert len(used) == 3


def test_greedy_and_random_rows_are_chosen_together_and_recorded() -> None:
    logits = torch.randn(4, 300)
    temperature = torch.tensor([0.0, 0.7, 1.5, 0.0])
    keys = torch.from_numpy(position_keys(np.array([3, 4, 5, 6], dtype=np.uint64), np.array([1, 2, 3, 4])))
    last_token_ids = torch.full((6,), -7)
    token_ids, scores = torch.empty(4, dtype=torch.int64), torch.empty(4)
    rows = torch.tensor([5, 0, 2, -1])
    choose_and_record(logits, temperature, keys, rows, last_token_ids, token_ids, scores)
    drawn, _ = race(logits, torch.arange(4), temperature.clamp(min=0.1), keys, token_offsets(300, CPU))
    likely, largest = greedy(logits)
    assert token_ids.tolist() == [likely[0], drawn[1], drawn[2], likely[3]]
    assert scores[0] == largest[0]
    assert last_token_ids.tolist() == [token_ids[1], -7, token_ids[2], -7, -7, token_ids[0]]


def test_steps_that_are_too_large_go_the_long_way(with_graphs: Make) -> None:
    graphs = with_graphs().runner._forward.graphs
    assert [graphs.takes(8), graphs.takes(9)] == [True, False]
    graphs.close()
    assert not graphs.takes(1)


def test_a_capture_that_fails_leaves_nothing_changed() -> None:
    class Failing(EagerGraphs):
        def _try_capture(self, size: int, samples: bool, shares: bool) -> Any:
            raise RuntimeError("operation not permitted when stream is capturing")

        _capture = DecodeGraphs._capture

    state = state_of()
    given = DecodeInput(state, max_size=4, windows=(None, 8), device=CPU)
    graphs = Failing(lambda *_: torch.empty(0), lambda x: x, given, torch.zeros(4, dtype=torch.int64), (1, 2, 4))
    assert graphs.takes(2)
    assert graphs.run(np.array([0, 1])) is None
    assert not graphs.takes(2)
    assert state.num_computed.tolist() == [0, 0, 0, 0]
