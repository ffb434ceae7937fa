"""The offline engine goes through what the target went through."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

import vcore.engine.llm
from vcore.bench.serve import offline
from vcore.bench.serve.offline import OfflineEngine, OfflineProcess
from vcore.bench.serve.offline_sampling import offline_sampling
from vcore.bench.serve.request import LoadRequest
from vcore.config import EngineConfig, load_config
from vcore.engine.remote.environment import engine_environment
from vcore.errors import ConfigError, EngineError, ModelNotFoundError
from vcore.sampling_params import SamplingParams
from vcore.server.protocol.common import SamplingFields

ON_CPU = load_config(None, {"runtime.device": "cpu"})
ENGINE = OfflineEngine(config=ON_CPU, base_dir=None, temperature=0.5, detokenize=True)


class RecordingLLM:
    """Generates what it is asked for, and remembers it."""

    calls: list[tuple[list[Any], list[Any]]]
    config: EngineConfig

    def __init__(self, *, config: EngineConfig, **_: object) -> None:
        type(self).config = config
        type(self).calls = []

    def __enter__(self) -> RecordingLLM:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def render_chat(self, messages: list[dict[str, Any]]) -> str:
        return f"<user>{messages[0]['content']}"

    def generate(self, prompts: list[Any], params: list[Any], **_: object) -> list[Any]:
        self.calls.append((prompts, params))
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=[0] * one.max_tokens)]) for one in params]


class ScriptedConnection:
    """What the parent sends; and what the child answers."""

    def __init__(self, *lists: Sequence[LoadRequest]) -> None:
        self._lists = [*lists]
        self.answers: list[Any] = []

    def recv(self) -> Sequence[LoadRequest]:
        if not self._lists:
            raise EOFError
        return self._lists.pop(0)

    def send(self, answer: Any) -> None:
        self.answers.append(answer)


@pytest.fixture(autouse=True)
def recording(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vcore.engine.llm, "LLM", RecordingLLM)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("VCORE_TEST_OF_OFFLINE", "before")


def texts(*prompts: str) -> Sequence[LoadRequest]:
    return [LoadRequest(text=prompt, num_output_tokens=3) for prompt in prompts]


def answers(engine: OfflineEngine, *lists: Sequence[LoadRequest], variables: dict[str, str] | None = None) -> list[Any]:
    """Of the child."""
    connection = ScriptedConnection(*lists)
    offline._answer(cast("Any", connection), engine, variables or {})
    return connection.answers


def test_each_list_is_answered_with_its_rate_by_one_engine() -> None:
    device, *rates = answers(ENGINE, texts("w"), texts("a", "b"), texts("c"))
    assert device is True
    assert [prompts for prompts, _ in RecordingLLM.calls] == [["w"], ["a", "b"], ["c"]]
    assert len(rates) == 3
    assert all(rate > 0 for rate in rates)


def test_no_engine_is_made_before_there_are_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vcore.engine.llm, "LLM", None)
    assert answers(ENGINE) == [True]


@pytest.mark.parametrize(("device", "cuda", "is_on_cpu"), [("auto", False, True), ("auto", True, False)])
def test_an_automatic_device_is_cuda_where_there_is_any(
    monkeypatch: pytest.MonkeyPatch, device: str, cuda: bool, is_on_cpu: bool
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    config = load_config(None, {"runtime.device": device})
    assert answers(OfflineEngine(config=config, base_dir=None, temperature=0.0, detokenize=True)) == [is_on_cpu]


def test_a_device_that_is_named_is_taken_at_its_word() -> None:
    config = load_config(None, {"runtime.device": "cuda:1"})
    assert answers(OfflineEngine(config=config, base_dir=None, temperature=0.0, detokenize=True)) == [False]


def test_what_the_engine_refuses_is_the_last_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ConfigError("no such prompt")

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(RecordingLLM, "generate", refuse)
    assert answers(ENGINE, texts("a"), texts("b")) == [True, error]


def test_libraries_are_told_before_anything_is_loaded() -> None:
    answers(ENGINE, variables={"VCORE_TEST_OF_OFFLINE": "told"})
    assert os.environ["VCORE_TEST_OF_OFFLINE"] == "told"


def test_the_parameters_are_those_of_the_target() -> None:
    engine = OfflineEngine(
        config=ON_CPU, base_dir=None, temperature=0.25, detokenize=False, ignore_eos=False, is_chat=True
    )
    messages = [{"role": "user", "content": "there"}]
    answers(engine, [*texts("hello"), LoadRequest(messages=messages, num_output_tokens=5)])
    [(prompts, params)] = RecordingLLM.calls
    assert prompts == ["<user>hello", "<user>there"], "a chat's texts are messages"
    assert [(one.max_tokens, one.temperature, one.ignore_eos, one.detokenize) for one in params] == [
        (3, 0.25, False, False),
        (5, 0.25, False, False),
    ]


def test_fields_of_requests_to_a_server_are_asked_of_the_engine() -> None:
    body = {"top_k": 3, "stop": ["x"], "temperature": None, "ignore_eos": None, "seed": 5, "stream_options": None}
    engine = replace(ENGINE, sampling=offline_sampling(body))
    answers(engine, [LoadRequest(text="a", num_output_tokens=7, priority=4)])
    [(_, [params])] = RecordingLLM.calls
    assert (params.top_k, params.stop, params.seed, params.priority) == (3, ("x",), 5, 4)
    assert (params.temperature, params.ignore_eos, params.max_tokens) == (1.0, False, 7), "what a server does by itself"


@pytest.mark.parametrize(
    ("body", "is_chat", "most"),
    [
        ({}, False, 7),
        ({"max_tokens": 2}, False, 2),
        ({"max_tokens": None}, False, 16),
        ({"max_tokens": None}, True, None),
    ],
)
def test_a_length_of_all_requests(body: dict[str, Any], is_chat: bool, most: int | None) -> None:
    engine = replace(ENGINE, is_chat=is_chat, sampling=offline_sampling(body))
    assert engine.params(LoadRequest(text="a", num_output_tokens=7)).max_tokens == most


def test_what_changes_nothing_of_what_is_computed_is_let_pass() -> None:
    assert offline_sampling({"model": "m", "user": "u", "stream_options": {}, "stream": True}) == {}
    assert offline_sampling({"response_format": None}) == {}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"n": 2}, "'n'"),
        ({"echo": True, "guided_regex": "a"}, "'echo', 'guided_regex'"),
        ({"max_completion_tokens": 3}, "'max_completion_tokens'"),
        ({"logprobs": 3}, "expected some of .*temperature"),
        ({"temperature": -1}, "temperature"),
        ({"min_tokens": 5, "max_tokens": 3}, "min_tokens=5"),
    ],
)
def test_what_the_engine_cannot_be_asked_is_refused(body: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^--extra-body: .*{message}"):
        offline_sampling(body)


def test_every_field_that_is_applied_is_one_of_requests_to_a_server() -> None:
    """By the same name, and with the same meaning."""
    for name in SamplingFields.model_fields.keys() & SamplingParams.model_fields.keys() - {"n"}:
        assert offline_sampling({name: None}) == {name: None}
    unknown = sorted(set(SamplingParams.model_fields) - set(SamplingFields.model_fields) - {"max_tokens"})
    for name in unknown:
        with pytest.raises(ConfigError, match=name):
            offline_sampling({name: 1})


@pytest.mark.parametrize(("own", "limit", "most"), [("auto", 64, 64), (16, 64, 16), (128, 64, 64), (16, None, 16)])
def test_no_more_requests_at_a_time_than_the_target_had(own: Any, limit: int | None, most: int) -> None:
    config = load_config(ON_CPU, {"scheduler.max_num_seqs": own})
    engine = OfflineEngine(config=config, base_dir=None, temperature=0.0, detokenize=True)
    assert engine.limited(limit).config.scheduler.max_num_seqs == most


def test_a_process_says_what_the_engine_says() -> None:
    missing = load_config(ON_CPU, {"model.path": "/no/such/model"})
    engine = OfflineEngine(config=missing, base_dir=None, temperature=0.0, detokenize=True)
    with OfflineProcess(engine) as process:
        assert process.is_on_cpu
        with pytest.raises(ModelNotFoundError, match="/no/such/model"):
            process.rate(texts("a"))
        with pytest.raises(EngineError, match="ended before"):
            process.rate(texts("a"))
    assert process._process.exitcode == 0


def test_a_process_that_is_killed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(offline, "engine_environment", lambda of: seen.append(of) or engine_environment(of))
    with OfflineProcess(ENGINE) as process:
        process._process.kill()
        process._process.join()
        with pytest.raises(EngineError, match="ended before"):
            process.rate(texts("a"))
    assert seen == [os.environ], "it is told what a served engine is told"
