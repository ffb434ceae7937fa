"""`EventStream`: server-sent events out of the pieces in which they come (WHATWG HTML, section 9.2)."""

from __future__ import annotations

__all__ = ["EventStream"]


class EventStream:
    """Puts the ``data`` of events together. Other fields and comments are of no use to a load generator."""

    __slots__ = ("_data", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that `piece` completes. Lines end with LF or CR LF."""
        lines = (self._rest + piece).split(b"\n") if self._rest else piece.split(b"\n")
        self._rest = lines.pop()
        events = []
        for line in lines:
            if line.endswith(b"\r"):
                line = line[:-1]
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
            elif not line and self._data:
                events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data = []
        return events

    @property
    def rest(self) -> bytes:
        """What belongs to no event yet."""
        return b"\n".join([*self._data, self._rest])
