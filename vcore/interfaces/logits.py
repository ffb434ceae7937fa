"""What a logits processor implements. It works on the rows of the batch that asked for it, all at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["LogitsProcessor", "LogitsProcessorContext", "ProcessorRow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitsProcessorContext:
    """What the core tells a logits processor when it builds it."""

    vocab_size: int
    device: torch.device
    max_num_seqs: int


@dataclass(slots=True, kw_only=True)
class ProcessorRow:
    """One request that asked for the processor."""

    row: int
    """Identifies the request until it is removed; a number below `max_num_seqs`."""
    prompt_token_ids: Sequence[int]
    output_token_ids: Sequence[int]
    """Live: grows with each token. Valid only inside `apply` and `on_batch_change`."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """What the request passed along, as checked by the spec's options model."""


class LogitsProcessor(ABC):
    """Changes logits before sampling (API 1.0).

    The plugin's `load` is called with ``options=None`` and ``context`` (a `LogitsProcessorContext`),
    once an engine; what a request passes arrives in `ProcessorRow.arguments`, checked by the options
    model of the spec.
    """

    needs_host_tokens: bool = False
    """Whether `apply` reads `output_token_ids`; if so, it is called only once they are all known."""

    def on_batch_change(self, added: Sequence[ProcessorRow], removed: Sequence[int]) -> None:
        """Requests came and went since the last step; `removed` holds rows and is to be applied first."""

    @abstractmethod
    def apply(self, logits: torch.Tensor, rows: Sequence[ProcessorRow]) -> torch.Tensor:
        """New logits, or the same tensor changed in place.

        Args:
            logits: float32 [len(rows), vocab_size].
            rows: whose they are. A row that cannot be served fails alone if `apply` raises for it alone:
                after an exception the core calls once for each row.
        """
