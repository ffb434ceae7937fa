"""The offline engine goes through what the target went through."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

import vcore.engine.llm
from vcore.bench.serve import offline
from vcore.bench.serve.offline import OfflineEngine, measure_offline
from vcore.bench.serve.request import LoadRequest
from vcore.config import EngineConfig, load_config
from vcore.engine.remote.environment import engine_environment

ENGINE = OfflineEngine(config=EngineConfig(), base_dir=None, temperature=0.5, detokenize=True)


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


class Inline:
    """In the place of a pool of processes."""

    variables: dict[str, str]

    def __init__(self, *_: object, initializer: object, initargs: tuple[dict[str, str]]) -> None:
        [type(self).variables] = initargs

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function: Any, *arguments: Any) -> Any:
        result = function(*arguments)
        return SimpleNamespace(result=lambda: result)


@pytest.fixture(autouse=True)
def recording(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vcore.engine.llm, "LLM", RecordingLLM)
    monkeypatch.setattr(offline, "ProcessPoolExecutor", Inline)


def texts(*prompts: str) -> Sequence[LoadRequest]:
    return [LoadRequest(text=prompt, num_output_tokens=3) for prompt in prompts]


def test_the_same_warm_up_then_every_run_in_its_order() -> None:
    rates = measure_offline(ENGINE, [texts("a", "b"), texts("c")], warm_up=texts("w"))
    assert [prompts for prompts, _ in RecordingLLM.calls] == [["w"], ["a", "b"], ["c"]]
    assert len(rates) == 2
    assert all(rate > 0 for rate in rates)


def test_libraries_are_told_what_a_served_engine_tells_them() -> None:
    measure_offline(ENGINE, [texts("a")])
    assert Inline.variables == engine_environment(os.environ)


def test_no_warm_up_if_the_target_had_none() -> None:
    measure_offline(ENGINE, [texts("a")])
    assert [prompts for prompts, _ in RecordingLLM.calls] == [["a"]]


def test_the_parameters_are_those_of_the_target() -> None:
    engine = OfflineEngine(
        config=EngineConfig(), base_dir=None, temperature=0.25, detokenize=False, ignore_eos=False, is_chat=True
    )
    messages = [{"role": "user", "content": "there"}]
    measure_offline(engine, [[*texts("hello"), LoadRequest(messages=messages, num_output_tokens=5)]])
    [(prompts, params)] = RecordingLLM.calls
    assert prompts == ["<user>hello", "<user>there"], "a chat's texts are messages"
    assert [(one.max_tokens, one.temperature, one.ignore_eos, one.detokenize) for one in params] == [
        (3, 0.25, False, False),
        (5, 0.25, False, False),
    ]


@pytest.mark.parametrize(("own", "limit", "most"), [("auto", 64, 64), (16, 64, 16), (128, 64, 64)])
def test_no_more_requests_at_a_time_than_the_target_had(own: Any, limit: int, most: int) -> None:
    config = load_config(None, {"scheduler.max_num_seqs": own})
    engine = OfflineEngine(config=config, base_dir=None, temperature=0.0, detokenize=True)
    measure_offline(engine, [texts("a")], max_concurrency=limit)
    assert RecordingLLM.config.scheduler.max_num_seqs == most
