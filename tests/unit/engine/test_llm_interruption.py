"""Nothing is left behind: Ctrl-C, exceptions, dropped streams, and several callers at once."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from vcore.engine.interrupts import deferred_interrupt
from vcore.errors import EngineDeadError, EngineError
from vcore.sampling_params import SamplingParams

TEN = SamplingParams(max_tokens=10)


def at_step(core: Any, number: int, action: Callable[[], object]) -> None:
    """Do `action` at the beginning of the core's step `number`, counted from 1."""

    def on_step() -> None:
        if core.num_steps == number - 1:
            core.on_step = lambda: None
            action()

    core.on_step = on_step


def assert_clean(llm: Any, core: Any, num_aborted: int) -> None:
    assert len(core.aborted) == num_aborted
    assert not core.has_unfinished
    core.aborted.clear()
    [output] = llm.generate("again", SamplingParams(max_tokens=3))
    assert len(output.outputs[0].token_ids) == 3


def test_ctrl_c_takes_effect_after_the_step_and_withdraws_the_call(make_llm: Any) -> None:
    llm, core = make_llm()
    at_step(core, 3, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        llm.generate(["a", "b"], SamplingParams(max_tokens=10, n=2))
    given = [token for _, _, token in core.running.values()]
    assert given == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert_clean(llm, core, 4)


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), EngineDeadError("a rank is gone"), RuntimeError("a bug")],
    ids=lambda e: type(e).__name__,
)
def test_an_exception_in_a_step_withdraws_the_call(make_llm: Any, error: BaseException) -> None:
    llm, core = make_llm()

    def fail() -> None:
        raise error

    at_step(core, 2, fail)
    with pytest.raises(type(error)):
        llm.generate(["a", "b"], TEN)
    assert_clean(llm, core, 2)


def test_an_engine_that_stays_dead_is_what_the_caller_hears_of(make_llm: Any) -> None:
    llm, core = make_llm()

    def fail() -> None:
        raise EngineDeadError("a rank is gone")

    core.on_step = fail
    with pytest.raises(EngineDeadError, match="a rank is gone"):
        llm.generate("a", TEN)


def test_a_core_that_never_finishes_a_request_is_an_error_not_a_hang(make_llm: Any) -> None:
    llm, core = make_llm()
    at_step(core, 2, core.running.clear)
    with pytest.raises(EngineError, match="never finished: request-0"):
        llm.generate("a", TEN)


def test_a_stream_grows_and_ends_as_generate_does(make_llm: Any) -> None:
    llm, _ = make_llm("one two three")
    params = SamplingParams(max_tokens=13, stop="thre")
    [whole] = llm.generate("p", params)
    outputs = list(llm.stream("p", params))
    texts = [output.outputs[0].text for output in outputs]
    assert texts[-1] == whole.outputs[0].text == "one two "
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]
    assert outputs[0].outputs[0].token_ids == [ord("o")], "an earlier output does not change afterwards"


def test_a_stream_enters_the_engine_when_it_is_read_and_leaves_it_when_closed(make_llm: Any) -> None:
    llm, core = make_llm()
    unread = llm.stream("a", TEN)
    assert core.added == []
    unread.close()
    assert core.added == []
    stream = llm.stream("a", TEN)
    next(stream)
    assert core.has_unfinished
    stream.close()
    assert_clean(llm, core, 1)


def test_a_stream_that_is_dropped_is_withdrawn(make_llm: Any) -> None:
    llm, core = make_llm()
    for output in llm.stream("a", TEN):
        assert not output.finished
        break
    del output
    assert_clean(llm, core, 1)


def test_streams_read_in_turn_share_the_batch(make_llm: Any) -> None:
    llm, core = make_llm()
    first, second = llm.stream("a", TEN), llm.stream("b", TEN)
    pairs = list(zip(first, second, strict=True))
    assert len(pairs) == 10
    assert core.num_steps == 11, "the second came a step later, and then every step served both"


def test_withdrawing_one_call_leaves_the_others(make_llm: Any) -> None:
    llm, core = make_llm()
    kept, dropped = llm.stream("a", TEN), llm.stream("b", TEN)
    next(kept), next(dropped)
    dropped.close()
    *_, last = kept
    assert last.outputs[0].finish_reason == "length"
    assert_clean(llm, core, 1)


def test_threads_share_the_engine_and_each_gets_its_own(make_llm: Any) -> None:
    llm, core = make_llm(lambda request: request.prompt_token_ids * 30)
    results: dict[int, list[str]] = {}

    def work(which: int) -> None:
        letters = [chr(97 + which), chr(107 + which)]
        for _ in range(5):
            outputs = llm.generate(letters, SamplingParams(max_tokens=20))
            results.setdefault(which, []).extend(output.outputs[0].text for output in outputs)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert results == {which: [chr(97 + which) * 20, chr(107 + which) * 20] * 5 for which in range(4)}
    assert_clean(llm, core, 0)


def test_deferred_interrupts() -> None:
    reached = []

    def press(times: int) -> None:
        with deferred_interrupt():
            for time in range(times):
                signal.raise_signal(signal.SIGINT)
                reached.append(time)

    with pytest.raises(KeyboardInterrupt):
        press(1)
    assert reached == [0], "the body came to its end"
    with pytest.raises(KeyboardInterrupt):
        press(2)
    assert reached == [0, 0], "the second one did not wait"


def test_a_programs_own_handler_is_left_alone() -> None:
    heard = []
    previous = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with deferred_interrupt():
            signal.raise_signal(signal.SIGINT)
            assert heard == [1]
    finally:
        signal.signal(signal.SIGINT, previous)
