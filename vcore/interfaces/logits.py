"""What a logits processor implements. It works on the rows of the batch that asked for it, all at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from vcore.tokenizer import Tokenizer

__all__ = ["LogitsProcessor", "LogitsProcessorContext", "ProcessorRow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitsProcessorContext:
    """What the core tells a logits processor when it builds it."""

    vocab_size: int
    device: torch.device
    max_num_seqs: int
    tokenizer: Tokenizer | None = None
    """The model's; None if the engine was made without one."""
    eos_token_ids: tuple[int, ...] = ()
    """The model's ends of sequence."""


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
    prepared: Any = None
    """What `LogitsProcessor.prepare` returned for these arguments. Other requests may share it: it is not changed."""


class LogitsProcessor(ABC):
    """Changes logits before sampling (API 1.0).

    The plugin's `load` is called with ``options=None`` and ``context`` (a `LogitsProcessorContext`),
    once an engine; what a request passes arrives in `ProcessorRow.arguments`, checked by the options
    model of the spec.
    """

    needs_host_tokens: bool = False
    """Whether `apply` reads `output_token_ids`; if so, it is called only once they are all known."""

    def prepare(self, arguments: Mapping[str, Any]) -> object:
        """Do what is slow for a request that asks for the processor: compile a grammar, read a file.

        Called off the step loop, in any thread and in several at once, before the request enters the batch; once for
        requests of equal arguments, as long as the result is kept. The result arrives in `ProcessorRow.prepared`.

        Args:
            arguments: as they will stand in `ProcessorRow.arguments`.

        Raises:
            RequestError: the arguments are of no use; whoever made the request gets the message.
        """
        return None

    def on_batch_change(self, added: Sequence[ProcessorRow], removed: Sequence[int]) -> None:
        """Requests came and went since the last step; `removed` holds rows and is to be applied first."""

    @abstractmethod
    def apply(self, logits: torch.Tensor, rows: Sequence[ProcessorRow]) -> torch.Tensor:
        """New logits, or the same tensor changed in place.

        Args:
            logits: float32 [len(rows), vocab_size].
            rows: whose they are. A row that cannot be served fails alone if `apply` raises for it alone:
                after an exception the core calls once for each row.

        Raises:
            RequestError: what the row's request asks for is why it cannot be served, as with a grammar that becomes
                too complex: whoever made the request gets the message, as one about `param`. Anything else that is
                raised counts as a fault of the processor.
        """
