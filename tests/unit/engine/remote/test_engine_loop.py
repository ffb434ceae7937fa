"""The loop between messages and core, over a core that plays back tokens: refusals, preparation, death, questions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from vcore.engine.input_processor import InputProcessor
from vcore.engine.remote import engine_loop
from vcore.engine.remote.channel import QueueChannel
from vcore.engine.remote.engine_loop import EngineLoop
from vcore.engine.remote.messages import (
    AbortRequests,
    AddRequest,
    Call,
    EngineDied,
    FinishRequest,
    FromEngine,
    HealthChanged,
    Refused,
    Reply,
    Shutdown,
    StepDone,
)
from vcore.engine.remote.preparation import Preparation
from vcore.engine.request import EngineRequest, FinishReason
from vcore.errors import EngineDeadError, RequestError
from vcore.sampling_params import SamplingParams

INPUTS = InputProcessor(tokenizer=None, vocab_size=260, max_model_len=64, check_processor=lambda asked: asked)


def request(name: str = "r", prompt: Sequence[int] = (1, 2, 3), **params: Any) -> AddRequest:
    return AddRequest.of(INPUTS.process(list(prompt), SamplingParams(**params), request_id=name))


class Line:
    """A channel that is scripted: messages are put in before the loop runs, and by what it does."""

    def __init__(self, *messages: Any) -> None:
        self.sent: list[FromEngine] = []
        self.on_send: Callable[[FromEngine], None] = lambda message: None
        self.channel = QueueChannel(self._deliver)
        for message in messages:
            self.channel.put(message)

    def _deliver(self, message: FromEngine) -> None:
        self.sent.append(message)
        self.on_send(message)

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.sent if isinstance(message, kind)]

    def tokens(self) -> dict[str, list[int]]:
        given: dict[str, list[int]] = {}
        for step in self.of(StepDone):
            for name, token in zip(step.output.request_ids, step.output.token_ids, strict=True):
                given.setdefault(name, []).append(token)
        return given

    def ends(self) -> dict[str, FinishReason]:
        return {name: end.reason for step in self.of(StepDone) for name, end in step.output.finished.items()}


def stop_when_all_ended(line: Line, *names: str) -> None:
    def look(message: FromEngine) -> None:
        if set(names) <= set(line.ends()):
            line.channel.put(Shutdown())

    line.on_send = look


def test_requests_are_computed_and_every_step_is_told_once(playback: Any):
    core = playback(lambda one: range(10, 60))
    line = Line(request("a", max_tokens=3), request("b", n=2, max_tokens=2))
    stop_when_all_ended(line, "a", "b.0", "b.1")
    EngineLoop(core, line.channel).run()
    assert line.tokens() == {"a": [10, 11, 12], "b.0": [10, 11], "b.1": [10, 11]}
    assert len(line.of(StepDone)) == core.num_steps == 3
    assert all(step.start <= step.end for step in line.of(StepDone))
    assert core.is_shut_down


def test_what_crosses_is_what_was_asked(playback: Any):
    core = playback(lambda one: [1] * 9)
    params: dict[str, Any] = {"n": 2, "prompt_logprobs": 1, "max_tokens": 1, "logit_bias": {3: 1.0}, "min_p": 0.5}
    prompt = list(range(200, 250))
    line = Line(request("a", prompt, **params))
    stop_when_all_ended(line, "a.0", "a.1")
    EngineLoop(core, line.channel).run()
    assert [one.request_id for one in core.added] == ["a.0", "a.1"]
    assert [one.prompt_token_ids for one in core.added] == [prompt, prompt]
    assert core.added[0].params == SamplingParams(**params)
    assert core.added[1].params == SamplingParams(**{**params, "prompt_logprobs": None})
    assert [(one.sample_index, one.max_tokens) for one in core.added] == [(0, 1), (1, 1)]


def test_aborts_and_stop_strings_reach_the_core(playback: Any):
    core = playback(lambda one: [1] * 50)
    line = Line(
        request("a", max_tokens=40), request("b", max_tokens=40), AbortRequests(("a", "zz")), FinishRequest("b", 0, "x")
    )
    stop_when_all_ended(line, "a", "b")
    EngineLoop(core, line.channel).run()
    assert line.ends() == {"a": FinishReason.ABORT, "b": FinishReason.STOP}
    assert core.finished == [("b", 0, "x")]


def test_a_refused_request_ends_with_its_error_and_takes_back_its_samples(playback: Any):
    core = playback(lambda one: [1] * 50)

    def refuse(one: EngineRequest) -> None:
        if one.request_id == "a.2":
            raise RequestError("not this one", param="n")

    core.refuse = refuse
    line = Line(request("a", n=4), request("b", max_tokens=2))
    stop_when_all_ended(line, "a.0", "a.1", "b")
    EngineLoop(core, line.channel).run()
    [refused] = line.of(Refused)
    assert (refused.request_ids, refused.num_added) == (("a.0", "a.1", "a.2", "a.3"), 2)
    error = refused.error.error()
    assert (type(error), str(error), error.param) == (RequestError, "not this one", "n")
    assert line.tokens() == {"b": [1, 1]}


def test_parameters_that_do_not_fit_harm_no_other(playback: Any):
    bad = AddRequest(("bad",), b"\1\0\0\0", b'{"temperature": -5}', None, 1, 0.0, (), 0, (), ())
    line = Line(bad, request("b", max_tokens=1))
    stop_when_all_ended(line, "b")
    EngineLoop(playback(lambda one: [1] * 9), line.channel).run()
    [refused] = line.of(Refused)
    assert refused.error.error().param == "temperature"
    assert line.ends() == {"b": FinishReason.LENGTH}


class Gate:
    """A preparation that waits until it may end."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.error = error
        self.threads: list[str] = []

    def __call__(self, requests: Sequence[EngineRequest]) -> Sequence[EngineRequest]:
        self.threads.append(threading.current_thread().name)
        self.begun.set()
        assert self.may_end.wait(30)
        if self.error is not None:
            raise self.error
        return requests


