"""`measure_serving`: a whole benchmark, from the start of its target to its end, and the offline engine beside it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

from vcore.bench.serve.bench import LoadOptions, ServeBench, ServeResult
from vcore.bench.serve.offline import OfflineEngine, OfflineProcess
from vcore.bench.serve.source import LoadSource
from vcore.bench.serve.target import Target, TargetInfo

__all__ = ["OfflineEngine", "Session", "loop_factory", "measure_serving"]


@dataclass(frozen=True, slots=True)
class Session:
    """What came of it."""

    info: TargetInfo
    source: LoadSource
    result: ServeResult


def measure_serving(
    make_target: Callable[[], Target],
    make_source: Callable[[TargetInfo], LoadSource],
    options: LoadOptions,
    *,
    offline: OfflineEngine | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Session:
    """Put loads on a target, close it, and run the same requests offline.

    On a CPU the two take turns; elsewhere the offline engine follows the target, whose memory it needs.

    Args:
        make_target: called in the event loop.
        make_source: makes the requests, when the target is there and says how large its vocabulary is.
        options: which loads; its `LoadOptions.offline` must be set for a comparison.
        offline: for a comparison; None for none.
        report: gets lines about the progress.

    Raises:
        VcoreError: the target or the offline engine cannot be had.
    """

    async def serve(reference: OfflineProcess | None) -> Session:
        async with make_target() as target:
            source = make_source(target.info())
            in_turns = reference.rate if reference is not None and reference.is_on_cpu else None
            result = await ServeBench(target, source, options, report, reference=in_turns).run()
            return Session(target.info(), source, result)

    with contextlib.ExitStack() as stack:
        # Left last: it waits for its threads, of which one waits for the process until that is ended.
        runner = stack.enter_context(asyncio.Runner(loop_factory=loop_factory()))
        process = None
        if offline is not None:
            process = stack.enter_context(OfflineProcess(offline.limited(options.max_concurrency)))
        session = runner.run(serve(process))
        if process is not None and not process.is_on_cpu:
            report("the same requests through LLM.generate")
            _follow(process, session.result)
    return session


def _follow(process: OfflineProcess, result: ServeResult) -> None:
    """Do all that the target did."""
    if result.warm_up_requests:
        process.rate(result.warm_up_requests)
    result.reference_rates.extend(process.rate(requests) for requests in result.offline_requests)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where there is one: the generator must not be what limits the rate."""
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop
