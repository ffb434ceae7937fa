"""`BlockHashChain`: the content hashes of one request's full blocks, made once, as its tokens become known.

    hash[i] = sha256(hash[i - 1] + token ids of block i as int32)        hash[-1] = root(extra keys)

A hash stands for all tokens up to the end of its block, so equal hashes mean equal prefixes. The extra
keys (a cache salt, later adapters and media) are in the root and through the chain in every hash.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

__all__ = ["BlockHashChain"]


def _root(extra_keys: Sequence[str]) -> bytes:
    digest = hashlib.sha256(b"vcore block chain")
    for key in extra_keys:
        encoded = key.encode("utf-8", "surrogatepass")
        # The length keeps ("ab", "c") apart from ("a", "bc").
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()


_PLAIN_ROOT = _root(())


class BlockHashChain:
    """The hashes of a growing list of tokens, one a full block."""

    __slots__ = ("_block_size", "_root", "hashes")

    def __init__(self, block_size: int, extra_keys: Sequence[str] = ()) -> None:
        """An empty chain.

        Args:
            block_size: tokens a block holds.
            extra_keys: what besides tokens tells equal prefixes apart.
        """
        self._block_size = block_size
        self._root = _root(extra_keys) if extra_keys else _PLAIN_ROOT
        self.hashes: list[bytes] = []
        """32 bytes for each full block so far. Read it; only `extend` changes it."""

    def extend(self, token_ids: Sequence[int]) -> list[bytes]:
        """Hash the full blocks of `token_ids` that are not hashed yet.

        Args:
            token_ids: all tokens of the request so far; those hashed before must not have changed.

        Returns:
            `hashes`, one for each full block.
        """
        hashes = self.hashes
        size = self._block_size
        start = len(hashes) * size
        end = len(token_ids) // size * size
        if start >= end:
            return hashes
        previous = hashes[-1] if hashes else self._root
        data = array("i", token_ids[start:end]).tobytes()
        stride = 4 * size
        for offset in range(0, len(data), stride):
            previous = hashlib.sha256(previous + data[offset : offset + stride]).digest()
            hashes.append(previous)
        return hashes

    def parent(self, index: int) -> bytes | None:
        """The hash before block `index`, or None for the first block."""
        return self.hashes[index - 1] if index else None
