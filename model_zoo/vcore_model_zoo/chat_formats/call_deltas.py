"""`CallDeltas`: the deltas of the calls of one answer, numbered in their order."""

from __future__ import annotations

from vcore.interfaces.chat_format import ToolDelta
from vcore_model_zoo.chat_formats.call_reader import CallReader

__all__ = ["CallDeltas"]


class CallDeltas:
    """Tells of one call after another."""

    __slots__ = ("_is_told", "_num_calls")

    def __init__(self) -> None:
        self._num_calls = 0
        self._is_told = False
        """Whether the call that is being read was told of."""

    def of(self, reader: CallReader, *, ended: bool = False) -> list[ToolDelta]:
        """What is new of the call that `reader` reads; nothing until it is committed."""
        deltas = []
        if reader.committed:
            arguments = reader.take_arguments()
            if not self._is_told:
                deltas = [self.begin(reader.name or "", arguments)]
            elif arguments:
                deltas = [self.more(arguments)]
        if ended:
            self._is_told = False
        return deltas

    def begin(self, name: str, arguments: str = "") -> ToolDelta:
        """The first piece of the next call."""
        self._is_told = True
        self._num_calls += 1
        return ToolDelta(self._num_calls - 1, name=name, arguments=arguments)

    def more(self, arguments: str) -> ToolDelta:
        """A further piece."""
        return ToolDelta(self._num_calls - 1, arguments=arguments)
