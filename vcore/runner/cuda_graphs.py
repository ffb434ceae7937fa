"""`DecodeGraphs`: steps in which every row computes one token, replayed as CUDA graphs.

A launch costs the host some microseconds, a kernel of a small batch not many more: a replay launches a whole step at
once. A graph has fixed shapes and addresses, so there is one for each of about twenty sizes; a step runs in the next
larger one, padded (`DecodeInput`). Each is captured when a step first needs it, or all of them ahead of any step.

    prepare            tokens and block tables, from what the host sent
    forward            hidden states
    sampling graphs    logits, a token a row, kept where the next step's `prepare` finds it
    other graphs       hidden states, for whoever samples in a way of his own

It knows nothing of models or backends: it captures functions, which must read lengths on the device alone.
"""

from __future__ import annotations

import itertools
import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from vcore.interfaces.attention import AttentionMetadata
from vcore.runner.choice import choose_and_record
from vcore.runner.decode_input import DecodeInput
from vcore.runner.memory import memory_taken_by
from vcore.runner.recorder import GraphRecorder, Recorder, Replay

__all__ = ["ComputeLogits", "DecodeGraphs", "Forward", "graph_sizes"]

logger = logging.getLogger(__name__)

Forward = Callable[[torch.Tensor, torch.Tensor, Sequence[AttentionMetadata]], torch.Tensor]
"""From int64 [num_tokens] input ids and positions and the step of each group of layers to hidden states."""
ComputeLogits = Callable[[torch.Tensor], torch.Tensor]
"""From hidden states to logits, [num_rows, vocab_size]."""

_LARGEST = 512
"""Larger batches keep the device busy for longer than the host takes to launch their kernels."""
_NO_ROWS: NDArray[np.int64] = np.empty(0, dtype=np.int64)


def graph_sizes(max_num_seqs: int) -> tuple[int, ...]:
    """The sizes to capture for: few enough to be cheap, close enough that padding is, the last `max_num_seqs`."""
    sizes = [1, 2, 4, 8, *range(16, 64, 8), *range(64, 128, 16), *range(128, 256, 32), *range(256, _LARGEST + 1, 64)]
    largest = min(max_num_seqs, _LARGEST)
    return (*(size for size in sizes if size < largest), largest)


