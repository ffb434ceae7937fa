"""Who asks for outputs more slowly than they come: nothing queues up, and nothing is missed."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from vcore import RestartPolicy, SamplingParams
from vcore.errors import EngineDeadError

PARAMS = SamplingParams(max_tokens=60, logprobs=1, n=2)


def test_deltas_merge_and_none_is_lost(make_fake: Any):
    llm, core = make_fake()
    may_go_on = threading.Event()
    core.on_step = lambda: core.num_steps < 1 or may_go_on.wait(30)

    async def check() -> None:
        async with llm:
            outputs = llm.generate([1, 2], PARAMS, mode="delta")
            first = await anext(outputs)
            assert [sample.text for sample in first.outputs] == ["a", "a"]
            may_go_on.set()
            while llm.num_unfinished():
                await asyncio.sleep(0)
            [rest] = [output async for output in outputs]
            assert rest.finished
            for sample in rest.outputs:
                assert sample.text == "bcdefghij" + "abcdefghij" * 5
                assert (len(sample.token_ids), len(sample.logprobs or []), sample.finish_reason) == (59, 59, "length")

    asyncio.run(check())


def test_a_sample_that_has_ended_does_not_come_again(make_fake: Any):
    lengths = {"r.0": 2, "r.1": 5}
    llm, _ = make_fake(lambda request: [97] * (lengths[request.request_id] - 1) + [3])

    async def check() -> None:
        async with llm:
            params = SamplingParams(max_tokens=9, n=2, stop_token_ids=(3,))
            seen: dict[int, int] = {0: 0, 1: 0}
            ends = []
            async for output in llm.generate([1], params, mode="delta", request_id="r"):
                for sample in output.outputs:
                    seen[sample.index] += len(sample.token_ids)
                    ends += [sample.index] if sample.finished else []
            assert (seen, ends) == ({0: 2, 1: 5}, [0, 1])

    asyncio.run(check())


def test_what_is_kept_of_a_stream_of_deltas_does_not_grow(make_fake: Any):
    llm, _ = make_fake()

    async def check() -> None:
        async with llm:
            async for output in llm.generate([1, 2], SamplingParams(max_tokens=90), mode="delta", request_id="r"):
                if output.finished:
                    return
                state = llm._session.requests._requests["r"].state
                assert len(state.samples[0].token_ids) <= 2
                assert len(state.samples[0].detokenizer._text) <= 2

    asyncio.run(check())


def test_the_engines_death_is_told_after_what_had_come(make_fake: Any):
    llm, core = make_fake(restart=RestartPolicy(enabled=False))

    def die() -> None:
        if core.num_steps == 3:
            raise EngineDeadError("rank 2 is gone")

    core.on_step = die

    async def check() -> None:
        async with llm:
            outputs = llm.generate([1, 2], SamplingParams(max_tokens=60), mode="delta")
            text = (await anext(outputs)).outputs[0].text
            while llm.num_unfinished():
                await asyncio.sleep(0)

            async def read_on() -> None:
                nonlocal text
                async for output in outputs:
                    text += output.outputs[0].text

            with pytest.raises(EngineDeadError, match="rank 2 is gone"):
                await read_on()
            assert text == "abc"
            assert llm.health().state == "dead"
            with pytest.raises(EngineDeadError, match="rank 2 is gone"):
                await llm.stats()

    asyncio.run(check())
