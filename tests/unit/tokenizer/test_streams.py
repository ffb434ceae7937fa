"""Incremental detokenising gives, piece by piece, exactly what decoding at once gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vcore.tokenizer import Tokenizer

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
ANY_ID = st.one_of(st.integers(0, 280), st.integers(-3, 2**33))
SHARED_FIXTURE = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def pieces(tokenizer: Tokenizer, ids: Sequence[int], prompt: Sequence[int] = (), skip: bool = True) -> Iterator[str]:
    stream = tokenizer.new_stream(prompt, skip_special_tokens=skip)
    for token_id in ids:
        yield stream.push(token_id)
    yield stream.flush()


def utf8_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """One token for each byte, in a tokenizer of either kind of byte tokens."""
    by_bytes = {tokenizer.id_to_token(i): i for i in range(tokenizer.vocab_size)}
    if "<0x00>" in by_bytes:
        return [by_bytes[f"<0x{byte:02X}>"] for byte in text.encode()]
    return tokenizer.encode(text, add_special_tokens=False)


@SHARED_FIXTURE
@given(ids=st.lists(ANY_ID, max_size=24), skip=st.booleans())
def test_pieces_join_to_the_decoded_text(any_tokenizer: Tokenizer, ids: list[int], skip: bool) -> None:
    assert "".join(pieces(any_tokenizer, ids, skip=skip)) == any_tokenizer.decode(ids, skip)


@settings(max_examples=150, deadline=None)
@given(ids=st.lists(st.one_of(st.integers(0, 49_151), st.integers(17, 300), ANY_ID), max_size=32), skip=st.booleans())
def test_pieces_join_to_what_transformers_decodes(
    smollm2_tokenizer: Tokenizer, smollm2_reference: object, ids: list[int], skip: bool
) -> None:
    known = [token_id for token_id in ids if 0 <= token_id < 2**32]
    expected = smollm2_reference.decode(known, skip_special_tokens=skip)  # type: ignore[attr-defined]
    assert "".join(pieces(smollm2_tokenizer, ids, skip=skip)) == expected


@SHARED_FIXTURE
@given(prompt=st.lists(st.integers(256, 269), min_size=1, max_size=4), ids=st.lists(st.integers(0, 269), max_size=16))
def test_after_a_prompt_the_text_goes_on(sentencepiece_tokenizer: Tokenizer, prompt: list[int], ids: list[int]) -> None:
    shown = "".join(pieces(sentencepiece_tokenizer, ids, prompt))
    assert sentencepiece_tokenizer.decode(prompt) + shown == sentencepiece_tokenizer.decode(prompt + ids)


def test_the_space_of_a_first_word_is_kept_after_a_prompt_only(sentencepiece_tokenizer: Tokenizer) -> None:
    paris = sentencepiece_tokenizer.token_to_id("▁Paris")
    hello = sentencepiece_tokenizer.token_to_id("▁Hello")
    beginning = sentencepiece_tokenizer.bos_token_id
    assert paris is not None
    assert hello is not None
    assert beginning is not None
    assert "".join(pieces(sentencepiece_tokenizer, [paris], [hello])) == " Paris"
    assert "".join(pieces(sentencepiece_tokenizer, [paris])) == "Paris"
    assert "".join(pieces(sentencepiece_tokenizer, [paris], [beginning])) == "Paris"


def test_spaces_as_they_come_are_shown_with_and_without_a_prompt(gemma_style_tokenizer: Tokenizer) -> None:
    paris, hello, spaces = (gemma_style_tokenizer.token_to_id(token) or 0 for token in ("▁Paris", "▁Hello", "▁▁"))
    for prompt in ([], [hello], [gemma_style_tokenizer.bos_token_id or 0]):
        assert list(pieces(gemma_style_tokenizer, [paris, spaces, hello], prompt)) == [" Paris", "  ", " Hello", ""]


@pytest.mark.parametrize("kind", ["byte_level_tokenizer", "gemma_style_tokenizer", "sentencepiece_tokenizer"])
@pytest.mark.parametrize("text", ["héllo", "日本", "😀!", "👩‍👩‍👧 a"])
def test_no_piece_has_part_of_a_character(kind: str, text: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    shown = list(pieces(tokenizer, utf8_ids(tokenizer, text)))
    assert "".join(shown) == text
    assert not [piece for piece in shown if REPLACEMENT in piece]


def test_an_emoji_appears_with_its_last_byte(byte_level_tokenizer: Tokenizer) -> None:
    assert list(pieces(byte_level_tokenizer, utf8_ids(byte_level_tokenizer, "😀"))) == ["", "", "", "😀", ""]


def test_an_incomplete_character_comes_out_at_the_end(byte_level_tokenizer: Tokenizer) -> None:
    ids = utf8_ids(byte_level_tokenizer, "a😀")[:-1]
    assert list(pieces(byte_level_tokenizer, ids))[-2:] == ["", REPLACEMENT]


def test_bytes_that_are_no_character_are_not_held_back(byte_level_tokenizer: Tokenizer) -> None:
    invalid = byte_level_tokenizer.token_to_id("ÿ")  # the byte 0xFF, which no UTF-8 has
    assert invalid is not None
    assert list(pieces(byte_level_tokenizer, [invalid] * 3)) == [REPLACEMENT] * 3 + [""]


def test_a_run_of_byte_tokens_is_shown_when_it_ends(sentencepiece_tokenizer: Tokenizer) -> None:
    ids = [*utf8_ids(sentencepiece_tokenizer, "é"), sentencepiece_tokenizer.token_to_id("!") or 0]
    assert list(pieces(sentencepiece_tokenizer, ids)) == ["", "", "é!", ""]


def test_special_tokens_show_only_if_wanted(byte_level_tokenizer: Tokenizer) -> None:
    end = byte_level_tokenizer.eos_token_id
    assert end is not None
    assert list(pieces(byte_level_tokenizer, [end], skip=False)) == ["</s>", ""]
    assert list(pieces(byte_level_tokenizer, [end], skip=True)) == ["", ""]


def test_a_special_token_within_a_character_does_not_break_it(byte_level_tokenizer: Tokenizer) -> None:
    first, *rest = utf8_ids(byte_level_tokenizer, "é")
    end = byte_level_tokenizer.eos_token_id
    assert end is not None
    assert "".join(pieces(byte_level_tokenizer, [first, end, *rest])) == "é"
