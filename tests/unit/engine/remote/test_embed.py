"""`AsyncLLM.embed`: the same vectors as offline, across the border; what ends it early; what listeners hear."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from vcore import LLM, AsyncLLM, EmbeddingOutput, PoolingParams, RequestError, SamplingParams
from vcore.engine.records import EngineStatus, RequestRecord, StepRecord
from vcore.errors import EngineDeadError, RequestTooLargeError

CONFIG = {
    "model": {"pooling": "mean"},
    "cache": {"num_blocks": 512, "block_size": 4},
    "runtime": {"device": "cpu", "num_threads": 1},
}
PROMPTS: list[Any] = ["the sky is blue", [1, 2, 3], "a" * 300, {"prompt_token_ids": [7] * 40}]
RAW = PoolingParams(normalize=False)


async def all_of(llm: AsyncLLM, prompts: list[Any], params: PoolingParams | None = None) -> list[EmbeddingOutput]:
    return list(await asyncio.gather(*(llm.embed(prompt, params) for prompt in prompts)))


def check_idle(runner: asyncio.Runner, llm: AsyncLLM) -> None:
    async def settle() -> None:
        while (stats := await llm.stats()).running or stats.waiting:
            pass
        assert (stats.used_blocks, llm.num_unfinished()) == (0, 0)

    runner.run(settle())


def test_vectors_are_those_of_an_engine_offline(runner: asyncio.Runner, llm: AsyncLLM, tiny: str) -> None:
    with LLM(tiny, config=CONFIG) as offline:
        expected = [offline.embed(prompt, RAW, progress=False)[0] for prompt in PROMPTS]
    found = runner.run(all_of(llm, PROMPTS, RAW))
    for one, other in zip(found, expected, strict=True):
        assert one.embedding is not None
        assert other.embedding is not None
        np.testing.assert_allclose(one.embedding, other.embedding, rtol=1e-5, atol=1e-5)
        assert (one.prompt, one.prompt_token_ids) == (other.prompt, other.prompt_token_ids)
        assert one.metrics is not None
        assert one.metrics.queue_time is not None
        assert one.metrics.ttft is None
    [short] = runner.run(all_of(llm, PROMPTS[:1], PoolingParams(dimensions=8)))
    assert short.embedding is not None
    assert (short.embedding.shape, np.linalg.norm(short.embedding)) == ((8,), pytest.approx(1.0))
    check_idle(runner, llm)


def test_it_shares_the_engine_with_texts(runner: asyncio.Runner, llm: AsyncLLM) -> None:
    greedy = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True)

    async def text() -> list[int]:
        return [output async for output in llm.generate("once", greedy, mode="final")][-1].outputs[0].token_ids

    async def both() -> tuple[list[int], list[EmbeddingOutput]]:
        found = await asyncio.gather(text(), all_of(llm, PROMPTS))
        return found[0], found[1]

    alone = runner.run(text())
    mixed, embedded = runner.run(both())
    assert mixed == alone
    assert all(output.finish_reason == "stop" for output in embedded)
    check_idle(runner, llm)


@pytest.mark.parametrize(
    ("prompt", "params", "error", "says"),
    [
        ("", None, RequestError, "empty"),
        ([5] * 513, None, RequestTooLargeError, "max_model_len=512"),
        ("a", PoolingParams(dimensions=33), RequestError, "have 32"),
        ("a", SamplingParams(), RequestError, "must be a PoolingParams"),
    ],
)
def test_what_is_wrong_is_refused(
    runner: asyncio.Runner, llm: AsyncLLM, prompt: Any, params: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        runner.run(llm.embed(prompt, params))
    check_idle(runner, llm)


def test_cancelling_frees_what_it_had(runner: asyncio.Runner, llm: AsyncLLM) -> None:
    async def leave() -> None:
        tasks = [asyncio.create_task(llm.embed([index] * 500)) for index in range(6)]
        while llm.num_unfinished() < 6:
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    runner.run(leave())
    check_idle(runner, llm)
    assert runner.run(llm.embed("after that")).embedding is not None


class Listener:
    def __init__(self) -> None:
        self.records: list[RequestRecord] = []

    def on_step(self, record: StepRecord) -> None:
        assert record.num_output_tokens == 0

    def on_finished(self, record: RequestRecord) -> None:
        self.records.append(record)

    def on_engine(self, status: EngineStatus) -> None:
        """Nothing."""


def test_listeners_hear_what_it_was(make_fake: Any) -> None:
    async def run() -> tuple[EmbeddingOutput, list[RequestRecord]]:
        fake, _ = make_fake()
        listener = Listener()
        fake.add_listener(listener)
        async with fake:
            return await fake.embed([3, 4, 5, 6], RAW, request_id="mine"), listener.records

    output, [record] = asyncio.run(run())
    assert output.embedding is not None
    assert output.embedding.tolist() == [3.0, 4.0, 5.0]
    assert (record.request_id, record.num_prompt_tokens, record.num_output_tokens) == ("mine", 4, 0)
    assert (record.pooling, record.finish_reasons, record.metrics.ttft) == (RAW, ("stop",), None)


def test_one_that_fails_or_is_aborted_has_no_vector(make_fake: Any) -> None:
    at_step, may_step = threading.Event(), threading.Event()

    def hold() -> None:
        at_step.set()
        may_step.wait()

    async def run() -> list[EmbeddingOutput]:
        fake, core = make_fake()
        core.errors["bad"], core.on_step = "not finite", hold
        async with fake:
            tasks = [asyncio.create_task(fake.embed("a", request_id="bad"))]
            await asyncio.to_thread(at_step.wait)
            tasks.append(asyncio.create_task(fake.embed("a", request_id="gone")))
            while fake.num_unfinished() < 2:
                await asyncio.sleep(0)
            await fake.abort("gone")  # before the engine has heard of it
            may_step.set()
            return list(await asyncio.gather(*tasks))

    failed, aborted = asyncio.run(run())
    assert (failed.embedding, failed.finish_reason, failed.error) == (None, "error", "not finite")
    assert (aborted.embedding, aborted.finish_reason, aborted.error) == (None, "abort", "the request was aborted")


def test_an_engine_that_dies_takes_it_along(make_fake: Any) -> None:
    async def run() -> None:
        fake, core = make_fake()

        def die() -> None:
            raise EngineDeadError("rank 0 is gone")

        core.on_step = die
        async with fake:
            await fake.embed("a")

    with pytest.raises(EngineDeadError, match="rank 0 is gone"):
        asyncio.run(run())
