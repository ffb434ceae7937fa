"""`SimulatedEngine`: the real scheduler and cache over a `FakeWorker`, by a clock of its own; for tests of policies."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from vcore.engine.request import EngineRequest, FinishReason
from vcore.engine.step_output import Finished, StepOutput
from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.interfaces.scheduling import RequestView, SchedulingContext, SchedulingPolicy
from vcore.interfaces.step import SampledTokens, SchedulerOutput
from vcore.pooling_params import PoolingMode
from vcore.sampling_params import SamplingParams
from vcore.scheduler import Scheduler, SchedulerSettings
from vcore.testing.fake_worker import VOCAB, FakeWorker, generate, pool, root_digest

__all__ = ["ByArrival", "LongestUnused", "SimulatedEngine", "StepFailedError"]


class StepFailedError(Exception):
    """The step that the test made fail."""


class ByArrival(SchedulingPolicy):
    """The core's own order, as a policy."""

    def waiting_key(self, request: RequestView) -> int:
        """The arrival."""
        return request.arrival_index


class LongestUnused(EvictionPolicy):
    """The block that nobody has used for longest goes first."""

    def __init__(self) -> None:
        """No blocks."""
        self._unused: OrderedDict[int, None] = OrderedDict()

    def on_insert(self, block_ids: Sequence[int]) -> None:
        """They are in use."""

    def on_hit(self, block_ids: Sequence[int]) -> None:
        """They are in use again."""
        for block_id in block_ids:
            self._unused.pop(block_id, None)

    def on_free(self, block_ids: Sequence[int]) -> None:
        """They are the youngest."""
        self._unused.update(dict.fromkeys(block_ids))

    def on_evict(self, block_ids: Sequence[int]) -> None:
        """Forget them."""
        self.on_hit(block_ids)

    def pick_victims(self, count: int) -> list[int]:
        """The oldest."""
        return list(itertools.islice(self._unused, count))


