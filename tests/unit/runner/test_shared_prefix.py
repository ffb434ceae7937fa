"""What attention is told of the blocks that decode rows share: in steps of tensors, and in those that are replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from vcore.interfaces.attention import AttentionBackend, AttentionMetadata
from vcore.interfaces.step import SchedulerOutput
from vcore.runner import forward_pass
from vcore.runner.batch_state import BatchState
from vcore.runner.cuda_graphs import DecodeGraphs
from vcore.runner.decode_input import DecodeInput

Make = Callable[..., Any]
CPU = torch.device("cpu")


class SharingBackend(AttentionBackend):
    """Wants to know from two shared blocks on, and keeps what it is told in each step: the count a group, or None."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.told: list[list[int | None]] = [[]]

    def build_layer(self, spec: object) -> Any:
        raise NotImplementedError

    def plan(self, metadata: AttentionMetadata) -> object:
        shared = metadata.num_shared_blocks
        assert shared is None or (shared.shape == (1,) and shared.dtype == torch.int32)
        self.told[-1].append(None if shared is None else int(shared))
        return metadata

    def uses_shared_prefix(self, num_decodes: int, num_shared_blocks: int) -> bool:
        self.asked.append((num_decodes, num_shared_blocks))
        return num_shared_blocks >= 2


class EagerGraphs(DecodeGraphs):
    """Computes at once what a CUDA graph would replay."""

    def _capture(self, size: int, samples: bool = True, shares: bool = False) -> Any:
        graphs = self

        return self._graphs.setdefault((size, samples, shares), lambda: graphs._compute(size, samples, shares))


def launch_with(setup: Any, count: int, requests: list[Any]) -> SchedulerOutput:
    """A step of one token of each request, said to share `count` blocks."""
    launch, outputs = setup.runner.launch, []

    def told(output: SchedulerOutput) -> Any:
        output.num_shared_blocks = count
        outputs.append(output)
        return launch(output)

    setup.runner.launch = told
    setup.driver.step(*((request, request.num_tokens - request.computed) for request in requests))
    setup.runner.launch = launch
    return outputs[0]


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("params", [{}, {"logprobs": 1}], ids=["plain", "logprobs"])
def test_attention_is_told_what_it_asks_for(
    setup_runner: Make, make_request: Make, monkeypatch: pytest.MonkeyPatch, graphs: bool, params: dict[str, Any]
) -> None:
    monkeypatch.setattr(forward_pass, "DecodeGraphs", EagerGraphs)
    sizes = (1, 2, 3) if graphs else ()
    setup = setup_runner(windows=(None, 6), num_blocks=200, keep_tokens_on_device=graphs, graph_sizes=sizes)
    backend = setup.runner._forward.attention = SharingBackend()
    requests = [make_request(list(range(9)), f"r{index}", **params) for index in range(3)]
    launch_with(setup, 0, requests)
    for count, expected in ((2, 2), (1, None), (0, None), (3, 3)):
        backend.told.append([])
        output = launch_with(setup, count, requests)
        assert output.num_shared_blocks == count, "what the scheduler said stays"
        assert backend.told[-1] == [expected, None], "none where there is a window"
    assert set(backend.asked) == {(3, 2), (3, 1), (3, 3)}
    if graphs:
        assert {(size, shares) for size, _, shares in setup.runner._forward.graphs._graphs} == {(3, False), (3, True)}


def test_decode_rows_of_a_mixed_step_share_too(setup_runner: Make, make_request: Make) -> None:
    setup = setup_runner(num_blocks=200)
    backend = setup.runner._forward.attention = SharingBackend()
    requests = [make_request(list(range(9)), f"r{index}") for index in range(2)]
    launch_with(setup, 0, requests)
    backend.told.append([])
    launch_with(setup, 2, [*requests, make_request([1, 2, 3], "prompt")])
    assert (backend.told[-1], backend.asked) == ([2], [(2, 2)])


def test_other_backends_are_told_nothing(setup_runner: Make, make_request: Make) -> None:
    setup = setup_runner(num_blocks=200)
    told = []
    monitored = setup.runner._forward.attention.plan
    setup.runner._forward.attention.plan = lambda metadata: (
        told.append(metadata.num_shared_blocks) or monitored(metadata)
    )
    requests = [make_request(list(range(9)), f"r{index}") for index in range(2)]
    for _ in range(2):
        launch_with(setup, 5, requests)
    assert told == [None, None]


def test_the_count_stands_where_a_graph_reads_it() -> None:
    state = BatchState(max_num_seqs=4, max_model_len=40, block_size=4)
    state.set_groups((None, 8))
    given = DecodeInput(state, max_size=4, windows=(None, 8), device=CPU)
    shared, windowed = (group.num_shared_blocks for group in given.groups(4, shares=True))
    assert windowed is None
    assert shared is not None
    for rows, count in (([0, 1, 2], 7), ([1], 0), ([2, 3], 1)):
        given.fill(np.array(rows), 4, num_shared_blocks=count)
        given.prepare(torch.zeros(4, dtype=torch.int64), 4)
        assert shared.tolist() == [count]
    assert [group.num_shared_blocks for group in given.groups(4)] == [None, None]
