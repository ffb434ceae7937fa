"""`ProcessorSet`: the logits processors that requests in the batch asked for, each called once a step for all its rows.

A processor that fails harms only the row that it failed for. It knows nothing of the plugin framework:
a factory makes processors by name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from vcore.errors import RequestError
from vcore.interfaces.logits import LogitsProcessor, ProcessorRow
from vcore.sampling_params import LogitsProcessorRequest

__all__ = ["ProcessorBatch", "ProcessorFactory", "ProcessorSet"]

logger = logging.getLogger(__name__)

_FAULTS = (Exception, SystemExit)
"""What a processor may raise: ``sys.exit()`` in one ends its request, not the process."""

ProcessorFactory = Callable[[str], LogitsProcessor]
"""Makes the processor of a name, once an engine."""


@dataclass(slots=True)
class _Entry:
    """One processor with the rows that it serves."""

    name: str
    processor: LogitsProcessor
    rows: dict[int, ProcessorRow] = field(default_factory=dict)
    added: dict[int, ProcessorRow] = field(default_factory=dict)
    """Rows that it has not been told of."""
    removed: list[int] = field(default_factory=list)


@dataclass(slots=True)
class ProcessorBatch:
    """One processor's share of a step."""

    name: str
    processor: LogitsProcessor
    rows: list[ProcessorRow]
    indices: torch.Tensor
    """int64 [len(rows)]: which of the step's logits are theirs."""
    host_indices: list[int]
    """The same, on the host."""

    def apply(self, logits: torch.Tensor, errors: dict[int, str], error_params: dict[int, str]) -> None:
        """Process the logits of its rows in place.

        Args:
            logits: float32 [num_sampled, vocab_size].
            errors: gets a message by index of the logits, for rows that the processor failed for.
            error_params: gets the field of those whose request is to blame.
        """
        given = logits.index_select(0, self.indices)
        try:
            result = self._call(given, self.rows)
        except _FAULTS:
            result = self._apply_singly(logits, errors, error_params)
        logits.index_copy_(0, self.indices, result)

    def _apply_singly(self, logits: torch.Tensor, errors: dict[int, str], error_params: dict[int, str]) -> torch.Tensor:
        results = []
        for index, row in zip(self.host_indices, self.rows, strict=True):
            given = logits[index : index + 1]
            try:
                results.append(self._call(given.clone(), [row]))
            except _FAULTS as error:
                results.append(given)
                errors[index] = _failure(self.name, error)
                if isinstance(error, RequestError):
                    errors[index], error_params[index] = str(error), error.param or "logits_processors"
        return torch.cat(results)

    def _call(self, given: torch.Tensor, rows: list[ProcessorRow]) -> torch.Tensor:
        result = self.processor.apply(given, rows)
        if not isinstance(result, torch.Tensor) or result.shape != given.shape:
            found = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
            raise TypeError(f"apply returned {found}; expected a tensor of shape {tuple(given.shape)}")
        return result.to(device=given.device, dtype=given.dtype)


class ProcessorSet:
    """Makes processors when they are first asked for, and tells them of rows that come and go."""

    def __init__(self, factory: ProcessorFactory) -> None:
        self._factory = factory
        self._entries: dict[str, _Entry] = {}

    def add(
        self,
        row: int,
        requests: Sequence[LogitsProcessorRequest],
        prompt_token_ids: Sequence[int],
        output_token_ids: Sequence[int],
        prepared: Mapping[str, object] | None = None,
    ) -> str | None:
        """Let the request in `row` be served by the processors that it asks for.

        Args:
            row: a free row.
            requests: what is asked for.
            prompt_token_ids: of the request.
            output_token_ids: live, known tokens.
            prepared: by processor, what it prepared for the request; what is missing is prepared here.

        Returns:
            Why it cannot be, or None.
        """
        for request in requests:
            entry = self._entries.get(request.name)
            if entry is None:
                try:
                    processor = self._factory(request.name)
                except _FAULTS as error:
                    return _failure(request.name, error)
                entry = self._entries[request.name] = _Entry(request.name, processor)
            try:
                ready = _prepared(entry, request, prepared)
            except _FAULTS as error:
                return _failure(request.name, error)
            processor_row = ProcessorRow(
                row=row,
                prompt_token_ids=prompt_token_ids,
                output_token_ids=output_token_ids,
                arguments=dict(request.options),
                prepared=ready,
            )
            entry.rows[row] = entry.added[row] = processor_row
        return None

    def remove(self, row: int) -> None:
        """The request in `row` is gone."""
        for entry in self._entries.values():
            if entry.rows.pop(row, None) is not None and entry.added.pop(row, None) is None:
                entry.removed.append(row)

    def announce(self) -> dict[int, str]:
        """Tell the processors of rows that came and went since they were last told.

        Rows are announced one by one, so that one that a processor refuses fails alone.

        Returns:
            By row, what a processor raised.
        """
        failures: dict[int, str] = {}
        for entry in self._entries.values():
            if entry.removed:
                self._announce_removed(entry)
            for row, added in entry.added.items():
                try:
                    entry.processor.on_batch_change([added], [])
                except _FAULTS as error:
                    failures[row] = _failure(entry.name, error)
            entry.added.clear()
        return failures

    def _announce_removed(self, entry: _Entry) -> None:
        try:
            entry.processor.on_batch_change([], entry.removed)
        except _FAULTS:
            logger.warning("logits processor %r raised as requests left", entry.name, exc_info=True)
        entry.removed = []

    def needs_host_tokens(self, rows: Sequence[int]) -> bool:
        """Whether a processor of one of `rows` reads tokens."""
        return any(
            entry.processor.needs_host_tokens and any(row in entry.rows for row in rows)
            for entry in self._entries.values()
        )

    def batches(
        self,
        indices: Sequence[int],
        rows: Sequence[int],
        put: Callable[[NDArray[np.int64]], torch.Tensor],
    ) -> list[ProcessorBatch]:
        """Each processor's share of a step, in the order in which the processors were first asked for.

        Args:
            indices: which of the step's logits.
            rows: whose they are.
            put: takes indices to the device.
        """
        result = []
        for entry in self._entries.values():
            mine = [(i, entry.rows[row]) for i, row in zip(indices, rows, strict=True) if row in entry.rows]
            if mine:
                host_indices = [index for index, _ in mine]
                on_device = put(np.array(host_indices, dtype=np.int64))
                batch_rows = [row for _, row in mine]
                result.append(ProcessorBatch(entry.name, entry.processor, batch_rows, on_device, host_indices))
        return result


def _prepared(entry: _Entry, request: LogitsProcessorRequest, prepared: Mapping[str, object] | None) -> object:
    if prepared is not None and request.name in prepared:
        return prepared[request.name]
    return entry.processor.prepare(request.options)


def _failure(name: str, error: BaseException) -> str:
    return f"logits processor {name!r} failed: {type(error).__name__}: {error}"
