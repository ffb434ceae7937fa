"""Without a server: what the engine yields is counted, and its failures have kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from vcore.bench.serve.in_process import InProcessTarget
from vcore.bench.serve.record import RequestRecord
from vcore.bench.serve.request import LoadRequest
from vcore.bench.serve.target import TargetError
from vcore.config import EngineConfig
from vcore.errors import EngineDeadError, RequestError
from vcore.outputs import CompletionOutput, RequestMetrics, RequestOutput
from vcore.sampling_params import SamplingParams


def output(token_ids: list[int], *, finish: str | None = None, stop_reason: str | None = None) -> RequestOutput:
    completion = CompletionOutput(0, "", token_ids, finish_reason=finish, stop_reason=stop_reason)
    metrics = RequestMetrics(arrival_time=1.0, first_scheduled_time=1.25)
    return RequestOutput("r", None, [1, 2, 3], [completion], finish is not None, num_cached_tokens=2, metrics=metrics)


class FakeEngine:
    """Yields what a test tells it to, and raises what is no output."""

    def __init__(self, script: Sequence[RequestOutput | Exception]) -> None:
        self._script = script
        self.calls: list[tuple[object, SamplingParams | None]] = []
        self.states: list[str] = []
        self.config = EngineConfig.model_validate({"model": {"path": "tiny"}})
        self.vocab_size = 97
        self.max_model_len = 64

    async def start(self) -> None:
        self.states.append("started")

    async def close(self) -> None:
        self.states.append("closed")

    def render_chat(self, conversation: Any, **_: Any) -> Any:
        return {"prompt_token_ids": [len(conversation)]}

    async def generate(
        self, prompt: object, params: SamplingParams | None = None, *, mode: str
    ) -> AsyncGenerator[RequestOutput]:
        assert mode == "delta"
        self.calls.append((prompt, params))
        for one in self._script:
            if isinstance(one, Exception):
                raise one
            yield one


def run(
    script: Sequence[RequestOutput | Exception], request: LoadRequest | None = None
) -> tuple[RequestRecord, FakeEngine]:
    engine, record = FakeEngine(script), RequestRecord(due=0.0)

    async def main() -> None:
        async with InProcessTarget(engine, temperature=0.25) as target:
            info = target.info()
            assert (info.model, info.vocab_size, info.max_model_len) == ("tiny", 97, 64)
            try:
                await target.run(request or LoadRequest(token_ids=[1, 2, 3], num_output_tokens=4, priority=2), record)
            except TargetError as error:
                record.error, record.message = error.kind, str(error)

    asyncio.run(main())
    assert engine.states == ["started", "closed"]
    return record, engine


def test_tokens_are_counted_as_they_come() -> None:
    record, engine = run([output([]), output([5]), output([6, 7]), output([8], finish="length")])
    assert record.error is None
    assert record.counts == [1, 2, 1]
    assert (record.num_output_tokens, record.num_prompt_tokens, record.num_cached_tokens) == (4, 3, 2)
    assert record.finish_reason == "length"
    assert record.queue_s == 0.25
    [(prompt, params)] = engine.calls
    assert prompt == {"prompt_token_ids": [1, 2, 3]}
    assert params == SamplingParams(temperature=0.25, max_tokens=4, ignore_eos=True, detokenize=False, priority=2)


def test_texts_and_conversations_are_prompts_too() -> None:
    done = [output([5], finish="length")]
    _, engine = run(done, LoadRequest(text="words", num_output_tokens=1))
    assert engine.calls[0][0] == "words"
    _, engine = run(done, LoadRequest(messages=[{}, {}], num_output_tokens=1))
    assert engine.calls[0][0] == {"prompt_token_ids": [2]}


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ([RequestError("too long")], "RequestError", "too long"),
        ([output([1]), EngineDeadError("killed")], "EngineDeadError", "killed"),
        ([output([1], finish="error", stop_reason="a processor raised")], "error", "a processor raised"),
        ([output([1], finish="abort")], "abort", "None"),
        ([output([1])], "cut", "ended before the request"),
    ],
)
def test_failures_have_kinds(script: list[RequestOutput | Exception], kind: str, message: str) -> None:
    record, _ = run(script)
    assert record.error == kind
    assert message in str(record.message)
    assert record.num_output_tokens == record.num_counted
