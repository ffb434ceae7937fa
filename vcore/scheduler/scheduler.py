"""`Scheduler`: decides what each step computes, and takes in what came out.

    schedule:  running requests, then waiting ones  ->  SchedulerOutput      (a `StepRecord` is now in flight)
    update:    SampledTokens  ->  tokens, stops, endings  ->  StepOutput     (the oldest record is collected)

Knows neither text nor tensors nor devices. There are no prefill and decode phases: a request computes
from its computed tokens to its known ones, as many a step as the budget allows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from vcore.engine.request import EngineRequest, FinishReason
from vcore.engine.step_output import StepOutput
from vcore.errors import RequestError, RequestTooLargeError
from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.interfaces.scheduling import SchedulingPolicy
from vcore.interfaces.step import SampledTokens, SchedulerOutput
from vcore.kv_cache.block_map import BlockMap, block_map
from vcore.kv_cache.manager import KVCacheManager, RequestBlocks
from vcore.scheduler.admission import AdmissionPlanner
from vcore.scheduler.checked_policy import CheckedPolicy
from vcore.scheduler.collector import Collector
from vcore.scheduler.launcher import Launcher
from vcore.scheduler.lifecycle import Lifecycle
from vcore.scheduler.request import PolicyView, Request
from vcore.scheduler.running import RunningPlanner
from vcore.scheduler.settings import SchedulerSettings, SchedulerStats

__all__ = ["Scheduler"]


class Scheduler:
    """Continuous batching over a paged KV cache. Not thread safe: one thread drives it.

    Any number of steps may be in flight: `schedule` may be called again before `update`, and steps are
    updated in the order in which they were scheduled.
    """

    def __init__(
        self,
        settings: SchedulerSettings,
        policy: SchedulingPolicy,
        make_eviction: Callable[[EvictionContext], EvictionPolicy],
        *,
        policy_name: str,
        eviction_name: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A scheduler without requests.

        Args:
            settings: limits.
            policy: the order of requests.
            make_eviction: builds the order of eviction.
            policy_name: what the scheduling policy is called in the log and in `faults`.
            eviction_name: the same for the eviction policy.
            clock: seconds, monotonic.
        """
        self._settings = settings
        self._clock = clock
        self._kv = KVCacheManager(
            settings.num_blocks,
            settings.block_size,
            lambda context: make_eviction(replace(context, clock=clock)),
            eviction_name=eviction_name,
            windows=settings.windows,
            max_chunk=settings.max_chunk,
            prefix_caching=settings.prefix_caching,
            strict=settings.strict,
        )
        self._policy = CheckedPolicy(policy, policy_name, strict=settings.strict)
        self._lifecycle = Lifecycle(settings.max_num_seqs, self._kv, self._policy)
        self._table = self._lifecycle.table
        self._running = RunningPlanner(settings, self._lifecycle)
        self._admission = AdmissionPlanner(settings, self._lifecycle, self._running)
        self._launcher = Launcher(self._lifecycle)
        self._collector = Collector(self._lifecycle)
        self._num_arrivals = 0

    # Requests come and go.

    def add(self, request: EngineRequest) -> None:
        """Take in a request; it waits until a step admits it.

        Raises:
            RequestTooLargeError: it could never fit; the message has the numbers.
            RequestError: the policy refuses it, its id is in use, or it has no tokens.
            PolicyError: the policy failed, in strict mode.
        """
        self._check_fits(request)
        inner = Request(request, self._num_arrivals, self._open(request))
        inner.view = PolicyView(inner, self._table.num_computed, self._kv)
        reason = self._policy.reject(inner.view)
        if reason is not None:
            raise RequestError(f"the scheduling policy refuses request {request.request_id!r}: {reason}")
        self._num_arrivals += 1
        self._lifecycle.add(inner)

    def abort(self, request_ids: Iterable[str]) -> None:
        """End requests wherever they are; tokens in flight are dropped. Unknown ids are ignored."""
        for request_id in request_ids:
            request = self._lifecycle.requests.get(request_id)
            if request is not None:
                self._lifecycle.end(request, FinishReason.ABORT)

    def finish(self, request_id: str, num_tokens: int, stop_reason: str | None) -> None:
        """End a request because a stop string was found. Unknown ids are ignored.

        Args:
            request_id: which.
            num_tokens: how many of its output tokens count; later ones do not.
            stop_reason: the stop string.
        """
        request = self._lifecycle.requests.get(request_id)
        if request is not None:
            self._lifecycle.end(request, FinishReason.STOP, stop_reason)
            del request.token_ids[request.num_prompt_tokens + num_tokens :]

    # Steps.

    def schedule(self) -> SchedulerOutput | None:
        """Plan the next step and launch it, as far as the scheduler is concerned.

        Returns:
            What to compute, or None if nothing can be computed now.

        Raises:
            PolicyError: a policy failed, in strict mode.
        """
        lifecycle = self._lifecycle
        if not self._table.num_running and not len(lifecycle.waiting):
            return None
        now = self._clock()
        cap = self._policy.max_prefill_tokens(self._table.num_running, len(lifecycle.waiting))
        while True:
            plan = self._running.plan(now, cap)
            self._admission.plan(plan)
            if plan.uniform or plan.new or np.count_nonzero(plan.granted):
                return self._launcher.launch(plan)
            # Those who had the tokens may all have been preempted: then it is the turn of the others. And
            # no cap may keep an idle engine from working.
            if plan.preempted:
                continue
            if cap is None or lifecycle.in_flight:
                self._launcher.settle()
                return None
            cap = None

    def update(self, output: SchedulerOutput, sampled: SampledTokens) -> StepOutput:
        """Take in the tokens of the oldest step in flight.

        Args:
            output: the step.
            sampled: its tokens.

        Returns:
            New tokens, and every ending since the last `StepOutput`.

        Raises:
            EngineError: `output` is not the oldest step in flight, or `sampled` does not match it; nothing
                has changed then, and `fail` is the way on.
            PolicyError: a policy failed, in strict mode.
        """
        return self._collector.collect(output, sampled, self._clock())

    def fail(self, output: SchedulerOutput, error: BaseException) -> StepOutput:
        """A step could not be computed: its requests end with `FinishReason.ERROR`, its blocks are withdrawn.

        Steps that were launched after it have read what it should have written: they fail with it. Harmless
        for a step that is not in flight (any more).
        """
        return self._collector.fail(output, f"{type(error).__name__}: {error}", self._clock())

    def take_finished(self) -> StepOutput:
        """Every ending since the last `StepOutput`, for when there is no step to tell it."""
        return StepOutput(finished=self._lifecycle.drain_ended(), time=self._clock())

    # Questions.

    @property
    def has_unfinished(self) -> bool:
        """Whether a request has not ended, or its end has not been told."""
        return bool(self._lifecycle.requests) or self._lifecycle.has_untold

    @property
    def num_running(self) -> int:
        """Requests that hold a row."""
        return self._table.num_running

    @property
    def num_waiting(self) -> int:
        """Requests that wait for a row, new or preempted."""
        return len(self._lifecycle.waiting)

    def reset_prefix_cache(self) -> bool:
        """Forget every cached prefix; always succeeds.

        Running requests keep their blocks, but what they compute from now on rests on old content, so it
        is not cached either.
        """
        self._kv.reset()
        self._table.stop_publishing()
        return True

    def stats(self) -> SchedulerStats:
        """Counts as of now."""
        pool = self._kv.pool
        return SchedulerStats(
            running=self._table.num_running,
            waiting=len(self._lifecycle.waiting),
            used_blocks=pool.num_blocks - 1 - pool.num_available,
            free_blocks=pool.num_available,
            cached_blocks=pool.num_cached,
            prefix_query_tokens=self._admission.num_query_tokens,
            prefix_hit_tokens=self._admission.num_hit_tokens,
            preemptions=self._lifecycle.num_preemptions,
        )

    def block_map(self) -> BlockMap:
        """What each block is used for, as of now."""
        return block_map(self._kv.pool, self._settings.block_size)

    def faults(self) -> tuple[str, ...]:
        """One line for each policy that failed and was replaced by the core's own order."""
        return tuple(fault for fault in (self._policy.fault, self._kv.pool.fault) if fault is not None)

    # Inside.

    def _open(self, request: EngineRequest) -> RequestBlocks:
        """The record of the blocks of a request that arrives."""
        params = request.params
        return self._kv.open(request.extra_keys, params.priority, params.cache_ttl)

    def _check_fits(self, request: EngineRequest) -> None:
        settings = self._settings
        name = f"request {request.request_id!r}"
        if request.request_id in self._lifecycle.requests:
            raise RequestError(f"{name} is running or waiting already; ids must be unique", param="request_id")
        num_prompt = len(request.prompt_token_ids)
        if not num_prompt:
            raise RequestError(f"{name} has an empty prompt; at least one token is needed", param="prompt")
        pools = request.pooling is not None
        if request.max_tokens < 1 and not pools:
            raise RequestError(f"{name}: max_tokens must be at least 1, got {request.max_tokens}", param="max_tokens")
        total = num_prompt + request.max_tokens
        size = f"{num_prompt} prompt tokens"
        if not pools:
            size += f" and asks for up to {request.max_tokens} more"
        param, remedy = ("prompt", "") if pools else ("max_tokens", ", lower max_tokens")
        if total > settings.max_model_len:
            raise RequestTooLargeError(
                f"{name} has {size}, {total} in all; the model's length is {settings.max_model_len}. "
                f"Shorten the prompt{remedy}.",
                param=param if num_prompt < settings.max_model_len else "prompt",
            )
        # The last token is sampled but never computed.
        needed, there = self._kv.needs.most_blocks(total if pools else total - 1), settings.num_blocks - 1
        if needed > there:
            raise RequestTooLargeError(
                f"{name} has {size}, which takes {needed} cache blocks of {settings.block_size} tokens; there are "
                f"{there}. Shorten the prompt{remedy}, or raise cache.num_blocks.",
                param=param,
            )
        if not settings.chunked_prefill and num_prompt > settings.max_num_batched_tokens:
            raise RequestTooLargeError(
                f"{name} has {num_prompt} prompt tokens; without chunked prefill a prompt must fit into one step of "
                f"{settings.max_num_batched_tokens}. Set scheduler.chunked_prefill, or raise "
                "scheduler.max_num_batched_tokens.",
                param="prompt",
            )
