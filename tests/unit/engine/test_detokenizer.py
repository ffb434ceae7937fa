"""`Detokenizer`: the text so far never shows what is taken back, and ends where a naive search says."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcore.engine.detokenizer import Detokenizer
from vcore.sampling_params import SamplingParams
from vcore.tokenizer import Tokenizer


def detokenizer(tokenizer: Tokenizer, **params: object) -> Detokenizer:
    return Detokenizer(tokenizer.new_stream([]), SamplingParams(**params))


def naive(tokenizer: Tokenizer, ids: list[int], stops: list[str], min_tokens: int, include: bool) -> tuple[str, int]:
    """Decode every beginning of `ids` whole; the text, and how many tokens are part of it."""
    previous = ""
    for count in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:count]).rstrip("\N{REPLACEMENT CHARACTER}")
        found = [
            (end, -len(stop), stop)
            for stop in stops
            for end in range(len(previous) + 1, len(text) + 1)
            if text[:end].endswith(stop)
        ]
        if found and count > min_tokens:
            end, _, stop = min(found)
            return text[: end if include else end - len(stop)], count
        previous = text
    return tokenizer.decode(ids), len(ids)


TEXTS = st.text("abé€😀 ", max_size=24)
STOPS = st.lists(st.text("abé€😀 ", min_size=1, max_size=4), min_size=1, max_size=3)


@given(TEXTS, STOPS, st.integers(0, 12), st.booleans())
def test_text_and_length_are_those_of_a_naive_search(
    byte_tokenizer: Tokenizer, text: str, stops: list[str], min_tokens: int, include: bool
) -> None:
    ids = list(text.encode())
    params = {"stop": stops, "min_tokens": min_tokens, "max_tokens": None, "include_stop_str_in_output": include}
    detok = detokenizer(byte_tokenizer, **params)
    shown = [""]
    count = 0
    for token in ids:
        count += 1
        stop = detok.append(token)
        shown.append(detok.text)
        if stop is not None:
            assert stop in stops
            break
    detok.finish()
    shown.append(detok.text)
    assert (detok.text, count) == naive(byte_tokenizer, ids, stops, min_tokens, include)
    for earlier, later in itertools.pairwise(shown):
        assert later.startswith(earlier), "text that was shown was taken back"


@pytest.mark.parametrize("include", [False, True])
def test_every_border_between_tokens(char_tokenizer: Tokenizer, include: bool) -> None:
    """Each letter is a token; no letter of the stop string shows before it is decided."""
    detok = detokenizer(char_tokenizer, stop="stop", include_stop_str_in_output=include)
    shown = []
    for token in char_tokenizer.encode("so sto stop"):
        if detok.append(token):
            break
        shown.append(detok.text)
    assert shown == ["", "so", "so ", "so ", "so ", "so ", "so sto ", "so sto ", "so sto ", "so sto "]
    assert detok.stop == "stop"
    assert detok.text == ("so sto stop" if include else "so sto ")


def test_what_was_held_back_is_shown_when_no_stop_string_came(byte_tokenizer: Tokenizer) -> None:
    detok = detokenizer(byte_tokenizer, stop="END")
    for token in b"the EN":
        detok.append(token)
    assert detok.text == "the "
    assert detok.finish() is None
    assert detok.text == "the EN"


def test_an_incomplete_character_is_held_back_and_replaced_at_the_end(byte_tokenizer: Tokenizer) -> None:
    detok = detokenizer(byte_tokenizer)
    for token in "a€".encode()[:-1]:
        detok.append(token)
    assert detok.text == "a"
    detok.finish()
    assert detok.text == "a\N{REPLACEMENT CHARACTER}"


def test_a_stop_string_that_only_the_rest_completes(byte_tokenizer: Tokenizer) -> None:
    detok = detokenizer(byte_tokenizer, stop="a\N{REPLACEMENT CHARACTER}")
    for token in b"ba\xe2":
        assert detok.append(token) is None
    assert detok.finish() == "a\N{REPLACEMENT CHARACTER}"
    assert detok.text == "b"


def test_a_skipped_token_counts_but_does_not_show(byte_tokenizer: Tokenizer) -> None:
    detok = detokenizer(byte_tokenizer, stop="x", min_tokens=1)
    detok.skip()
    assert detok.text == ""
    assert detok.append(ord("x")) == "x"
