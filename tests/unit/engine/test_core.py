"""The step loop over a real scheduler and an executor that can be told to fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from vcore_policies.eviction.lru import LRUEviction
from vcore_policies.scheduling.fcfs import FCFSPolicy

from vcore.engine.core import EngineCore
from vcore.engine.request import EngineRequest, FinishReason
from vcore.errors import EngineDeadError, RequestTooLargeError
from vcore.interfaces import Executor, RequestView, SampledTokens, SchedulerOutput, SchedulingContext
from vcore.kv_cache.layout import CacheGroup, CacheLayout
from vcore.sampling_params import SamplingParams
from vcore.scheduler import Scheduler, SchedulerSettings

SETTINGS = {"max_num_seqs": 4, "max_num_batched_tokens": 32, "max_model_len": 64, "block_size": 4, "num_blocks": 40}


class Handle:
    def __init__(self, output: SchedulerOutput, error: BaseException | None) -> None:
        self._output, self._error = output, error

    def collect(self) -> SampledTokens:
        if self._error is not None:
            raise self._error
        rows = self._output.rows[self._output.samples]
        return SampledTokens(step_id=self._output.step_id, rows=rows, token_ids=np.full(len(rows), 7, dtype=np.int64))


class FakeExecutor(Executor):
    """Samples the token 7 for everybody; `fail_launch` and `fail_collect` are raised once."""

    def __init__(self) -> None:
        self.fail_launch: BaseException | None = None
        self.fail_collect: BaseException | None = None
        self.sick: str | None = None
        self.shutdowns = 0
        self.freed: list[int] = []

    def load(self) -> None: ...

    def cache_bytes_available(self) -> int:
        return 0

    def cache_layout(self) -> CacheLayout:
        return CacheLayout((CacheGroup(None, ()),), ())

    def initialize_cache(self, num_blocks: int) -> None: ...

    def launch(self, output: SchedulerOutput) -> Handle:
        self.freed += output.freed_rows
        error, self.fail_launch = self.fail_launch, None
        if error is not None:
            raise error
        error, self.fail_collect = self.fail_collect, None
        return Handle(output, error)

    def check_health(self) -> None:
        if self.sick:
            raise EngineDeadError(self.sick)

    def start_profile(self, folder: Path) -> None: ...

    def stop_profile(self) -> None: ...

    def shutdown(self) -> None:
        self.shutdowns += 1


class RaisingPolicy(FCFSPolicy):
    def waiting_key(self, request: RequestView) -> int:
        raise RuntimeError("no order today")


def make_core(
    executor: Executor, *, strict: bool = False, policy: type[FCFSPolicy] = FCFSPolicy, depth: int = 1
) -> EngineCore:
    limits = {key: SETTINGS[key] for key in ("max_num_seqs", "max_num_batched_tokens", "block_size", "num_blocks")}
    scheduler = Scheduler(
        SchedulerSettings(**SETTINGS, strict=strict),
        policy(options=None, context=SchedulingContext(**limits)),
        lambda context: LRUEviction(options=None, context=context),
        policy_name="scheduling_policy/test@here",
        eviction_name="eviction_policy/test@here",
    )
    return EngineCore(scheduler, executor, depth=depth)


@pytest.fixture
def executor() -> FakeExecutor:
    return FakeExecutor()


@pytest.fixture
def core(executor: FakeExecutor) -> Iterator[EngineCore]:
    core = make_core(executor)
    yield core
    core.shutdown()


def request(name: str, num_prompt: int = 6, max_tokens: int = 3) -> EngineRequest:
    return EngineRequest(
        request_id=name,
        prompt_token_ids=[ord(name[0]) % 50] * num_prompt,
        params=SamplingParams(temperature=0.0, max_tokens=max_tokens),
        max_tokens=max_tokens,
        arrival_time=time.monotonic(),
    )


def run(core: EngineCore) -> tuple[dict[str, list[int]], dict[str, FinishReason]]:
    tokens: dict[str, list[int]] = {}
    reasons: dict[str, FinishReason] = {}
    while core.has_unfinished:
        output = core.step()
        for name, token in zip(output.request_ids, output.token_ids, strict=True):
            tokens.setdefault(name, []).append(token)
        reasons |= {name: finished.reason for name, finished in output.finished.items()}
    return tokens, reasons


def assert_nothing_is_held(core: EngineCore) -> None:
    stats = core.stats()
    assert (stats.running, stats.waiting, stats.used_blocks) == (0, 0, 0)


def test_requests_run_to_their_ends(core: EngineCore) -> None:
    for name in "abcdef":
        core.add_request(request(name))
    tokens, reasons = run(core)
    assert tokens == {name: [7, 7, 7] for name in "abcdef"}
    assert set(reasons.values()) == {FinishReason.LENGTH}
    assert_nothing_is_held(core)


def test_a_step_says_what_it_computed(core: EngineCore) -> None:
    """40 tokens of a prompt take two steps of at most 32; then the second request's come with the first's decode."""
    core.add_request(request("a", num_prompt=40))
    steps = [core.step()]
    core.add_request(request("b", num_prompt=6))
    steps += [core.step() for _ in range(3)]
    told = [(one.step_id, one.num_requests, one.num_prompt_tokens, one.num_decodes) for one in steps]
    assert told == [(1, 1, 32, 0), (2, 2, 14, 0), (3, 2, 0, 2), (4, 2, 0, 2)]
    assert (core.step().step_id, core.faults, core.failed_steps) == (0, (), 0)


def test_a_single_token_of_a_prompt_is_one_of_a_prompt(core: EngineCore) -> None:
    """It is computed as a decode is, beside one that is."""
    core.add_request(request("a", num_prompt=9))
    core.step()
    core.add_request(request("one", num_prompt=1))
    core.add_request(request("other", num_prompt=1))
    told = [(one.num_requests, one.num_prompt_tokens, one.num_decodes) for one in (core.step(), core.step())]
    assert told == [(3, 2, 1), (3, 0, 3)]


def test_the_block_map_shows_who_uses_what(core: EngineCore) -> None:
    core.add_request(request("a", num_prompt=10))
    core.step()
    running = core.block_map()
    assert (running.num_blocks, running.block_size, running.used, running.cached) == (40, 4, 3, 2)
    assert sorted(running.states) == [0] * 37 + [1, 3, 3]
    run(core)
    ended = core.block_map()
    assert (ended.used, ended.free, ended.cached) == (0, 39, ended.states.count(2))
    assert ended.states.count(2) >= 2
    core.reset_prefix_cache()
    assert set(core.block_map().states) == {0}


def test_a_step_with_nothing_to_do_is_empty(core: EngineCore) -> None:
    output = core.step()
    assert not output.token_ids
    assert not output.finished


@pytest.mark.parametrize("where", ["fail_launch", "fail_collect"])
def test_a_failing_step_ends_its_requests_and_no_others(core: EngineCore, executor: FakeExecutor, where: str) -> None:
    for name in "abcdef":  # four run, two wait
        core.add_request(request(name))
    core.step()
    setattr(executor, where, RuntimeError("the kernel broke"))
    output = core.step()
    assert set(output.finished) == set("abcd")
    assert all(end.reason is FinishReason.ERROR for end in output.finished.values())
    assert all("the kernel broke" in str(end.stop_reason) for end in output.finished.values())
    tokens, reasons = run(core)
    assert reasons == {"e": FinishReason.LENGTH, "f": FinishReason.LENGTH}
    assert tokens == {"e": [7, 7, 7], "f": [7, 7, 7]}
    assert sorted(executor.freed) == [0, 1, 2, 3]
    assert core.health().alive
    assert core.health().failed_steps == 1
    assert_nothing_is_held(core)


def test_blocks_of_a_failed_step_are_not_hit_later(core: EngineCore, executor: FakeExecutor) -> None:
    executor.fail_collect = RuntimeError("no")
    core.add_request(request("a", num_prompt=12))
    run(core)
    core.add_request(request("a", num_prompt=12))
    assert core.step().started["a"].num_cached_tokens == 0


def test_an_interrupt_in_a_step_reaches_the_caller_and_leaves_the_engine_usable(
    core: EngineCore, executor: FakeExecutor
) -> None:
    core.add_request(request("a"))
    executor.fail_launch = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        core.step()
    assert_nothing_is_held(core)
    core.add_request(request("b"))
    tokens, reasons = run(core)
    assert tokens == {"b": [7, 7, 7]}
    assert reasons == {"a": FinishReason.ERROR, "b": FinishReason.LENGTH}  # others than the caller may wait for a


def test_two_steps_in_flight_give_the_same(executor: FakeExecutor) -> None:
    core = make_core(executor, depth=2)
    for name in "abcdef":
        core.add_request(request(name))
    tokens, reasons = run(core)
    assert tokens == {name: [7, 7, 7] for name in "abcdef"}
    assert set(reasons.values()) == {FinishReason.LENGTH}
    assert_nothing_is_held(core)


@pytest.mark.parametrize("where", ["fail_launch", "fail_collect"])
def test_a_step_that_fails_while_another_is_in_flight_leaves_the_engine_usable(
    executor: FakeExecutor, where: str
) -> None:
    core = make_core(executor, depth=2)
    core.add_request(request("a", max_tokens=8))
    for _ in range(3):
        core.step()
    core.add_request(request("b", max_tokens=8))
    setattr(executor, where, RuntimeError("the kernel broke"))
    _, reasons = run(core)
    assert reasons == {"a": FinishReason.ERROR, "b": FinishReason.ERROR}
    core.add_request(request("c"))
    assert run(core) == ({"c": [7, 7, 7]}, {"c": FinishReason.LENGTH})
    assert core.health().failed_steps == 1
    assert_nothing_is_held(core)


def test_a_lost_rank_ends_the_engine(core: EngineCore, executor: FakeExecutor) -> None:
    core.add_request(request("a"))
    executor.fail_launch = EngineDeadError("rank 1 exited with code 9")
    for _ in range(2):  # now, and whenever it is asked again
        with pytest.raises(EngineDeadError, match="rank 1 exited with code 9"):
            core.step()
    assert core.health().reason is not None
    with pytest.raises(EngineDeadError, match="Make a new one"):
        core.add_request(request("b"))


def test_an_answer_that_does_not_fit_the_step_ends_its_requests(core: EngineCore, executor: FakeExecutor) -> None:
    class Confused(Handle):
        def collect(self) -> SampledTokens:
            sampled = super().collect()
            sampled.rows = sampled.rows + 1
            return sampled

    executor.launch = lambda output: Confused(output, None)  # type: ignore[method-assign]
    core.add_request(request("a"))
    assert core.step().finished["a"].reason is FinishReason.ERROR
    assert_nothing_is_held(core)


def test_health_asks_the_executor(core: EngineCore, executor: FakeExecutor) -> None:
    executor.sick = "rank 0 hangs"
    assert core.health().reason == "rank 0 hangs"


def test_a_policy_fault_is_told_and_harms_nobody(executor: FakeExecutor) -> None:
    core = make_core(executor, policy=RaisingPolicy)
    for name in "abcdef":
        core.add_request(request(name))
    assert run(core)[0] == {name: [7, 7, 7] for name in "abcdef"}
    (fault,) = core.health().faults
    assert "scheduling_policy/test@here" in fault
    assert "no order today" in fault


def test_a_policy_fault_is_fatal_if_strict(executor: FakeExecutor) -> None:
    core = make_core(executor, strict=True, policy=RaisingPolicy)
    for _ in range(2):
        with pytest.raises(EngineDeadError, match="scheduling_policy/test@here"):
            core.add_request(request("a"))
    assert not core.health().alive


@pytest.mark.parametrize(("method", "when"), [("schedule", "planned"), ("update", "taken in")])
def test_an_engine_that_is_cut_off_in_its_bookkeeping_does_not_go_on(
    executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch, method: str, when: str
) -> None:
    def cut_off(*arguments: object) -> None:
        raise KeyboardInterrupt

    core = make_core(executor)
    core.add_request(request("a"))
    monkeypatch.setattr(Scheduler, method, cut_off)
    with pytest.raises(KeyboardInterrupt):
        core.step()
    monkeypatch.undo()
    with pytest.raises(EngineDeadError, match=f"KeyboardInterrupt while a step was {when}"):
        core.step()
    assert not core.health().alive


def test_abort_and_finish_free_everything(core: EngineCore) -> None:
    for name in "abcdef":
        core.add_request(request(name, max_tokens=30))
    core.step()
    core.abort(["a", "e", "unknown"])
    core.finish("b", 1, "END")
    core.finish("unknown", 1, "END")
    output = core.step()
    assert output.finished["a"].reason is FinishReason.ABORT
    assert output.finished["e"].reason is FinishReason.ABORT
    assert output.finished["b"].reason is FinishReason.STOP
    assert output.finished["b"].stop_reason == "END"
    core.abort(list("cdf"))
    assert core.has_unfinished
    run(core)
    assert_nothing_is_held(core)


def test_too_large_a_request_is_refused_with_the_numbers(core: EngineCore) -> None:
    with pytest.raises(RequestTooLargeError, match=r"60 prompt tokens .* 10 more, 70 in all.* length is 64"):
        core.add_request(request("a", num_prompt=60, max_tokens=10))
    assert not core.has_unfinished


def test_shutdown_is_harmless_twice_and_final(core: EngineCore, executor: FakeExecutor) -> None:
    core.shutdown()
    core.shutdown()
    assert executor.shutdowns == 1
    with pytest.raises(EngineDeadError, match="shut down"):
        core.step()