GRAMMAR = ({"name": "grammar"},)


def test_a_preparation_holds_up_no_step(playback: Any):
    core, gate = playback(lambda one: [1] * 50), Gate()
    line = Line(request("slow", max_tokens=1, logits_processors=GRAMMAR), request("quick", max_tokens=20))

    def look(message: FromEngine) -> None:
        if "quick" in line.ends():
            gate.may_end.set()
        if "slow" in line.ends():
            line.channel.put(Shutdown())

    line.on_send = look
    EngineLoop(core, line.channel, gate).run()
    assert [one.request_id for one in core.added] == ["quick", "slow"]
    assert gate.threads[0].startswith("vcore-prepare")


def test_aborted_while_it_is_prepared_it_never_enters(playback: Any):
    core, gate = playback(lambda one: [1] * 50), Gate()
    line = Line(request("slow", n=2, logits_processors=GRAMMAR))

    def run_beside() -> None:
        assert gate.begun.wait(30)
        line.channel.put(AbortRequests(("slow.0", "slow.1")))

    def look(message: FromEngine) -> None:
        if line.ends() == {"slow.0": FinishReason.ABORT, "slow.1": FinishReason.ABORT}:
            line.channel.put(Shutdown())

    line.on_send = look
    beside = threading.Thread(target=run_beside)
    beside.start()
    EngineLoop(core, line.channel, gate).run()
    gate.may_end.set()
    beside.join()
    assert core.added == []
    assert line.of(Refused) == []


