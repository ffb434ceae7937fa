"""The bytes behind the tokens of a byte-level BPE vocabulary.

Such a vocabulary writes each byte as one printable character. The table is the one of GPT-2 (Radford et
al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2): a byte that is a printable
Latin-1 character stands for itself, and the others are numbered from U+0100 upwards.
"""

from __future__ import annotations

__all__ = ["token_bytes"]


def _byte_of_character() -> dict[str, int]:
    itself = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(0x100) if byte not in itself]
    return {chr(byte): byte for byte in itself} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_of_character()


def token_bytes(token: str) -> bytes:
    """The bytes that `token` stands for.

    A token with a character outside the table (an added token with a space, say) stands for its own UTF-8.
    """
    try:
        return bytes([_BYTE_OF_CHARACTER[character] for character in token])
    except KeyError:
        return token.encode("utf-8", errors="replace")
