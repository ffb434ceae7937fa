"""Observers hear of events off the step loop; one that is slow or broken is in nobody's way."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace

import pytest

from vcore.engine.observers import ObserverDispatcher
from vcore.engine.request import FinishReason
from vcore.engine.step_output import Finished, StepOutput
from vcore.interfaces import Observer, ObserverEvent

STATS = SimpleNamespace(num_running=1)
BOTH = frozenset({"step", "finished"})


class Recorder(Observer):
    def __init__(self) -> None:
        self.events: list[ObserverEvent] = []
        self.closed = False

    def on_event(self, event: ObserverEvent) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed = True


class Blocked(Recorder):
    """Hears its first event only when let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def on_event(self, event: ObserverEvent) -> None:
        self.entered.set()
        assert self.let_go.wait(30)
        super().on_event(event)


class Broken(Recorder):
    def __init__(self, fault: BaseException) -> None:
        super().__init__()
        self.fault = fault

    def on_event(self, event: ObserverEvent) -> None:
        super().on_event(event)
        raise self.fault


def a_step(number: int) -> StepOutput:
    return StepOutput(request_ids=["a"] * number, token_ids=[0] * number)


def test_steps_and_endings_arrive_in_order() -> None:
    recorder = Recorder()
    dispatcher = ObserverDispatcher({"observer/r": (recorder, BOTH)})
    output = a_step(2)
    output.finished["a"] = Finished(FinishReason.STOP, None, 3)
    dispatcher.on_step(output, STATS)
    dispatcher.close()
    assert [event.name for event in recorder.events] == ["step", "finished"]
    assert recorder.events[0].fields["num_tokens"] == 2
    assert recorder.events[1].fields == {"request_id": "a", "reason": "stop", "num_preemptions": 3}
    assert recorder.closed


def test_only_wanted_events_arrive() -> None:
    recorder = Recorder()
    dispatcher = ObserverDispatcher({"observer/r": (recorder, frozenset({"finished"}))})
    dispatcher.on_step(a_step(1), STATS)
    dispatcher.close()
    assert recorder.events == []


def test_a_full_queue_drops_and_says_how_many() -> None:
    blocked = Blocked()
    dispatcher = ObserverDispatcher({"observer/b": (blocked, BOTH)}, capacity=1)
    dispatcher.on_step(a_step(1), STATS)
    assert blocked.entered.wait(30)
    for number in (2, 3, 4):  # 2 waits in the queue; 3 and 4 find it full
        dispatcher.on_step(a_step(number), STATS)
    blocked.let_go.set()
    while dispatcher._queue.qsize():
        pass
    dispatcher.on_step(a_step(5), STATS)
    dispatcher.close()
    assert [event.fields["num_tokens"] for event in blocked.events] == [1, 2, 5]
    assert blocked.events[-1].fields["dropped"] == 2


@pytest.mark.parametrize("fault", [RuntimeError("no"), SystemExit(1)])
def test_one_that_raises_is_named_and_left_out(fault: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    broken, recorder = Broken(fault), Recorder()
    dispatcher = ObserverDispatcher({"observer/broken@dist": (broken, BOTH), "observer/r": (recorder, BOTH)})
    with caplog.at_level(logging.ERROR):
        dispatcher.on_step(a_step(1), STATS)
        dispatcher.on_step(a_step(2), STATS)
        dispatcher.close()
    assert len(broken.events) == 1
    assert len(recorder.events) == 2
    assert caplog.text.count("observer/broken@dist") == 1
