"""`ServeBench`: the loads of one benchmark, one after another, and what came of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import numpy.typing as npt

from vcore.bench.serve.arrivals import Arrivals, arrival_times
from vcore.bench.serve.measurements import Summary, summarise
from vcore.bench.serve.request import LoadRequest
from vcore.bench.serve.runner import LoadRun, LoadRunner
from vcore.bench.serve.slo import Slo
from vcore.bench.serve.source import LoadSource, as_text
from vcore.bench.serve.target import Target
from vcore.errors import EngineError

__all__ = ["LoadOptions", "Reference", "ServeBench", "ServeResult"]

Reference = Callable[[Sequence[LoadRequest]], float]
"""Computes requests elsewhere, and says how many output tokens a second that gave."""

_WARM_UP_REQUESTS = 32
_WARM_UP_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """Which loads there are."""

    rates: tuple[float, ...] = ()
    """Requests a second, a load each; infinity for all at once."""
    fractions: tuple[float, ...] = ()
    """A load each of so much of the offline throughput, which is measured before."""
    offline: bool = False
    """Whether to measure the offline throughput in any case."""
    offline_runs: int = 2
    """Runs of it, of which the better counts."""
    arrivals: Arrivals = Arrivals.POISSON
    """`Arrivals.TRACE` only with a source that has recorded times."""
    burst_size: int = 1
    """Of `Arrivals.BURST`."""
    num_requests: int | None = None
    """Of every load; None for as many as come in `duration_s`, or, all at once, as the source has."""
    duration_s: float = 30.0
    max_concurrency: int | None = None
    timeout_s: float = 600.0
    seed: int = 0
    slo: Slo | None = None
    as_text: bool = False
    """Whether random token ids become random words."""
    warm_up: bool = True
    """Whether a short load goes first, which is not counted."""


@dataclass(slots=True)
class ServeResult:
    """What came of a benchmark."""

    loads: list[Summary] = field(default_factory=list)
    """As `summarise` gives them, with ``rate`` (requests a second that were asked for; None: all at once) and
    ``of_offline`` (the fraction that it was given as, or None) before."""
    runs: list[LoadRun] = field(default_factory=list)
    """Of `loads`."""
    offline: list[Summary] = field(default_factory=list)
    """Runs of all requests at once."""
    offline_requests: list[list[LoadRequest]] = field(default_factory=list)
    """What these runs asked for."""
    reference_rates: list[float] = field(default_factory=list)
    """Output tokens a second that the same requests gave elsewhere, a run each; empty without a comparison."""
    warm_up_requests: list[LoadRequest] = field(default_factory=list)
    """What was asked for before all else; empty without a warm-up."""

    @property
    def best_offline(self) -> Summary | None:
        """The run with most output tokens a second."""
        return max(self.offline, key=lambda one: float(one["output_tokens_per_s"]), default=None)


class ServeBench:
    """Puts the loads that were asked for on a target."""

    def __init__(
        self,
        target: Target,
        source: LoadSource,
        options: LoadOptions,
        report: Callable[[str], None] = lambda _: None,
        *,
        reference: Reference | None = None,
    ) -> None:
        """Args:
        target: entered already.
        source: of requests.
        options: which loads.
        report: gets a line before and after each load.
        reference: takes its turn with the target at the warm-up and at every run of the offline throughput, so that
            a machine that is faster at one time than at another favours neither.
        """
        self._source = source
        self._options = options
        self._report = report
        self._reference = reference
        self._runner = LoadRunner(target, max_concurrency=options.max_concurrency, timeout_s=options.timeout_s)
        self._seeds = count(options.seed * 1000)  # one a load, so that none finds its prompts cached by another

    async def run(self) -> ServeResult:
        """All of it.

        Raises:
            EngineError: loads depend on the offline throughput, and no request of that run came to its end.
        """
        options, result = self._options, ServeResult()
        if options.warm_up:
            result.warm_up_requests = await self._warm_up()
        if options.fractions or options.offline:
            await self._measure_offline(result)
        for rate, fraction in self._paces(result):
            run = await self._load(rate)
            result.runs.append(run)
            result.loads.append({"rate": rate, "of_offline": fraction, **summarise(run, options.slo)})
        return result

    def _paces(self, result: ServeResult) -> list[tuple[float | None, float | None]]:
        """The rate of each load (None: all at once, or as recorded), and the fraction that it is."""
        options, best = self._options, result.best_offline
        paces: list[tuple[float | None, float | None]] = []
        paces += [(None if math.isinf(rate) else rate, None) for rate in options.rates]
        if best is not None:
            paces += [(fraction * float(best["requests_per_s"]), fraction) for fraction in options.fractions]
        return paces or ([] if result.offline else [(None, None)])

    async def _warm_up(self) -> list[LoadRequest]:
        self._report("warming up")
        number = min(self._options.num_requests or self._source.count, _WARM_UP_REQUESTS)
        requests = list(self._requests(number))
        for request in requests:
            request.num_output_tokens = min(request.num_output_tokens, _WARM_UP_TOKENS)
        await self._runner.run(requests, [0.0] * number)
        if self._reference is not None:
            await asyncio.to_thread(self._reference, requests)
        return requests

    async def _measure_offline(self, result: ServeResult) -> None:
        number = self._options.num_requests or self._source.count
        for index in range(self._options.offline_runs):
            requests = list(self._requests(number))
            result.offline_requests.append(requests)
            label = f"run {index + 1}: {number} requests at once"
            turns = [self._run_target, self._run_reference]
            for turn in turns if index % 2 == 0 else reversed(turns):
                await turn(requests, result, label)

    async def _run_target(self, requests: list[LoadRequest], result: ServeResult, label: str) -> None:
        self._report(f"offline throughput, {label}")
        run = await self._runner.run(requests, [0.0] * len(requests))
        summary = summarise(run, self._options.slo)
        if not summary["completed"]:
            raise EngineError(f"no request came to its end, so there is no throughput: {summary['error_messages']}")
        result.offline.append(summary)
        self._report(f"{summary['output_tokens_per_s']:,.0f} output tokens/s")

    async def _run_reference(self, requests: list[LoadRequest], result: ServeResult, label: str) -> None:
        if self._reference is None:
            return
        self._report(f"LLM.generate, {label}")
        result.reference_rates.append(await asyncio.to_thread(self._reference, requests))
        self._report(f"{result.reference_rates[-1]:,.0f} output tokens/s")

    async def _load(self, rate: float | None) -> LoadRun:
        seed = next(self._seeds)
        times = self._times(rate, seed)
        pace = "as recorded" if rate is None and len(times) and times[-1] > 0 else "at once"
        self._report(f"{len(times)} requests {pace if rate is None else f'at {rate:.4g}/s'}")
        return await self._runner.run(self._requests(len(times), seed), times.tolist())

    def _times(self, rate: float | None, seed: int) -> npt.NDArray[np.float64]:
        """When the requests of a load are due."""
        options = self._options
        if options.arrivals is Arrivals.TRACE:
            recorded = self._source.recorded_times(rate)
            assert recorded is not None
            if options.num_requests is not None:
                return recorded[: options.num_requests]
            return recorded[recorded <= options.duration_s]
        if rate is None:
            return np.zeros(options.num_requests or self._source.count)
        number = options.num_requests or max(1, round(rate * options.duration_s))
        rng = np.random.default_rng([seed, number])
        return arrival_times(options.arrivals, rate, number, rng, burst_size=options.burst_size)

    def _requests(self, number: int, seed: int | None = None) -> Iterator[LoadRequest]:
        made = self._source.requests(number, next(self._seeds) if seed is None else seed)
        return map(as_text, made) if self._options.as_text else made
