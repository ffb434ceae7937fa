"""`VirtualPrompt`: the tokens of a request of which only the number and the hashes of full blocks are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vcore.kv_cache.block_hash import BlockHashChain

__all__ = ["VirtualChain", "VirtualPrompt"]


class VirtualPrompt(list[int]):
    """A list of tokens that stores none. It has the length that it was told, and grows; the last token is known.

    The scheduler counts tokens, hashes them and compares the last one with stop tokens; it needs no more of them.
    """

    __slots__ = ("end", "hashes", "last", "num_tokens")

    def __init__(self, count: int, hashes: Sequence[bytes] = (), end: int = 2**62) -> None:
        """Args:
        count: tokens.
        hashes: of its full blocks, for `VirtualChain`.
        end: tokens, prompt and output, at which the request is to end.
        """
        self.num_tokens = count
        self.hashes = hashes
        self.end = end
        self.last = 0

    def __len__(self) -> int:
        return self.num_tokens

    def __bool__(self) -> bool:
        return self.num_tokens > 0

    def __getitem__(self, index: Any) -> Any:  # an index or a slice
        return [0] * len(range(self.num_tokens)[index]) if isinstance(index, slice) else self.last

    def append(self, token_id: int) -> None:
        """One token more."""
        self.num_tokens += 1
        self.last = token_id

    def copy(self) -> VirtualPrompt:
        """Another one of the same length."""
        return VirtualPrompt(self.num_tokens, self.hashes, self.end)


class VirtualChain(BlockHashChain):
    """Hashes that are given, not computed; blocks that end in generated tokens get such as nobody else has."""

    __slots__ = ("_new_hash", "_size")

    def __init__(self, block_size: int, hashes: Sequence[bytes], new_hash: Callable[[], bytes]) -> None:
        """Args:
        block_size: tokens a block holds.
        hashes: of the prompt's full blocks.
        new_hash: makes one that was never given out.
        """
        super().__init__(block_size)
        self.hashes = list(hashes)
        self._size = block_size
        self._new_hash = new_hash

    def extend(self, token_ids: Sequence[int]) -> list[bytes]:
        """`hashes`, one for each full block of `token_ids`, of which only the length counts."""
        hashes = self.hashes
        for _ in range(len(token_ids) // self._size - len(hashes)):
            hashes.append(self._new_hash())
        return hashes
