"""`LiveState`: what the page shows of the engine, as one JSON object."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vcore.engine.async_llm import AsyncLLM
    from vcore.scheduler import SchedulerStats
    from vcore.server.observability import Observability
    from vcore.server.observability.composition import Composition
    from vcore.server.playground.rates import Rates

__all__ = ["LiveState"]


class LiveState:
    """Puts together what others know."""

    def __init__(
        self,
        engine: AsyncLLM,
        observability: Observability,
        rates: Rates,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._observability = observability
        self._rates = rates
        self._clock = clock
        self._start = clock()

    async def now(self) -> dict[str, Any]:
        """The state as JSON data; `model` is null until the engine is composed, `cache` while no engine runs."""
        moment = await self._observability.watch.moment()
        status, stats, composition = moment.status, moment.stats, moment.composition
        metrics = self._observability.metrics
        return {
            "uptime_s": round(self._clock() - self._start, 1),
            "engine": {
                "state": str(status.state),
                "reason": status.reason,
                "restarts": status.restarts,
                "failed_steps": status.failed_steps,
                "faults": list(map(str, status.faults)),
            },
            "model": None if composition is None else _model(composition),
            "plugins": [] if composition is None else _plugins(composition),
            "requests": {
                "open": self._engine.num_unfinished(),
                "running": 0 if stats is None else stats.running,
                "waiting": 0 if stats is None else stats.waiting,
                "preemptions": int(metrics.preemptions.value),
                "finished": {reason: int(count) for (reason,), count in metrics.finished.values.items()},
            },
            "tokens": {
                "prompt": int(metrics.prompt_tokens.value),
                "output": int(metrics.generation_tokens.value),
                "a_second": self._rates.series(),
            },
            "cache": None if stats is None else _cache(stats, composition),
        }


def _model(of: Composition) -> dict[str, Any]:
    return {
        "name": of.model_name,
        "path": of.model_path,
        "device": of.device,
        "dtype": of.dtype,
        "max_model_len": of.max_model_len,
        "vocab_size": of.vocab_size,
        "version": of.version,
    }


def _plugins(of: Composition) -> list[dict[str, Any]]:
    return [
        {
            "kind": one.kind,
            "name": one.name,
            "distribution": one.distribution,
            "version": one.version,
            "origin": one.origin,
        }
        for one in of.plugins
    ]


def _cache(stats: SchedulerStats, of: Composition | None) -> dict[str, Any]:
    return {
        "used": stats.used_blocks,
        "free": stats.free_blocks,
        "cached": stats.cached_blocks,
        "block_size": None if of is None else of.block_size,
        "prefix_caching": of is not None and of.prefix_caching,
        "query_tokens": stats.prefix_query_tokens,
        "hit_tokens": stats.prefix_hit_tokens,
    }
