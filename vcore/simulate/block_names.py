"""`BlockNames`: content hashes for the prompts of a trace, from the ids of its blocks, without tokens."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.errors import ConfigError
from vcore.traces import Trace, TraceRequest

__all__ = ["BlockNames", "number_blocks"]

_BYTES_PER_TOKEN = 4
"""Of a prompt's text, where the trace has it."""


class BlockNames:
    """Gives equal hashes to equal beginnings. A hash is a number, given out once, not a digest.

    A block of the trace holds one or several blocks of the cache, which then have names of their own:

        trace, 512 tokens a block     | id 7                          | id 9
        cache, 128 tokens a block     | (7, 0) (7, 1) (7, 2) (7, 3)   | (9, 0) ...
    """

    def __init__(self, trace: Trace, block_size: int) -> None:
        """Args:
        trace: whose prompts are named.
        block_size: tokens a block of the cache holds.

        Raises:
            ConfigError: the trace has block ids, and its blocks are not whole numbers of the cache's.
        """
        size = trace.block_size
        if size is not None and size % block_size:
            raise ConfigError(
                f"a block of the cache holds {block_size} tokens and one of {trace.name} {size}; expected the second "
                f"to be a multiple of the first, so that its block ids say what is shared: set cache.block_size"
            )
        self._block_size = block_size
        self._parts = None if size is None else size // block_size
        self._known: dict[tuple[bytes, object], bytes] = {}
        self._count = 0

    def new(self) -> bytes:
        """A hash that was never given out."""
        self._count += 1
        return self._count.to_bytes(8, "little")

    def of(self, request: TraceRequest) -> list[bytes]:
        """The hashes of the full blocks of a prompt. One that shares nothing gets new ones."""
        count = request.input_length // self._block_size
        if request.block_ids and self._parts is not None:
            return self._of_ids(request.block_ids, count, self._parts)
        if request.text is not None:
            return self._of_text(request.text, count)
        return [self.new() for _ in range(count)]

    def _of_ids(self, block_ids: tuple[int, ...], count: int, parts: int) -> list[bytes]:
        hashes: list[bytes] = []
        previous, known = b"", self._known
        for column in range(count):
            # One key a block, whatever its size: the parts of a block of the trace follow each other.
            key = previous, (block_ids[column] if parts == 1 else block_ids[column // parts])
            name = known.get(key)
            if name is None:
                name = known[key] = self.new()
            hashes.append(name)
            previous = name
        return hashes

    def _of_text(self, text: str, count: int) -> list[bytes]:
        data = text.encode("utf-8", "surrogatepass")
        size = self._block_size * _BYTES_PER_TOKEN
        hashes: list[bytes] = []
        previous = b""
        for column in range(count):
            part = data[column * size : (column + 1) * size]
            # Where the text is shorter than the stated length says, the rest is nobody else's.
            previous = self._name(previous, part) if len(part) == size else self.new()
            hashes.append(previous)
        return hashes

    def _name(self, previous: bytes, key: object) -> bytes:
        """The hash of a block that follows `previous`: an id that stands elsewhere is another block."""
        name = self._known.get((previous, key))
        if name is None:
            name = self._known[previous, key] = self.new()
        return name


def number_blocks(prompts: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """The blocks of prompts by numbers that stand for everything up to the block, as `BlockNames` has it, the last
    partial block included.

    An id is its own number where it follows what it followed first. Behind another beginning, or once more in the same
    prompt, it is another block, and has a number that is no id.

    Args:
        prompts: of each request, `vcore.traces.TraceRequest.block_ids`.

    Returns:
        As many numbers of each, in a prompt all different.
    """
    below = min((block_id for prompt in prompts for block_id in prompt), default=0)
    first_behind: dict[int, int | None] = {}
    others: dict[tuple[int | None, int], int] = {}
    numbered = []
    for prompt in prompts:
        previous: int | None = None
        numbers = []
        for block_id in prompt:
            if first_behind.setdefault(block_id, previous) == previous:
                previous = block_id
            else:
                previous = others.setdefault((previous, block_id), below - 1 - len(others))
            numbers.append(previous)
        numbered.append(tuple(numbers))
    return numbered
