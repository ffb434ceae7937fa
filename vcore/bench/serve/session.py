"""`measure_serving`: a whole benchmark, from the start of its target to its end; then the offline engine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass

from vcore.bench.serve.bench import LoadOptions, ServeBench, ServeResult
from vcore.bench.serve.offline import OfflineEngine, measure_offline
from vcore.bench.serve.source import LoadSource
from vcore.bench.serve.target import Target, TargetInfo

__all__ = ["OfflineEngine", "Session", "loop_factory", "measure_serving"]


@dataclass(frozen=True, slots=True)
class Session:
    """What came of it."""

    info: TargetInfo
    source: LoadSource
    result: ServeResult
    llm_rates: list[float]
    """Output tokens a second of the offline engine, a run each; empty without a comparison."""


def measure_serving(
    make_target: Callable[[], Target],
    make_source: Callable[[TargetInfo], LoadSource],
    options: LoadOptions,
    *,
    offline: OfflineEngine | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Session:
    """Put loads on a target, close it, and run the same requests offline.

    Args:
        make_target: called in the event loop.
        make_source: makes the requests, when the target is there and says how large its vocabulary is.
        options: which loads; its `LoadOptions.offline` must be set for a comparison.
        offline: for a comparison; None for none.
        report: gets lines about the progress.

    Raises:
        VcoreError: the target or the offline engine cannot be had.
    """

    async def serve() -> Session:
        async with make_target() as target:
            source = make_source(target.info())
            result = await ServeBench(target, source, options, report).run()
            return Session(target.info(), source, result, [])

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        session = runner.run(serve())
    if offline is not None:
        report("the same requests through LLM.generate")
        session.llm_rates.extend(
            measure_offline(
                offline,
                session.result.offline_requests,
                warm_up=session.result.warm_up_requests,
                max_concurrency=options.max_concurrency,
            )
        )
    return session


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where there is one: the generator must not be what limits the rate."""
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop
