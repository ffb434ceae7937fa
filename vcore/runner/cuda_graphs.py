"""`DecodeGraphs`: steps in which every row computes one token, replayed as CUDA graphs.

A launch costs the host some microseconds, a kernel of a small batch not many more: a replay launches a whole
forward pass at once. A graph has fixed shapes and addresses, so there is one for each of about twenty sizes; a step
runs in the next larger one, padded (`DecodeInput`). Each is captured when a step first needs it.

It knows nothing of models or backends: it captures a function, which must read lengths on the device alone.
"""

from __future__ import annotations

import gc
import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence

import torch

from vcore.interfaces.attention import AttentionMetadata
from vcore.runner.decode_input import DecodeInput
from vcore.runner.input_builder import ForwardBatch

__all__ = ["DecodeGraphs", "Forward", "graph_sizes"]

logger = logging.getLogger(__name__)

Forward = Callable[[torch.Tensor, torch.Tensor, Sequence[AttentionMetadata]], torch.Tensor]
"""From int64 [num_tokens] input ids and positions and the step of each group of layers to hidden states."""

_LARGEST = 512
"""Larger batches keep the device busy for longer than the host takes to launch their kernels."""


def graph_sizes(max_num_seqs: int) -> tuple[int, ...]:
    """The sizes to capture for: few enough to be cheap, close enough that padding is, the last `max_num_seqs`."""
    sizes = [1, 2, 4, 8, *range(16, 64, 8), *range(64, 128, 16), *range(128, 256, 32), *range(256, _LARGEST + 1, 64)]
    largest = min(max_num_seqs, _LARGEST)
    return (*(size for size in sizes if size < largest), largest)


class DecodeGraphs:
    """Captures and replays. All on one device's current stream."""

    def __init__(self, forward: Forward, decode_input: DecodeInput, sizes: Sequence[int]) -> None:
        """Capture nothing yet.

        Args:
            forward: what to capture. It is called with tensors of `decode_input` alone.
            decode_input: as many rows as the largest size.
            sizes: ascending.
        """
        self._forward = forward
        self._input = decode_input
        self._sizes = list(sizes)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own
        self._hidden_states: torch.Tensor | None = None
        """[largest size, hidden_size]: where every graph leaves its result, which the next replay overwrites."""

    def run(self, batch: ForwardBatch) -> torch.Tensor | None:
        """Replay the graph for `batch`, captured now if need be.

        Returns:
            Hidden states, [num_tokens, hidden_size], valid until the next call; None if there is no graph for it.
        """
        num_rows = batch.rows.size
        if batch.metadata.num_tokens != num_rows or not self._sizes or num_rows > self._sizes[-1]:
            return None
        size = self._sizes[bisect_left(self._sizes, num_rows)]
        graph = self._graphs.get(size) or self._capture(size)
        if graph is None or self._hidden_states is None:
            return None
        self._input.fill(batch, size)
        graph.replay()
        return self._hidden_states[:num_rows]

    def measure(self) -> int:
        """About how many bytes the graphs of all sizes take, found by capturing the largest and the smallest."""
        if not self._sizes:
            return 0
        taken = [_taken_by(self._capture, size) for size in (self._sizes[-1], self._sizes[0])]
        return taken[0] + taken[1] * (len(self._sizes) - 1)

    def close(self) -> None:
        """Free the graphs; nothing is replayed any more."""
        self._sizes.clear()
        self._graphs.clear()
        self._hidden_states = None

    def _capture(self, size: int) -> torch.cuda.CUDAGraph | None:
        """The graph for `size` rows; None, once and for all, if the model cannot be captured."""
        try:
            graph = self._try_capture(size)
        except RuntimeError as error:  # what CUDA refuses in a capture, such as waiting for the device, and no memory
            logger.warning("decoding goes on without CUDA graphs, more slowly: capturing one failed: %s", error)
            self.close()
            return None
        self._graphs[size] = graph
        logger.debug("captured the CUDA graph of %d rows", size)
        return graph

    def _try_capture(self, size: int) -> torch.cuda.CUDAGraph:
        self._input.clear(size)
        arguments = (self._input.input_ids[:size], self._input.positions[:size], self._input.groups(size))
        # Once outside: kernels are compiled and libraries set up, which no capture allows.
        hidden_states = self._forward(*arguments)
        if self._hidden_states is None:
            self._hidden_states = hidden_states.new_empty((self._sizes[-1], *hidden_states.shape[1:]))
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        # A collection could free what belongs to another graph, which no capture allows either.
        collecting = gc.isenabled()
        gc.disable()
        try:
            with torch.cuda.stream(self._stream):
                # Other threads go on as they were: they may allocate pinned memory.
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    self._hidden_states[:size].copy_(self._forward(*arguments))
                finally:
                    graph.capture_end()
        finally:
            if collecting:
                gc.enable()
        current.wait_stream(self._stream)
        return graph


def _taken_by(capture: Callable[[int], object], size: int) -> int:
    """By how many bytes the device's free memory shrinks."""
    torch.cuda.synchronize()
    before = torch.cuda.mem_get_info()[0]
    capture(size)
    torch.cuda.synchronize()
    return max(0, before - torch.cuda.mem_get_info()[0])
