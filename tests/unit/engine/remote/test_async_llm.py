"""`AsyncLLM` over a real engine, in this process and in one of its own: the same must hold for both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from vcore import LLM, AsyncLLM, RequestError, SamplingParams
from vcore.engine.records import EngineStatus, RequestRecord, StepRecord
from vcore.errors import EngineDeadError, RequestTooLargeError
from vcore.outputs import CompletionOutput, RequestOutput
from vcore.structured_output import StructuredOutput
from vcore.tokenizer import Tokenizer

GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
LONG = SamplingParams(temperature=0.0, max_tokens=400, ignore_eos=True)
CONFIG = {"cache": {"num_blocks": 512, "block_size": 4}, "runtime": {"device": "cpu", "num_threads": 1}}


@pytest.fixture(scope="module")
def offline(tiny: str) -> Iterator[LLM]:
    with LLM(tiny, config=CONFIG) as llm:
        yield llm


async def collect(outputs: AsyncGenerator[RequestOutput, None]) -> list[RequestOutput]:
    return [output async for output in outputs]


async def settle(llm: AsyncLLM) -> None:
    """Until the engine has heard everything and come to rest; then no block may be in use."""
    while (stats := await llm.stats()).running or stats.waiting:
        pass
    assert (stats.used_blocks, llm.num_unfinished()) == (0, 0)


def joined(outputs: list[RequestOutput]) -> list[CompletionOutput]:
    """The whole samples that deltas add up to."""
    whole: dict[int, CompletionOutput] = {}
    for output in outputs:
        for new in output.outputs:
            assert new.token_ids or new.finished
            sample = whole.setdefault(new.index, CompletionOutput(new.index, "", []))
            assert not sample.finished, "a sample came again after its end"
            sample.text += new.text
            sample.token_ids += new.token_ids
            if new.logprobs is not None:
                sample.logprobs = (sample.logprobs or []) + new.logprobs
            sample.cumulative_logprob = new.cumulative_logprob
            sample.finish_reason, sample.stop_reason = new.finish_reason, new.stop_reason
    return [whole[index] for index in sorted(whole)]


PARAMS = {
    "greedy": GREEDY,
    "samples": SamplingParams(n=3, seed=7, max_tokens=9, logprobs=2),
    "prompt logprobs": SamplingParams(temperature=0.0, max_tokens=3, logprobs=1, prompt_logprobs=2),
    "everything": SamplingParams(
        seed=2**70,
        top_p=0.9,
        top_k=50,
        min_p=0.01,
        presence_penalty=0.5,
        repetition_penalty=1.1,
        logit_bias={5: -3.0, 7: 2.0},
        bad_words=("a",),
        stop_token_ids=(3,),
        stop=("zz", "\u00e9"),
        priority=3,
        cache_salt="salt",
        max_tokens=10**20,
    ),
}


@pytest.mark.parametrize("name", PARAMS)
def test_outputs_are_those_of_llm_in_every_mode(llm: AsyncLLM, runner: asyncio.Runner, offline: LLM, name: str):
    params = PARAMS[name]
    [expected] = offline.generate("Grüße aus Köln", params, progress=False)
    for mode in ("final", "cumulative", "delta"):
        outputs = runner.run(collect(llm.generate("Grüße aus Köln", params, mode=mode, request_id="a")))
        last = outputs[-1]
        samples = joined(outputs) if mode == "delta" else last.outputs
        assert samples == expected.outputs
        assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]
        assert (last.request_id, last.prompt, last.prompt_token_ids) == (
            "a",
            expected.prompt,
            expected.prompt_token_ids,
        )
        told = [one.prompt_logprobs for one in outputs] if mode == "delta" else [last.prompt_logprobs]
        prompt_logprobs = [entry for part in told if part is not None for entry in part]
        assert prompt_logprobs == (expected.prompt_logprobs or [])
        assert last.metrics is not None
        assert last.metrics.ttft is not None
        if mode == "final":
            assert len(outputs) == 1


def test_a_stop_string_ends_it_here_and_in_the_engine(llm: AsyncLLM, runner: asyncio.Runner, offline: LLM):
    [free] = offline.generate("abc", LONG, progress=False)
    text = free.outputs[0].text
    stop = text[20:23]
    params = LONG.model_copy(update={"stop": (stop,)})
    [expected] = offline.generate("abc", params, progress=False)
    [sample] = joined(runner.run(collect(llm.generate("abc", params, mode="delta"))))
    assert sample == expected.outputs[0]
    assert (sample.text, sample.stop_reason) == (text[: text.index(stop)], stop)
    runner.run(settle(llm))


def test_what_is_wrong_with_a_request_is_said_at_the_first_output(llm: AsyncLLM, runner: asyncio.Runner):
    def error(prompt: Any, params: Any = GREEDY, **options: Any) -> RequestError:
        outputs = llm.generate(prompt, params, **options)
        with pytest.raises(RequestError) as caught:
            runner.run(collect(outputs))
        return caught.value

    assert error([1, 999]).param == "prompt_token_ids"
    assert error({"text": "x"}).param == "prompt"
    assert error("x" * 5000).param == "prompt"  # tokenised in a thread
    assert isinstance(error([1] * 600), RequestTooLargeError)
    assert error("x", GREEDY, mode="deltas").param == "mode"
    assert error("x", {"max_tokens": 3}).param == "params"
    unchecked = SamplingParams().model_copy(update={"tenant": "\ud800"})
    assert "cannot be sent to the engine" in str(error("x", unchecked))
    assert error("x", SamplingParams(logits_processors=({"name": "nope"},))).param == "logits_processors"
    runner.run(settle(llm))


def test_a_request_that_the_engine_refuses_harms_no_other(runner: asyncio.Runner, tiny: str):
    """It fits the model's length, which is known here, but not the cache, which the engine knows."""

    async def check(llm: AsyncLLM) -> None:
        async with llm:
            other = asyncio.create_task(collect(llm.generate([1, 2], GREEDY, mode="final")))
            with pytest.raises(RequestTooLargeError, match="cache blocks") as caught:
                await collect(llm.generate([1, 2], LONG.model_copy(update={"n": 3}), request_id="big"))
            assert caught.value.param == "max_tokens"
            [output] = await other
            assert len(output.outputs[0].token_ids) == 12
            assert len(await collect(llm.generate([1, 2], GREEDY, request_id="big", mode="final"))) == 1
            await settle(llm)

    small = {**CONFIG, "cache": {"num_blocks": 16, "block_size": 4}}
    runner.run(check(AsyncLLM(tiny, config=small, in_process=True)))


