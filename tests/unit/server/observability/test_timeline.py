"""The timeline, and the file that it becomes."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcore.engine.records import EngineStatus
from vcore.server.observability.chrome_trace import chrome_trace
from vcore.server.observability.timeline import MAX_STEPS, RequestSpan, Timeline, Window

ROUNDING = 0.11
"""Microseconds: times are given to a tenth of one."""


def check_trace(trace: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold a trace to the format: keys by phase, times in order, and on each track spans that nest. Its events."""
    trace = json.loads(json.dumps(trace))
    assert set(trace) == {"traceEvents", "displayTimeUnit", "otherData"}
    needed = {"M": {"args"}, "X": {"ts", "dur", "args", "cat"}, "C": {"ts", "args"}, "i": {"ts", "s"}}
    events = trace["traceEvents"]
    tracks: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        assert {"name", "ph", "pid", "tid"} | needed[event["ph"]] <= set(event)
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append(event)
        if event["ph"] == "C":
            assert all(isinstance(number, int | float) for number in event["args"].values())
    times = [event["ts"] for event in events if event["ph"] != "M"]
    assert times == sorted(times)
    assert all(time >= 0 for time in times)
    named = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    assert set(tracks) <= named
    for spans in tracks.values():
        check_nesting(spans)
    return events


def check_nesting(spans: list[dict[str, Any]]) -> None:
    open_ends: list[float] = []
    for span in spans:
        assert span["dur"] >= 0
        while open_ends and open_ends[-1] <= span["ts"] + ROUNDING:
            open_ends.pop()
        end = span["ts"] + span["dur"]
        assert not open_ends or end <= open_ends[-1] + ROUNDING, "it ends after what encloses it"
        open_ends.append(end)


@pytest.fixture
def timeline() -> Timeline:
    return Timeline(clock=lambda: 100.0)


def test_the_window_holds_what_ended_in_it(timeline: Timeline, make_step: Any, make_request: Any) -> None:
    for index, end in enumerate((80.0, 91.0, 99.0), start=1):
        timeline.on_step(make_step(index, start=end - 0.5, end=end))
    timeline.on_finished(make_request("old", times=(1.0, 2.0, 3.0, 89.0)))
    timeline.on_finished(make_request("new", times=(1.0, 2.0, 3.0, 95.0)))
    timeline.on_engine(EngineStatus(state="restarting", reason="killed"))
    window = timeline.last(10.0)
    assert [step.index for step in window.steps] == [2, 3]
    assert [request.request_id for request in window.requests] == ["new"]
    assert [(event.state, event.reason) for event in window.events] == [("restarting", "killed")]
    assert (window.start, window.end) == (90.0, 100.0)


def test_endings_without_a_step_are_no_step_and_old_steps_fall_out(timeline: Timeline, make_step: Any) -> None:
    timeline.on_step(make_step(0, start=99.0, end=99.0))
    step = make_step(1, start=99.0, end=99.0)
    for _ in range(MAX_STEPS + 5):
        timeline.on_step(step)
    assert len(timeline.last(10.0).steps) == MAX_STEPS


def test_of_a_step_nothing_is_kept_that_grows_with_its_requests(timeline: Timeline, make_step: Any) -> None:
    waits = [0.5] * 256
    timeline.on_step(make_step(1, start=99.0, end=99.5, first_token_latencies=waits, inter_token_latencies=waits))
    assert timeline.last(10.0).steps == [make_step(1, start=99.0, end=99.5)]


def test_the_trace_of_a_small_window(timeline: Timeline, make_step: Any, make_request: Any) -> None:
    timeline.on_step(make_step(1, start=98.0, end=98.5, num_decodes=0))
    timeline.on_step(make_step(2, start=98.5, end=99.0, num_prompt_tokens=0))
    timeline.on_finished(make_request("a", times=(97.0, 98.0, 98.5, 99.0)))
    timeline.on_finished(make_request("never ran", times=(98.0, None, None, 98.5), finish_reasons=("abort",)))
    timeline.on_engine(EngineStatus(state="ready"))
    events = check_trace(chrome_trace(timeline.last(10.0), wall_start=1000.0))
    spans = [(event["name"], event["ts"], event["dur"]) for event in events if event["ph"] == "X"]
    assert sorted(spans) == [
        ("decode", 1.5e6, 5e5),  # the step
        ("decode", 1.5e6, 5e5),  # of the request
        ("prefill", 1e6, 5e5),
        ("prefill", 1e6, 5e5),
        ("queued", 0.0, 1e6),
        ("queued", 1e6, 5e5),
        ("request", 0.0, 2e6),
        ("request", 1e6, 5e5),
    ]
    [first_counts] = [event for event in events if event["ph"] == "C" and event["name"] == "requests"][:1]
    assert first_counts["args"] == {"running": 2, "waiting": 1}
    assert first_counts["ts"] == 1.5e6
    [change] = [event for event in events if event["ph"] == "i"]
    assert change["name"] == "engine ready"
    names = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    assert names == ["steps", "a", "never ran"]


def test_an_empty_window_is_a_trace_all_the_same(timeline: Timeline) -> None:
    events = check_trace(chrome_trace(timeline.last(1.0), wall_start=1000.0))
    assert {event["ph"] for event in events} == {"M"}


def test_the_metadata_tell_the_time_of_day(timeline: Timeline, make_step: Any) -> None:
    timeline.on_step(make_step(1, start=94.0, end=95.0))
    trace = chrome_trace(timeline.last(10.0), wall_start=1000.0)
    assert trace["otherData"]["epoch_s"] == 1004.0


times = st.floats(0, 10, allow_nan=False)


@st.composite
def requests(draw: st.DrawFn) -> RequestSpan:
    reached = sorted(draw(st.lists(times, min_size=2, max_size=4)))
    arrival, *middle, end = reached
    started, first = (*middle, None, None)[:2]
    return RequestSpan("r", arrival, started, first, end, 1, 0, 1, 0, 0, ("stop",))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(times, st.floats(0, 2)), max_size=12), st.lists(requests(), max_size=6))
def test_every_trace_is_well_formed(steps: list[tuple[float, float]], spans: list[RequestSpan]) -> None:
    from vcore.engine.records import StepRecord
    from vcore.scheduler import SchedulerStats

    stats = SchedulerStats(
        running=1,
        waiting=0,
        used_blocks=1,
        free_blocks=1,
        cached_blocks=0,
        prefix_query_tokens=0,
        prefix_hit_tokens=0,
        preemptions=0,
    )
    records = [
        StepRecord(
            index=index, start=start, end=start + took, num_prompt_tokens=1, num_decodes=0, num_requests=1, stats=stats
        )
        for index, (start, took) in enumerate(steps, start=1)
    ]
    events = check_trace(chrome_trace(Window(0.0, 20.0, records, spans, []), wall_start=0.0))
    drawn = [event for event in events if event["ph"] == "X" and event["pid"] == 1]
    assert len(drawn) == len(steps)


def test_steps_that_overlap_get_tracks_of_their_own(timeline: Timeline, make_step: Any) -> None:
    for index, (start, end) in enumerate([(90.0, 92.0), (91.0, 93.0), (92.0, 94.0)], start=1):
        timeline.on_step(make_step(index, start=start, end=end))
    events = check_trace(chrome_trace(timeline.last(10.0), wall_start=0.0))
    assert [(event["tid"], event["args"]["index"]) for event in events if event["ph"] == "X"] == [
        (1, 1),
        (2, 2),
        (1, 3),
    ]


def test_the_endpoint_is_off_unless_it_is_enabled_or_guarded(make_server: Any, make_step: Any) -> None:
    refused = make_server().get("/trace")
    assert refused.status_code == 403
    assert "--enable-trace" in refused.json()["error"]["message"]
    enabled = make_server(enable_trace=True)
    response = enabled.get("/trace?seconds=5")
    check_trace(response.json())
    assert "attachment" in response.headers["content-disposition"]
    assert enabled.get("/trace?seconds=-1").status_code == 400
    guarded = make_server(api_keys=("k",))
    assert guarded.get("/trace").status_code == 401
    assert guarded.get("/trace", headers={"Authorization": "Bearer k"}).status_code == 200
