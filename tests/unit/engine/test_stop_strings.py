"""`StopStringFinder` against a naive search, for every way of cutting the text."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcore.engine.stop_strings import StopMatch, StopStringFinder, StopStrings

STOPS = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=4)
TEXT = st.text("ab", max_size=30)


def naive(text: str, stops: list[str]) -> StopMatch | None:
    """The stop string that ends first; of those the longest."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return StopMatch(stop, end - len(stop), end)
    return None


def naive_held(text: str, stops: list[str]) -> int:
    """The length of the longest suffix that is a proper beginning of a stop string."""
    beginnings = {stop[:length] for stop in stops for length in range(len(stop))}
    return max(length for length in range(len(text) + 1) if text[len(text) - length :] in beginnings)


def cut(text: str, places: list[int]) -> list[str]:
    borders = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(borders)]


@given(TEXT, STOPS, st.lists(st.integers(0, 100), max_size=6))
def test_finds_what_a_naive_search_finds_however_it_is_cut(text: str, stops: list[str], places: list[int]) -> None:
    finder = StopStringFinder(StopStrings(stops))
    found = None
    fed = ""
    for piece in cut(text, places):
        found = finder.feed(piece)
        if found is not None:
            break
        fed += piece
        assert finder.num_held == naive_held(fed, stops)
    assert found == naive(text, stops)


@given(TEXT, STOPS, st.integers(0, 30))
def test_what_ends_in_pieces_that_do_not_count_is_passed_over(text: str, stops: list[str], uncounted: int) -> None:
    """Character by character, the first `uncounted` ones do not count."""
    finder = StopStringFinder(StopStrings(stops))
    found = None
    for i, char in enumerate(text):
        found = finder.feed(char, counts=i >= uncounted)
        if found is not None:
            break
        assert finder.num_held == naive_held(text[: i + 1], stops)
    ends = (end for end in range(uncounted + 1, len(text) + 1) if text[:end].endswith(tuple(stops)))
    end = next(ends, None)
    assert (None if found is None else found.end) == end


@pytest.mark.parametrize("place", range(1, 8))
def test_a_stop_string_cut_in_two_at_every_place(place: int) -> None:
    finder = StopStringFinder(StopStrings(["STOP now"]))
    assert finder.feed("go on. " + "STOP now"[:place]) is None
    assert finder.num_held == place
    assert finder.feed("STOP now"[place:] + " and more") == StopMatch("STOP now", 7, 15)


def test_the_one_that_ends_first_wins_even_if_another_begins_earlier() -> None:
    assert StopStringFinder(StopStrings(["abcd", "bc"])).feed("abcd") == StopMatch("bc", 1, 3)


def test_of_two_that_end_together_the_longest_wins() -> None:
    assert StopStringFinder(StopStrings(["c", "abc"])).feed("abc") == StopMatch("abc", 0, 3)


def test_a_beginning_that_comes_to_nothing_is_let_go_but_for_what_may_begin_again() -> None:
    finder = StopStringFinder(StopStrings(["aab"]))
    finder.feed("xaaa")
    assert finder.num_held == 2
    finder.feed("c")
    assert finder.num_held == 0


def test_a_character_costs_the_same_however_many_stop_strings_there_are() -> None:
    class Counted(StopStrings):
        moves = 0

        def next(self, state: int, char: str) -> int:
            self.moves += 1
            return super().next(state, char)

    stops = Counted([f"a{number}" for number in range(1000)])
    stops.moves = 0
    StopStringFinder(stops).feed("a" * 50)
    assert stops.moves == 50
