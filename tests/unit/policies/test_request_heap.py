"""`RequestHeap` against a sorted list."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from policy_view import View
from vcore_policies.scheduling.request_heap import RequestHeap

Event = tuple[str, int, int]
EVENTS = st.lists(st.tuples(st.sampled_from(["push", "push", "discard", "walk"]), st.integers(0, 9), st.integers(0, 3)))


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_it_is_a_sorted_list(events: list[Event]) -> None:
    heap, keys = RequestHeap(), dict[int, int]()
    views = [View(arrival) for arrival in range(10)]
    for kind, arrival, key in events:
        view = views[arrival]
        if kind == "push" and arrival not in keys:
            heap.push(key, view)
            keys[arrival] = key
        elif kind == "discard":
            assert heap.discard(view) == (keys.pop(arrival, None) is not None)
        elif kind == "walk":
            # One in three leaves while the walk is at it, and the walk may end early.
            order = sorted(keys, key=lambda one: (keys[one], one))
            met = []
            walk = heap.walk()
            for one in walk:
                met.append(one.arrival_index)
                if one.arrival_index % 3 == 0:
                    heap.discard(one)
                    del keys[one.arrival_index]
                if len(met) == arrival + 1:
                    break
            walk.close()
            assert met == order[: arrival + 1]
        first = heap.first()
        expected = min(keys, key=lambda one: (keys[one], one), default=None)
        assert (None if first is None else first.arrival_index) == expected
        assert len(heap) == len(keys)
        assert [view in heap for view in views] == [arrival in keys for arrival in range(10)]


def test_nothing_is_kept_of_those_who_come_and_go() -> None:
    heap = RequestHeap()
    heap.push(-1, View())
    for _ in range(500):
        view = View()
        heap.push(0, view)
        heap.discard(view)
    assert len(heap._heap) < 100