class DecodeGraphs:
    """Captures and replays. All on one device's current stream."""

    def __init__(
        self,
        forward: Forward,
        compute_logits: ComputeLogits,
        decode_input: DecodeInput,
        last_token_ids: torch.Tensor,
        sizes: Sequence[int],
        *,
        recorder: Recorder | None = None,
    ) -> None:
        """Capture nothing yet.

        Args:
            forward: the model. It is called with tensors of `decode_input` alone.
            compute_logits: its LM head.
            decode_input: as many rows as the largest size.
            last_token_ids: int64 [max_num_seqs] on the device: what each row sampled last, read and written.
            sizes: ascending.
            recorder: captures; None means one of its own.
        """
        self._forward = forward
        self._compute_logits = compute_logits
        self._input = decode_input
        self._last_token_ids = last_token_ids
        self._sizes = list(sizes)
        self._recorder = recorder or GraphRecorder()
        self._graphs: dict[tuple[int, bool, bool], Replay] = {}
        """By size, whether it samples, and whether attention is told of shared blocks."""
        self._sampled = torch.zeros((2, sizes[-1]), dtype=torch.int64, device=last_token_ids.device)
        """Token ids, then scores as float32. Every replay leaves its result here, and the next overwrites it."""
        self._hidden_states: torch.Tensor | None = None
        """[largest size, hidden_size]: the same of graphs that do not sample."""

    def takes(self, num_rows: int) -> bool:
        """Whether there is a graph for steps of that many rows."""
        return bool(self._sizes) and num_rows <= self._sizes[-1]

    def sample(
        self,
        rows: NDArray[np.int64],
        temperature: NDArray[np.float32] | None,
        keys: NDArray[np.int64] | None,
        num_shared_blocks: int = 0,
    ) -> torch.Tensor | None:
        """Launch a step that samples a token for each of `rows`; arguments as those of `DecodeInput.fill`.

        Returns:
            int64 [2, largest size] on the device, valid until the next call: token ids, and below them the
            scores, float32 one after another; None if it could not be captured.
        """
        return self._sampled if self._replay(rows, True, temperature, keys, num_shared_blocks) else None

    def run(self, rows: NDArray[np.int64], num_shared_blocks: int = 0) -> torch.Tensor | None:
        """Launch a step of `rows` up to the hidden states; arguments as those of `DecodeInput.fill`.

        Returns:
            [num_rows, hidden_size], valid until the next call; None if it could not be captured.
        """
        if not self._replay(rows, False, num_shared_blocks=num_shared_blocks) or self._hidden_states is None:
            return None
        return self._hidden_states[: rows.size]

    def capture_all(self, *, shares: bool = False) -> int:
        """Capture what later steps may need, the largest sizes first: smaller ones find their memory in the pool.

        Both graphs that sample and the others; `shares` says whether there will be some for steps with shared blocks.

        Returns:
            How many graphs there are.
        """
        for size in reversed(tuple(self._sizes)):
            for samples, sharing in _kinds(shares):
                if (size, samples, sharing) not in self._graphs:
                    self._capture(size, samples, sharing)
        return len(self._graphs)

    def rehearse(self) -> None:
        """Launch once the kernels of all graphs, but for attention of shared blocks; nothing is captured."""
        for size in self._sizes:
            self._input.fill(_NO_ROWS, size)
            self._compute(size, samples=True, shares=False)

    def measure(self, *, shares: bool = False) -> int:
        """About how many bytes the graphs of `capture_all` take, found by capturing the largest and the smallest."""
        num_bytes = 0
        for samples, sharing in _kinds(shares):
            if self._sizes:
                ends = (self._sizes[-1], self._sizes[0])
                taken = [memory_taken_by(partial(self._capture, size, samples, sharing)) for size in ends]
                num_bytes += taken[0] + taken[1] * max(0, len(self._sizes) - 1)
        return num_bytes

    def close(self) -> None:
        """Free the graphs; nothing is replayed any more."""
        self._sizes.clear()
        self._graphs.clear()
        self._hidden_states = None

    def _replay(
        self,
        rows: NDArray[np.int64],
        samples: bool,
        temperature: NDArray[np.float32] | None = None,
        keys: NDArray[np.int64] | None = None,
        num_shared_blocks: int = 0,
    ) -> bool:
        size = self._sizes[bisect_left(self._sizes, rows.size)]
        shares = num_shared_blocks > 0
        replay = self._graphs.get((size, samples, shares)) or self._capture(size, samples, shares)
        if replay is None:
            return False
        self._input.fill(rows, size, temperature, keys, num_shared_blocks)
        replay()
        return True

    def _capture(self, size: int, samples: bool = True, shares: bool = False) -> Replay | None:
        """The graph for `size` rows; None, once and for all, if the model cannot be captured."""
        if not self._sizes:
            return None
        try:
            replay = self._try_capture(size, samples, shares)
        except RuntimeError as error:  # what CUDA refuses in a capture, such as waiting for the device, and no memory
            logger.warning("decoding goes on without CUDA graphs, more slowly: capturing one failed: %s", error)
            self.close()
            return None
        self._graphs[size, samples, shares] = replay
        logger.debug("captured the CUDA graph of %d rows", size)
        return replay

    def _try_capture(self, size: int, samples: bool, shares: bool) -> Replay:
        self._input.fill(_NO_ROWS, size)
        # Once outside: kernels are compiled and libraries set up, which no capture allows.
        self._compute(size, samples, shares)
        with self._recorder.session():
            self._recorder.begin()
            self._compute(size, samples, shares)
            return self._recorder.end()

    def _compute(self, size: int, samples: bool, shares: bool) -> None:
        """What a graph does."""
        self._input.prepare(self._last_token_ids, size)
        hidden_states = self._forward(*self._input.tokens(size), self._input.groups(size, shares=shares))
        if samples:
            token_ids, scores = self._sampled[0, :size], self._sampled[1].view(torch.float32)[:size]
            temperature, keys, rows = self._input.choice(size)
            logits = self._compute_logits(hidden_states)
            choose_and_record(logits, temperature, keys, rows, self._last_token_ids, token_ids, scores)
            return
        if self._hidden_states is None:  # the first time is never within a capture
            self._hidden_states = hidden_states.new_empty((self._sizes[-1], *hidden_states.shape[1:]))
        self._hidden_states[:size].copy_(hidden_states)


def _kinds(shares: bool) -> list[tuple[bool, bool]]:
    """Of the graphs of one size, whether they sample, and whether attention is told of shared blocks."""
    return list(itertools.product((True, False), (False, True) if shares else (False,)))