def test_ids_are_unique_among_open_requests_and_free_again_at_once(llm: AsyncLLM, runner: asyncio.Runner):
    async def check() -> None:
        first = llm.generate([1], LONG, request_id="same", mode="delta")
        await anext(first)
        with pytest.raises(RequestError, match="'same' is open already") as caught:
            await collect(llm.generate([1], GREEDY, request_id="same"))
        assert caught.value.param == "request_id"
        # The end of the first has not been told by the engine when the second comes, and must not end that.
        await first.aclose()
        [output] = await collect(llm.generate([1], GREEDY, request_id="same", mode="final"))
        assert (output.request_id, output.outputs[0].finish_reason) == ("same", "length")
        await settle(llm)

    runner.run(check())


def test_abort_ends_a_request_for_who_waits_for_it(llm: AsyncLLM, runner: asyncio.Runner):
    async def check() -> None:
        outputs = llm.generate([1, 2], LONG.model_copy(update={"n": 2}), request_id="r", mode="cumulative")
        await anext(outputs)
        await llm.abort("r")
        await llm.abort("nobody")
        last = (await collect(outputs))[-1]
        assert last.finished
        assert {sample.finish_reason for sample in last.outputs} == {"abort"}
        await settle(llm)

    runner.run(check())


@pytest.mark.parametrize("how", ["close", "cancel", "break"])
def test_who_stops_waiting_frees_the_blocks_at_once(llm: AsyncLLM, runner: asyncio.Runner, how: str):
    async def check() -> None:
        outputs = llm.generate([1, 2, 3], LONG.model_copy(update={"n": 2}))
        await anext(outputs)
        assert (await llm.stats()).used_blocks > 0
        if how == "close":
            await outputs.aclose()
        elif how == "cancel":
            task = asyncio.create_task(collect(outputs))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        else:
            del outputs
            async with asyncio.timeout(10):  # asyncio closes what was dropped, a few turns later
                while llm.num_unfinished():
                    await asyncio.sleep(0)
        assert llm.num_unfinished() == 0
        # The messages are read in their order: the answer comes after the abort.
        stats = await llm.stats()
        assert (stats.running, stats.waiting, stats.used_blocks) == (0, 0, 0)

    runner.run(check())


