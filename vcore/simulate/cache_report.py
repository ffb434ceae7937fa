"""`report_cache`: eviction policies side by side over one trace, with what no policy can beat."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from vcore.config import EngineConfig, PluginChoice
from vcore.engine.resolve.policies import choose_policy
from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.plugins import discover
from vcore.plugins.catalog import Catalog
from vcore.simulate.block_names import number_blocks
from vcore.simulate.cache_replay import replay_cache
from vcore.simulate.optimum import ideal_cache, optimal_cache
from vcore.traces import Trace

__all__ = ["find_evictions", "report_cache"]


def report_cache(
    trace: Trace,
    sizes: Sequence[int],
    config: EngineConfig,
    policies: Sequence[str] = (),
    base_dir: Path | None = None,
) -> dict[str, Any]:
    """Replay the cache alone, for each size and policy.

    Args:
        trace: requests with block ids.
        sizes: blocks of the cache.
        config: says which plugins there are, and ``cache.eviction`` with its options.
        policies: names of eviction policies; one that ``cache.eviction`` names has its options. None: that one.
        base_dir: where relative paths of ``config.plugins.load`` start.

    Returns:
        ``trace``, ``num_requests``, ``prompt_blocks``, ``block_size``, ``ideal``, ``hit_rate`` (of the first row), and
        ``rows``, each with ``num_blocks``, ``eviction``, ``hit_rate``, ``optimum`` and ``elapsed_s``.

    Raises:
        ConfigError: the trace has no block ids, or a size is below 1.
        PluginError: a policy is missing, broken or ambiguous.
        PolicyError: a policy broke its contract.
    """
    prompts = number_blocks([request.block_ids for request in trace.requests])
    makers = find_evictions(config, policies, base_dir)
    rows: list[dict[str, Any]] = []
    for size in sizes:
        optimum = optimal_cache(prompts, size)
        for name, make in makers:
            began = time.perf_counter()
            counts = replay_cache(
                prompts,
                size,
                make,
                eviction_name=name,
                block_size=trace.block_size or 16,
                requests=trace.requests,
            )
            elapsed = time.perf_counter() - began
            rows.append(
                {
                    "num_blocks": size,
                    "eviction": name,
                    "hit_rate": counts.hit_rate,
                    "optimum": optimum.hit_rate,
                    "elapsed_s": elapsed,
                }
            )
    return {
        "trace": trace.name,
        "num_requests": len(prompts),
        "prompt_blocks": sum(map(len, prompts)),
        "block_size": trace.block_size,
        "ideal": ideal_cache(prompts).hit_rate,
        "hit_rate": rows[0]["hit_rate"],
        "rows": rows,
    }


def find_evictions(
    config: EngineConfig, policies: Sequence[str] = (), base_dir: Path | None = None
) -> list[tuple[str, Callable[[EvictionContext], EvictionPolicy]]]:
    """Eviction policies by name, and what builds each.

    Args:
        config: says which plugins there are, and ``cache.eviction`` with its options.
        policies: names; one that ``cache.eviction`` names has its options. None: that one.
        base_dir: where relative paths of ``config.plugins.load`` start.

    Raises:
        PluginError: a policy is missing, broken or ambiguous.
    """
    catalog = discover(config.plugins, base_dir=base_dir)
    chosen = [_choice(config, name) for name in policies] or [config.cache.eviction]
    return [_maker(choice, catalog) for choice in chosen]


def _choice(config: EngineConfig, name: str) -> PluginChoice:
    configured = config.cache.eviction
    return configured if configured.name == name else PluginChoice(name=name)


def _maker(choice: PluginChoice, catalog: Catalog) -> tuple[str, Callable[[EvictionContext], EvictionPolicy]]:
    entry, _ = choose_policy(choice, "cache.eviction", catalog)
    options = catalog.parse_options(entry, choice.options)

    def make(context: EvictionContext) -> EvictionPolicy:
        return cast(EvictionPolicy, catalog.create(entry, options=options, context=context))

    return entry.name, make