class SimulatedEngine:
    """A scheduler, a fake worker, and what every request has given so far.

    Driven by hand: `add`, then `step` or `run`, then `check_outputs` and `check_idle`.
    """

    def __init__(
        self,
        *,
        policy: SchedulingPolicy | None = None,
        make_policy: Callable[[SchedulingContext], SchedulingPolicy] | None = None,
        make_eviction: Callable[[EvictionContext], EvictionPolicy] | None = None,
        depth: int = 1,
        vocab: int = VOCAB,
        **settings: Any,
    ) -> None:
        """An engine without requests.

        Args:
            policy: orders the requests; by arrival if neither this nor `make_policy` is given.
            make_policy: builds it instead.
            make_eviction: builds what orders evictions; the longest unused first if not given.
            depth: steps in flight.
            vocab: how many tokens there are; they are generated as if at random.
            settings: fields of `vcore.scheduler.SchedulerSettings`, over the defaults below.
        """
        values: dict[str, Any] = {
            "max_num_seqs": 8,
            "max_num_batched_tokens": 64,
            "max_model_len": 256,
            "block_size": 4,
            "num_blocks": 200,
        }
        self.settings = SchedulerSettings(**(values | settings))
        if policy is None:
            policy = ByArrival() if make_policy is None else make_policy(self._context())
        self.policy = policy
        self.now = 0.0
        """Seconds; moves on by one each time it is asked for, in `tick`."""
        self.scheduler = Scheduler(
            self.settings,
            policy,
            make_eviction or (lambda context: LongestUnused()),
            policy_name="policy-under-test 1.0",
            eviction_name="eviction-under-test 1.0",
            clock=self.tick,
        )
        self.requests: dict[str, EngineRequest] = {}
        self.worker = FakeWorker(
            self.settings.block_size,
            self.settings.num_blocks,
            lambda request_id: root_digest(self.requests[request_id].extra_keys),
            vocab,
            self.settings.windows,
            self.settings.prefix_caching,
        )
        self.depth = depth
        self.in_flight: list[tuple[SchedulerOutput, SampledTokens]] = []
        self.outputs: dict[str, list[int]] = {}
        self.vectors: dict[str, bytes] = {}
        self.finished: dict[str, Finished] = {}
        self.cached: dict[str, int] = {}
        self.schedules: list[SchedulerOutput] = []
        self._ids = itertools.count()

    def _context(self) -> SchedulingContext:
        settings = self.settings
        return SchedulingContext(
            max_num_seqs=settings.max_num_seqs,
            max_num_batched_tokens=settings.max_num_batched_tokens,
            block_size=settings.block_size,
            num_blocks=settings.num_blocks,
            chunked_prefill=settings.chunked_prefill,
        )

    def tick(self) -> float:
        """The clock that the scheduler asks."""
        self.now += 1.0
        return self.now

    def add(
        self,
        prompt: Iterable[int],
        max_tokens: int = 8,
        *,
        request_id: str | None = None,
        extra_keys: tuple[str, ...] = (),
        eos: tuple[int, ...] = (),
        sample_index: int = 0,
        pooling: PoolingMode | None = None,
        **params: Any,
    ) -> str:
        """A request arrives.

        Args:
            prompt: its tokens.
            max_tokens: the most that it generates.
            request_id: its id; ``r0``, ``r1`` and so on if not given.
            extra_keys: what its blocks are known by beside their tokens.
            eos: tokens that end it.
            sample_index: which sample of its prompt it is.
            pooling: how its hidden states are pooled, for one that generates nothing.
            params: of `vcore.SamplingParams`, such as ``priority`` or ``tenant``.

        Returns:
            Its id.
        """
        request = EngineRequest(
            request_id=request_id or f"r{next(self._ids)}",
            prompt_token_ids=list(prompt),
            params=SamplingParams(max_tokens=max_tokens, **params),
            max_tokens=0 if pooling else max_tokens,
            arrival_time=self.now,
            eos_token_ids=eos,
            extra_keys=extra_keys,
            sample_index=sample_index,
            pooling=pooling,
        )
        self.scheduler.add(request)
        self.requests[request.request_id] = request
        self.outputs[request.request_id] = []
        return request.request_id

    def launch(self) -> SchedulerOutput | None:
        """Schedule and compute a step; `collect` takes it in."""
        output = self.scheduler.schedule()
        if output is not None:
            self.check_limits(output)
            self.schedules.append(output)
            self.in_flight.append((output, self.worker.compute(output)))
        return output

    def collect(self) -> StepOutput:
        """Take in the oldest step in flight."""
        output, sampled = self.in_flight.pop(0)
        return self.take(self.scheduler.update(output, sampled))

    def step(self) -> StepOutput:
        """One turn of the engine's loop, with up to `depth` steps in flight."""
        launched = self.launch()
        if launched is not None and len(self.in_flight) < self.depth:
            return StepOutput()
        if not self.in_flight:
            return self.take(self.scheduler.take_finished())
        return self.collect()

    def fail_step(self, *, launched: bool) -> StepOutput | None:
        """Schedule a step that fails, before or after the worker has begun with it; all in flight fails with it."""
        output = self.scheduler.schedule()
        if output is None:
            return None
        if launched:
            self.worker.compute(output, poison=True)
        oldest = self.in_flight[0][0] if self.in_flight else output
        self.in_flight.clear()
        return self.take(self.scheduler.fail(oldest, StepFailedError("made to fail")))

    def take(self, step: StepOutput) -> StepOutput:
        """Note what came out of a step."""
        for request_id, token_id in zip(step.request_ids, step.token_ids, strict=True):
            assert request_id not in self.finished, f"{request_id} got a token after its end"
            self.outputs[request_id].append(token_id)
        for request_id in step.vectors:
            assert request_id in step.finished, f"{request_id} got a vector before its end"
        self.vectors.update(step.vectors)
        for request_id, started in step.started.items():
            self.cached[request_id] = started.num_cached_tokens
        for request_id, finished in step.finished.items():
            assert request_id not in self.finished, f"{request_id} ended twice"
            self.finished[request_id] = finished
        return step

    def run(self, max_steps: int = 10_000) -> None:
        """Step until nothing is left."""
        for _ in range(max_steps):
            if not self.scheduler.has_unfinished and not self.in_flight:
                return
            self.step()
        raise AssertionError(f"still unfinished after {max_steps} steps: {self.scheduler.stats()}")

    def check_limits(self, output: SchedulerOutput) -> None:
        """A step keeps to the settings."""
        rows = output.rows.tolist()
        assert len(set(rows)) == len(rows) > 0
        assert output.num_total_tokens <= self.settings.max_num_batched_tokens
        assert self.scheduler.num_running <= self.settings.max_num_seqs

    def check_outputs(self) -> None:
        """Every request that ended by itself gave what it gives alone; others gave the beginning of it."""
        for request_id, finished in self.finished.items():
            if self.requests[request_id].pooling is not None:
                self._check_vector(request_id, finished)
                continue
            tokens, reason, stop_reason = generate(self.requests[request_id], self.worker.vocab)
            given = self.outputs[request_id]
            assert given == tokens[: len(given)], request_id
            if finished.reason in (FinishReason.STOP, FinishReason.LENGTH) and not isinstance(
                finished.stop_reason, str
            ):
                assert (given, finished.reason, finished.stop_reason) == (tokens, reason, stop_reason)

    def _check_vector(self, request_id: str, finished: Finished) -> None:
        assert not self.outputs[request_id]
        ended_by_itself = finished.reason is FinishReason.STOP and finished.stop_reason is None
        assert (request_id in self.vectors) == ended_by_itself, request_id
        if ended_by_itself:
            assert self.vectors[request_id] == pool(self.requests[request_id]), request_id

    def check_idle(self) -> None:
        """Nothing is left over once all requests have ended."""
        stats = self.scheduler.stats()
        assert (stats.running, stats.waiting, stats.used_blocks) == (0, 0, 0), stats
        assert stats.free_blocks == self.settings.num_blocks - 1
        self.scheduler.reset_prefix_cache()
        assert self.scheduler.stats().cached_blocks == 0