def test_cancelled_anywhere_nothing_is_left(llm: AsyncLLM, runner: asyncio.Runner):
    async def check() -> None:
        for prompt in ([5, 6, 7], "x" * 4100 + "y"):  # the latter goes through a thread, and is too long
            for ticks in range(12):
                task = asyncio.create_task(collect(llm.generate(prompt, LONG)))
                for _ in range(ticks):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert llm.num_unfinished() == 0
        await settle(llm)

    runner.run(check())


def test_a_generator_that_nobody_started_does_nothing(llm: AsyncLLM, runner: asyncio.Runner):
    async def check() -> None:
        outputs = llm.generate([10**9], GREEDY)
        await outputs.aclose()
        assert llm.num_unfinished() == 0

    runner.run(check())


def test_a_thousand_requests_a_third_of_them_dropped(llm: AsyncLLM, runner: asyncio.Runner, offline: LLM):
    params = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)
    expected = [one.outputs[0].token_ids for one in offline.generate([[i] for i in range(50)], params, progress=False)]

    async def one(index: int) -> None:
        outputs = llm.generate([index % 50], params, mode=("delta", "final", "cumulative")[index % 3])
        if index % 3 == 0 and index % 2 == 0:
            await anext(outputs)
            await outputs.aclose()
            return
        got = await collect(outputs)
        [sample] = joined(got) if index % 3 == 0 else got[-1].outputs
        assert sample.token_ids == expected[index % 50]

    async def check() -> None:
        await asyncio.gather(*map(one, range(1000)))
        await settle(llm)

    runner.run(check())


class Recorder:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.steps: list[StepRecord] = []
        self.finished: list[RequestRecord] = []
        self.states: list[EngineStatus] = []

    def on_step(self, record: StepRecord) -> None:
        self.steps.append(record)

    def on_finished(self, record: RequestRecord) -> None:
        self.finished.append(record)

    def on_engine(self, status: EngineStatus) -> None:
        self.states.append(status)


