"""`LaunchedStep`: a step that was launched, until its tokens are on the host.

On the CPU the tokens are there at once. On an accelerator copies to pinned memory were started behind
the step's work, and `resolve` waits for their event, and for nothing launched later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vcore.interfaces.step import SampledTokens, TokenLogprobs
from vcore.runner.batch_state import BatchState
from vcore.runner.logprobs import LogprobTensors
from vcore.runner.pooling import PooledRows
from vcore.runner.sampler import Sampled
from vcore.runner.sampling_plan import LogprobPlan

__all__ = ["HostCopies", "LaunchedStep", "PromptPart"]


class HostCopies:
    """Copies from the device that one event stands for."""

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]  # torch's own

    def take(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor on the host that will hold `tensor`'s content; on the CPU, `tensor` itself."""
        if tensor.device.type == "cpu":
            return tensor
        # Without an event to wait for, the copy has to be there when this returns.
        has_event = self._event is not None
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=has_event)
        return copy.copy_(tensor, non_blocking=has_event)

    def take_logprobs(self, logprobs: LogprobTensors) -> LogprobTensors:
        """The same for each of the tensors."""
        return LogprobTensors(self.take(logprobs.token_ids), self.take(logprobs.logprobs), self.take(logprobs.ranks))

    def close(self) -> None:
        """All copies were taken."""
        if self._event is not None:
            self._event.record()

    def wait(self) -> None:
        """Until the copies hold what they should."""
        if self._event is not None:
            self._event.synchronize()


@dataclass(slots=True)
class PromptPart:
    """Entries of prompt logprobs of one row."""

    row: int
    num_top: int
    parts: list[LogprobTensors]


@dataclass(slots=True, kw_only=True)
class LaunchedStep:
    """The handle of one step. `resolve` may be called any number of times, `collect` once."""

    step_id: int
    state: BatchState
    rows: NDArray[np.int64]
    """int64 [num_sampled]."""
    sampled: Sampled
    """On the host, once `copies` are there."""
    copies: HostCopies
    logprob_plan: LogprobPlan | None = None
    prompt_parts: list[PromptPart] = field(default_factory=list)
    pooled: PooledRows | None = None
    """On the host, once `copies` are there."""
    deferred: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
    """Epochs and positions of tokens that the batch state does not know; None if it was told at the launch."""

    @property
    def settled(self) -> bool:
        """Whether the batch state will not hear of it any more: it was told, or all of the rows changed hands."""
        return self.deferred is None or not (self.state.epoch[self.rows] == self.deferred[0]).any()

    def resolve(self) -> None:
        """Wait for the step's tokens, and tell the batch state if it does not know them yet."""
        if self.deferred is None:
            return
        self.copies.wait()
        epochs, positions = self.deferred
        self.deferred = None
        self.state.fill_tokens(self.rows, epochs, positions, self.sampled.token_ids.numpy())

    def collect(self) -> SampledTokens:
        """Wait for the step and return its tokens."""
        self.resolve()
        result = SampledTokens(
            step_id=self.step_id,
            rows=self.rows.astype(np.int32),
            token_ids=self.sampled.token_ids.numpy(),
        )
        self._find_errors(result)
        if self.logprob_plan is not None and self.sampled.logprobs is not None:
            lists = self.sampled.logprobs.to_lists(self.logprob_plan.num_top)
            for row, entry in zip(self.logprob_plan.rows, lists, strict=True):
                if row not in result.errors:
                    result.logprobs[row] = [entry]
        if self.prompt_parts:
            self.copies.wait()
            for part in self.prompt_parts:
                result.prompt_logprobs[part.row] = _prompt_entries(part)
        if self.pooled is not None:
            self.copies.wait()
            result.vectors, wrong = self.pooled.check()
            result.errors.update(wrong)
        return result

    def _find_errors(self, result: SampledTokens) -> None:
        scores = _host_values(self.sampled.scores)
        valid = scores > -np.inf  # false for NaN, too
        if self.sampled.errors or np.count_nonzero(valid) != valid.size:
            for index in np.flatnonzero(~valid).tolist():
                row = int(self.rows[index])
                if np.isnan(scores[index]):
                    result.errors[row] = _NAN
                else:
                    result.errors[row], result.error_params[row] = _NOTHING_LEFT, ""
            for index, message in self.sampled.errors.items():
                result.errors[int(self.rows[index])] = message
                result.error_params.pop(int(self.rows[index]), None)
            for index, param in self.sampled.error_params.items():
                result.error_params[int(self.rows[index])] = param


_NAN = "the model's logits hold NaN; check the weights and the dtype"
_NOTHING_LEFT = (
    "no token can be sampled: allowed_token_ids, bad_words, min_tokens, logit_bias, the form of the text and logits "
    "processors together rule out every one"
)


def _host_values(scores: torch.Tensor) -> NDArray[Any]:
    return scores.numpy() if scores.dtype == torch.float32 else scores.float().numpy()


def _prompt_entries(part: PromptPart) -> list[TokenLogprobs]:
    entries: list[TokenLogprobs] = []
    for tensors in part.parts:
        entries.extend(tensors.to_lists([part.num_top] * tensors.token_ids.shape[0]))
    return entries