def test_aborted_before_its_turn_it_is_not_prepared_at_all():
    gate, woken = Gate(), threading.Semaphore(0)
    preparation = Preparation(gate, woken.release)
    requests = [request(name, n=2, logits_processors=GRAMMAR).engine_requests() for name in "abcd"]
    for samples in requests:
        preparation.submit(samples)  # two threads take two of them
    assert preparation.abort(["c.0", "d.0", "d.1"]) == ["c.0", "d.0", "d.1"]
    gate.may_end.set()
    for _ in requests:
        assert woken.acquire(timeout=30)
    prepared = [one.request_id for ready in preparation.take() for one in ready.requests]
    assert sorted(prepared) == ["a.0", "a.1", "b.0", "b.1", "c.1"]
    assert len(gate.threads) == 3
    preparation.close()


@pytest.mark.parametrize("error", [RequestError("bad grammar", param="grammar"), KeyError("bug")])
def test_what_cannot_be_prepared_is_refused(playback: Any, error: Exception):
    gate = Gate(error)
    gate.may_end.set()
    line = Line(request("slow", logits_processors=GRAMMAR))
    line.on_send = lambda message: line.channel.put(Shutdown())
    EngineLoop(playback(lambda one: []), line.channel, gate).run()
    [refused] = line.of(Refused)
    assert refused.num_added == 0
    assert str(error) in str(refused.error.error())


def test_a_core_that_dies_says_why_and_waits_until_it_is_heard(playback: Any):
    core = playback(lambda one: [1] * 50)
    core.on_step = lambda: (_ for _ in ()).throw(EngineDeadError("rank 3 is gone"))
    line = Line(request("a"))
    line.on_send = lambda message: line.channel.put(Shutdown())
    EngineLoop(core, line.channel).run()
    assert line.sent == [EngineDied("rank 3 is gone")]
    assert core.is_shut_down


def test_a_bug_in_a_step_is_the_end_too_with_its_kind(playback: Any, caplog: pytest.LogCaptureFixture):
    core = playback(lambda one: [1] * 50)
    core.on_step = lambda: (_ for _ in ()).throw(KeyError("row 7"))
    line = Line(request("a"))
    line.on_send = lambda message: line.channel.put(Shutdown())
    EngineLoop(core, line.channel).run()
    assert line.sent == [EngineDied("KeyError: 'row 7'")]
    assert "row 7" in caplog.text


def test_an_idle_engine_notices_that_its_ranks_are_gone(playback: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_loop, "IDLE_CHECK_S", 0.001)
    core = playback(lambda one: [])
    core.alive = False
    line = Line()
    line.on_send = lambda message: line.channel.put(Shutdown())
    EngineLoop(core, line.channel).run()
    assert line.sent == [EngineDied("rank 0 is gone")]


def test_faults_are_told_when_they_change(playback: Any):
    core = playback(lambda one: [1] * 50)

    def fail() -> None:
        if core.num_steps == 1:
            core.faults, core.failed_steps = ("lru raised",), 2

    core.on_step = fail
    line = Line(request("a", max_tokens=5))
    stop_when_all_ended(line, "a")
    EngineLoop(core, line.channel).run()
    assert line.of(HealthChanged) == [HealthChanged(("lru raised",), 2)]


def test_questions_are_answered_and_their_failures_are_the_askers(playback: Any):
    core = playback(lambda one: [1] * 50)
    core.start_profile = lambda folder: (_ for _ in ()).throw(OSError(f"cannot write {folder}"))
    calls = [Call(i, name) for i, name in enumerate(["stats", "block_map", "reset_prefix_cache", "stop_profile"])]
    line = Line(*calls, Call(9, "start_profile", "/x"), Shutdown())
    EngineLoop(core, line.channel).run()
    stats, block_map, reset, stopped, failed = line.of(Reply)
    assert [reply.serial for reply in line.of(Reply)] == [0, 1, 2, 3, 9]
    assert (stats.stats, block_map.block_map, reset.done) == (core.stats(), core.block_map(), True)
    assert stopped.error is None
    assert core.profile == ["stop"]
    assert str(failed.error.error()) == "OSError: cannot write /x"