def test_listeners_hear_of_steps_and_of_every_end(llm: AsyncLLM, runner: asyncio.Runner):
    heard = Recorder()
    llm.add_listener(heard)

    async def check() -> None:
        await llm.reset_prefix_cache()
        params = SamplingParams(n=2, max_tokens=5, ignore_eos=True, priority=4)
        await collect(llm.generate(list(range(1, 18)), params, request_id="whole"))
        dropped = llm.generate([1], LONG, request_id="dropped")
        await anext(dropped)
        await dropped.aclose()
        await settle(llm)

    runner.run(check())
    whole, dropped = heard.finished
    assert (whole.request_id, whole.priority, whole.num_prompt_tokens, whole.num_output_tokens) == ("whole", 4, 17, 10)
    assert (whole.finish_reasons, whole.params.n) == (("length", "length"), 2)
    assert whole.metrics.first_scheduled_time is not None
    assert whole.metrics.finished_time is not None
    assert (dropped.request_id, dropped.finish_reasons) == ("dropped", ("abort",))
    assert dropped.num_output_tokens >= 1
    computed = [step for step in heard.steps if step.index]
    assert [step.index for step in computed] == list(range(computed[0].index, computed[0].index + len(computed)))
    assert all(step.start <= step.end for step in computed)
    assert all(one.end <= two.start for one, two in zip(heard.steps, heard.steps[1:], strict=False))
    # 17 tokens of the first sample, and what of them the second one could not take from its blocks.
    assert computed[0].num_prompt_tokens >= 17
    assert max(step.num_decodes for step in computed) == 2
    assert computed[0].num_requests >= 1
    assert llm.last_stats() == heard.steps[-1].stats
    first = [latency for step in heard.steps for latency in step.first_token_latencies]
    assert first == [whole.metrics.ttft, dropped.metrics.ttft]
    gaps = [latency for step in heard.steps for latency in step.inter_token_latencies]
    assert gaps == [*whole.metrics.inter_token_latencies, *dropped.metrics.inter_token_latencies]
    assert len(whole.metrics.inter_token_latencies) == 4


def test_a_listener_that_raises_hears_no_more(llm: AsyncLLM, runner: asyncio.Runner, caplog: pytest.LogCaptureFixture):
    class Broken(Recorder):
        def on_step(self, record: StepRecord) -> None:
            super().on_step(record)
            raise ValueError("broken listener")

    broken, other = Broken(), Recorder()
    llm.add_listener(broken)
    llm.add_listener(other)
    [output] = runner.run(collect(llm.generate([1], GREEDY, mode="final")))
    assert output.finished
    assert len(broken.steps) == 1
    assert len(other.steps) > 1
    assert "broken listener" in caplog.text


def test_questions(llm: AsyncLLM, runner: asyncio.Runner, tiny: str, offline: LLM):
    async def check() -> None:
        await collect(llm.generate(list(range(40)), GREEDY))
        block_map = await llm.block_map()
        stats = await settled_stats()
        assert (block_map.num_blocks, block_map.block_size) == (512, 4)
        assert (block_map.used, block_map.free, block_map.cached) == (0, 511, stats.cached_blocks)
        assert stats.cached_blocks >= 10
        assert block_map.states.count(2) == stats.cached_blocks
        assert await llm.reset_prefix_cache()
        assert set((await llm.block_map()).states) == {0}
        running = llm.generate(list(range(40)), LONG)
        await anext(running)
        states = (await llm.block_map()).states
        assert states.count(3) >= 10  # used, and found by others
        assert states[0] == 0
        await running.aclose()

    async def settled_stats() -> Any:
        await settle(llm)
        return await llm.stats()

    runner.run(check())
    assert (llm.vocab_size, llm.max_model_len) == (260, 512)
    assert llm.config.model.path == tiny
    assert llm.config.cache.num_blocks == 512
    assert llm.decode(llm.encode("Köln")) == "Köln"
    for engine in (llm, offline):
        assert engine.render_chat([{"role": "user", "content": "hi"}])["prompt"] == "<user>hi"
        with pytest.raises(RequestTooLargeError, match="has 100006 characters") as caught:
            engine.render_chat([{"role": "user", "content": "x" * 100_000}])
        assert caught.value.param == "messages"
    assert {plugin.kind for plugin in llm.plugins.plugins} >= {"model", "attention_backend", "scheduling_policy"}
    assert llm.catalog.entries
    assert llm.health().state == "ready"


