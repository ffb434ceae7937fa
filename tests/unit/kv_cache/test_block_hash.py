"""The chain of block hashes: what it depends on, and that it is made incrementally."""

from __future__ import annotations

import hashlib
import random

import pytest

from vcore.kv_cache import BlockHashChain


def hashes(tokens: list[int], block_size: int = 4, extra_keys: tuple[str, ...] = ()) -> list[bytes]:
    return list(BlockHashChain(block_size, extra_keys).extend(tokens))


def test_only_full_blocks_are_hashed() -> None:
    assert hashes([]) == []
    assert hashes([1, 2, 3]) == []
    assert len(hashes([1, 2, 3, 4])) == 1
    assert len(hashes(list(range(11)))) == 2


def test_a_hash_is_sha256_of_parent_and_int32_tokens() -> None:
    first, second = hashes([1, 2, 3, 70_000], block_size=2)
    data = b"".join(token.to_bytes(4, "little") for token in (3, 70_000))
    assert second == hashlib.sha256(first + data).digest()


def test_growing_token_by_token_gives_the_same_hashes() -> None:
    tokens = [random.Random(1).randrange(50_000) for _ in range(50)]
    chain = BlockHashChain(4)
    grown: list[int] = []
    for token in tokens:
        grown.append(token)
        chain.extend(grown)
    assert chain.hashes == hashes(tokens)


def test_hashes_made_before_are_not_made_again() -> None:
    chain = BlockHashChain(2)
    first = chain.extend([1, 2])[0]
    assert chain.extend([1, 2, 3, 4])[0] is first


def test_equal_prefixes_share_hashes_up_to_the_first_difference() -> None:
    one, other = hashes([1, 2, 3, 4, 5, 6], 2), hashes([1, 2, 9, 4, 5, 6], 2)
    assert one[0] == other[0]
    assert one[1] != other[1]
    assert one[2] != other[2], "equal tokens after different ones are different content"


def test_equal_blocks_at_different_places_differ() -> None:
    one, two = hashes([1, 2, 1, 2], 2)
    assert one != two


@pytest.mark.parametrize(
    ("one", "other"), [((), ("a",)), (("a",), ("b",)), (("ab", "c"), ("a", "bc")), (("a",), ("a", ""))]
)
def test_extra_keys_tell_equal_tokens_apart_in_every_block(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    for first, second in zip(
        hashes(list(range(8)), extra_keys=one), hashes(list(range(8)), extra_keys=other), strict=True
    ):
        assert first != second


def test_extra_keys_may_be_any_text() -> None:
    assert hashes([1, 2, 3, 4], extra_keys=("\ud800é",))


def test_parent_is_the_hash_before() -> None:
    chain = BlockHashChain(1)
    chain.extend([1, 2, 3])
    assert chain.parent(0) is None
    assert chain.parent(2) == chain.hashes[1]
