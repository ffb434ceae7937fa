"""`Segments`: steps of prompts beside decode rows, replayed in pieces between which attention is computed anew.

Such a step has no fixed shapes for a CUDA graph of all of it: attention's depend on every request's lengths. All else
depends on the number of tokens alone, and where tokens are few the host takes longer to launch it, kernel by kernel,
than the device to compute it. So for some numbers of tokens the model is recorded once, split at the calls of
attention; a step runs in the next larger one, padded:

    step                 ids, positions, slots into static tensors; what pads them is token 0 of the null block
    piece 0              embedding, norm, projections, rotation, cache write
    attention, layer 0   launched by the host with the step's plan, on the first rows of q, k, v and its result alone
    piece 1              output projection, feed-forward, the next layer's norm and projections, ...
    ...
    piece n              the rest, up to the hidden states

Models know nothing of it: see `AttentionContext.run`. The first step of a size is computed padded, kernel by kernel,
which tells the shapes of attention's results; then the model is called once more, to be recorded.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from vcore.interfaces.attention import AttentionContext, GroupContext
from vcore.runner.memory import memory_taken_by
from vcore.runner.recorder import Recorder
from vcore.runner.segment_recording import FirstStep, PaddedGroup, RecordedStep, SegmentRecording

__all__ = ["SegmentedModel", "Segments", "Step"]

logger = logging.getLogger(__name__)

SegmentedModel = Callable[[torch.Tensor, torch.Tensor, AttentionContext], torch.Tensor]
"""From int64 [num_tokens] input ids and positions and the attention of the step to hidden states."""


@dataclass(slots=True)
class Step:
    """What a step brings."""

    input_ids: torch.Tensor
    """int64 [num_tokens]."""
    positions: torch.Tensor
    """int64 [num_tokens]."""
    groups: Sequence[GroupContext]
    """By group of layers."""
    attn: AttentionContext
    """The same by layer, and the caches."""


class Segments:
    """Records when a size is first needed, or all ahead, and replays. All on one device's current stream."""

    def __init__(
        self,
        model: SegmentedModel,
        recorder: Recorder,
        sizes: Sequence[int],
        group_of_layer: Sequence[int],
        *,
        num_groups: int,
        device: torch.device,
    ) -> None:
        """Record nothing yet.

        Args:
            model: called with tensors that stay where they are.
            recorder: how pieces are recorded.
            sizes: numbers of tokens, ascending.
            group_of_layer: of each layer, its group's index.
            num_groups: of layers, each with slots of its own.
            device: where all is computed.
        """
        self._model = model
        self._recorder = recorder
        self._sizes = list(sizes)
        self._group_of_layer = tuple(group_of_layer)
        self._input = torch.zeros((2 + num_groups, self._sizes[-1]), dtype=torch.int64, device=device)
        """Input ids, positions, and slots by group."""
        self._recordings: dict[int, SegmentRecording] = {}

    def takes(self, num_tokens: int) -> bool:
        """Whether steps of that many tokens are recorded."""
        return bool(self._sizes) and num_tokens <= self._sizes[-1]

    def run(self, step: Step) -> torch.Tensor | None:
        """Launch a step of no more tokens than `takes` takes.

        Returns:
            Hidden states, [num_tokens, hidden_size], valid until the next call; None if the model cannot be recorded.
        """
        num_tokens = step.input_ids.shape[0]
        index = bisect_left(self._sizes, num_tokens)
        size = self._sizes[index]
        self._fill(step, size)
        recording = self._recordings.get(size)
        if recording is not None:
            return recording.replay(step.attn, num_tokens)
        # A step of this size has more tokens than the size below: no others are padding.
        return self._record(step, size, self._sizes[index - 1] if index else 0)

    def record_all(self, make_step: Callable[[int], Step]) -> int:
        """Record what later steps may need, the largest sizes first: smaller ones find their memory in the pool.

        Args:
            make_step: makes a step of a number of tokens, which may change nothing but the null block.

        Returns:
            How many sizes are recorded.
        """
        for size in reversed(tuple(self._sizes)):
            if self.takes(size) and size not in self._recordings:
                self.run(make_step(size))
        return len(self._recordings)

    def measure(self, make_step: Callable[[int], Step]) -> int:
        """About how many bytes the recordings of all sizes take, found by making the largest and the smallest.

        `make_step` as for `record_all`.
        """
        if not self._sizes:
            return 0
        taken = []
        for size in (self._sizes[-1], self._sizes[0]):
            step = make_step(size)
            taken.append(memory_taken_by(partial(self.run, step)))
        return taken[0] + taken[1] * max(0, len(self._sizes) - 1)

    def close(self) -> None:
        """Free the recordings; nothing is replayed any more."""
        self._sizes.clear()
        self._recordings.clear()

    def _fill(self, step: Step, size: int) -> None:
        num_tokens = step.input_ids.shape[0]
        self._input[0, :num_tokens].copy_(step.input_ids)
        self._input[1, :num_tokens].copy_(step.positions)
        for row, group in enumerate(step.groups, 2):
            self._input[row, :num_tokens].copy_(group.slot_mapping)
        if num_tokens < size:
            self._input[:, num_tokens:size].zero_()

    def _record(self, step: Step, size: int, first_padding: int) -> torch.Tensor | None:
        num_tokens = step.input_ids.shape[0]
        hidden_states = None
        try:
            first = FirstStep(self._groups(size), self._group_of_layer, step.attn, num_tokens)
            hidden_states = self._compute(size, first)[:num_tokens]
            self._input.zero_()  # a recorder may compute what it records: then for the null block
            self._recordings[size] = self._try_record(step.attn, size, first_padding, first.results)
        except RuntimeError as error:  # what cannot be recorded, such as waiting for the device, and no memory
            logger.warning("mixed batches are launched kernel by kernel, more slowly: recording one failed: %s", error)
            self.close()
        else:
            logger.debug("recorded the segments of %d tokens", size)
        return hidden_states

    def _try_record(
        self, attn: AttentionContext, size: int, first_padding: int, results: Sequence[torch.Tensor]
    ) -> SegmentRecording:
        recorder = self._recorder
        with recorder.session():
            recorder.begin()
            recorded = RecordedStep(self._groups(size), self._group_of_layer, attn, recorder, results, first_padding)
            hidden_states = self._compute(size, recorded)
            last = recorder.end()
            return SegmentRecording(recorded.pieces, recorded.calls, last, recorder.alias(hidden_states))

    def _compute(self, size: int, attn: AttentionContext) -> torch.Tensor:
        return self._model(self._input[0, :size], self._input[1, :size], attn)

    def _groups(self, size: int) -> list[GroupContext]:
        return [PaddedGroup(slots[:size]) for slots in self._input[2:]]