def test_a_profile_is_taken(llm: AsyncLLM, runner: asyncio.Runner, tmp_path: Any):
    from vcore.errors import EngineError

    async def check() -> None:
        with pytest.raises(EngineError, match="no profile"):
            await llm.stop_profile()
        assert await llm.start_profile(tmp_path / "traces") == tmp_path / "traces"
        with pytest.raises(EngineError, match="already"):
            await llm.start_profile()
        await collect(llm.generate([1], GREEDY, mode="final"))
        await llm.stop_profile()

    runner.run(check())
    assert list((tmp_path / "traces").iterdir())


def test_before_its_start_and_after_its_end(runner: asyncio.Runner, tiny: str, tmp_path: Any):
    async def ask_everything(llm: AsyncLLM) -> None:
        async with asyncio.timeout(30):
            for ask in (llm.stats, llm.block_map, llm.reset_prefix_cache, lambda: llm.start_profile(tmp_path)):
                with pytest.raises(EngineDeadError, match=r"the engine is (starting|closed)"):
                    await ask()

    llm = AsyncLLM(tiny, config=CONFIG, in_process=True)
    runner.run(ask_everything(llm))
    assert llm.health().state == "starting"
    assert llm.num_unfinished() == 0
    with pytest.raises(EngineDeadError, match="await start"):
        runner.run(collect(llm.generate([1])))
    with pytest.raises(EngineDeadError, match="await start"):
        _ = llm.config
    runner.run(llm.close())
    runner.run(llm.close())
    assert llm.health().state == "closed"
    runner.run(ask_everything(llm))
    with pytest.raises(EngineDeadError, match="closed"):
        runner.run(collect(llm.generate([1])))


def test_the_section_of_the_server_is_kept_here(llm: AsyncLLM) -> None:
    assert llm.config.server.port == 1
    assert llm.config.server.api_keys[0].get_secret_value() == "hush"


SPREADING = "start: s\ns: {}\n{}".format(
    " | ".join(f'"a" s{i}' for i in range(60)), "".join(f's{i}: "a" s | "a" s{i}\n' for i in range(60))
)
"""A grammar that needs more memory with each letter."""


def test_a_form_that_becomes_too_complex_ends_its_own_request(llm: AsyncLLM, runner: asyncio.Runner) -> None:
    async def main() -> None:
        form = SamplingParams(structured_output=StructuredOutput(grammar=SPREADING), max_tokens=100)
        alone = await collect(llm.generate("abc", LONG, mode="final"))
        bad, good = await asyncio.gather(
            collect(llm.generate("x", form, mode="final")), collect(llm.generate("abc", LONG, mode="final"))
        )
        sample = bad[-1].outputs[0]
        assert (sample.finish_reason, sample.error_param) == ("error", "structured_output.grammar")
        assert "cannot be enforced any further" in str(sample.stop_reason)
        assert set(sample.text) == {"a"}
        assert good[-1].outputs[0].token_ids == alone[-1].outputs[0].token_ids
        assert good[-1].outputs[0].error_param is None
        await settle(llm)

    runner.run(main())


@pytest.mark.parametrize("mode", ["final", "delta"])
def test_many_logprobs_of_a_prompt_do_not_hold_the_event_loop(
    llm: AsyncLLM, runner: asyncio.Runner, offline: LLM, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True, prompt_logprobs=4)
    prompt = [index % 250 for index in range(500)]
    [expected] = offline.generate(prompt, params, progress=False)
    threads: list[threading.Thread] = []
    id_to_text = Tokenizer.id_to_text

    def recorded(self: Tokenizer, token_id: int) -> str:
        threads.append(threading.current_thread())
        return id_to_text(self, token_id)

    monkeypatch.setattr(Tokenizer, "id_to_text", recorded)

    async def main() -> None:
        outputs = await collect(llm.generate(prompt, params, mode=mode))
        found = [one for output in outputs for one in output.prompt_logprobs or ()]
        assert found == expected.prompt_logprobs
        assert len(threads) >= 4 * 499
        assert threading.current_thread() not in threads
        await settle(llm)

    runner.run(main())
