"""What a model is given instead of a step's attention, so that it is recorded in pieces, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from vcore.interfaces.attention import Attend, AttentionContext, AttentionMetadata, GroupContext
from vcore.runner.recorder import Recorder, Replay

__all__ = ["AttentionCall", "FirstStep", "PaddedGroup", "RecordedStep", "SegmentRecording"]


@dataclass(slots=True)
class AttentionCall:
    """A call of attention: the recorded tensors around it."""

    attend: Attend
    inputs: tuple[torch.Tensor, ...]
    out: torch.Tensor


@dataclass(slots=True)
class SegmentRecording:
    """The pieces of one size."""

    pieces: list[Replay]
    """One before each of `calls`."""
    calls: list[AttentionCall]
    last: Replay
    hidden_states: torch.Tensor

    def replay(self, attn: AttentionContext, num_tokens: int) -> torch.Tensor:
        """Launch the step that the static tensors hold."""
        for piece, call in zip(self.pieces, self.calls, strict=True):
            piece()
            out = call.out[:num_tokens]
            result = call.attend(attn, out, *[tensor[:num_tokens] for tensor in call.inputs])
            if result.data_ptr() != out.data_ptr():
                out.copy_(result)
        self.last()
        return self.hidden_states[:num_tokens]


class PaddedGroup(GroupContext):
    """A group as far as it is the same in each step of a size: its slots are where they are."""

    __slots__ = ()

    def __init__(self, slot_mapping: torch.Tensor) -> None:
        self.slot_mapping = slot_mapping
        self._shared = {}

    @property
    def plan(self) -> object:  # type: ignore[override]
        raise _out_of_reach("plan")

    @property
    def metadata(self) -> AttentionMetadata:  # type: ignore[override]
        raise _out_of_reach("metadata")


def _out_of_reach(name: str) -> RuntimeError:
    return RuntimeError(
        f"a layer reads the step's {name}, which is another in each step: what needs it belongs into what the layer "
        f"hands to AttentionContext.run"
    )


class _PaddedStep(AttentionContext):
    """What a model gets instead of the step's own context, `attn`, which what is handed to `run` gets."""

    __slots__ = ("_attn",)

    def __init__(self, groups: Sequence[GroupContext], group_of_layer: Sequence[int], attn: AttentionContext) -> None:
        super().__init__([groups[index] for index in group_of_layer], attn.layer_caches)
        self._attn = attn


class FirstStep(_PaddedStep):
    """Computes a step of `num_tokens`, padded, and keeps what a row of each result of attention looks like."""

    __slots__ = ("_num_tokens", "results")

    def __init__(
        self,
        groups: Sequence[GroupContext],
        group_of_layer: Sequence[int],
        attn: AttentionContext,
        num_tokens: int,
    ) -> None:
        super().__init__(groups, group_of_layer, attn)
        self._num_tokens = num_tokens
        self.results: list[torch.Tensor] = []
        """Of each call, a result of no rows."""

    def run(self, attend: Attend, *inputs: torch.Tensor) -> torch.Tensor:
        num_tokens, size = self._num_tokens, inputs[0].shape[0]
        result = attend(self._attn, None, *[tensor[:num_tokens] for tensor in inputs])
        self.results.append(result.new_empty((0, *result.shape[1:])))
        if num_tokens == size:
            return result
        padded = result.new_zeros((size, *result.shape[1:]))
        padded[:num_tokens] = result
        return padded


class RecordedStep(_PaddedStep):
    """Ends a piece at each call of attention, which is not computed, and begins the next."""

    __slots__ = ("_first_padding", "_recorder", "_results", "calls", "pieces")

    def __init__(
        self,
        groups: Sequence[GroupContext],
        group_of_layer: Sequence[int],
        attn: AttentionContext,
        recorder: Recorder,
        results: Sequence[torch.Tensor],
        first_padding: int,
    ) -> None:
        super().__init__(groups, group_of_layer, attn)
        self._recorder = recorder
        self._results: Iterator[torch.Tensor] = iter(results)
        self._first_padding = first_padding
        self.pieces: list[Replay] = []
        self.calls: list[AttentionCall] = []

    def run(self, attend: Attend, *inputs: torch.Tensor) -> torch.Tensor:
        like, recorder = next(self._results), self._recorder
        out = like.new_empty((inputs[0].shape[0], *like.shape[1:]))
        # No attention writes the rows of padding, and memory may hold NaN, by which no experts should be chosen.
        out[self._first_padding :].zero_()
        self.pieces.append(recorder.end())
        self.calls.append(
            AttentionCall(attend, tuple(recorder.alias(tensor) for tensor in inputs), recorder.alias(out))
        )
        recorder.begin()
        return out
