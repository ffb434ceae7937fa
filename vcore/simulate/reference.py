"""`reference_rates`: what share of a trace's prompt blocks would hit under the usual policies, and at best."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from vcore.config import EngineConfig, PluginChoice
from vcore.engine.resolve.policies import choose_policy
from vcore.errors import PluginNotFoundError
from vcore.interfaces.eviction import EvictionContext, EvictionPolicy
from vcore.plugins import Catalog, discover
from vcore.simulate.block_names import BlockNames
from vcore.simulate.cache_replay import replay_cache
from vcore.simulate.optimum import optimal_cache
from vcore.traces import Trace

__all__ = ["reference_rates"]

_USUAL = ("fifo", "lru")


def reference_rates(
    trace: Trace, num_blocks: int, block_size: int, config: EngineConfig, base_dir: Path | None = None
) -> dict[str, float]:
    """Hit rates of a cache alone, requests one after another (`vcore.simulate.cache_replay`).

    As in an engine, a block hits only if it is full and not all of its prompt; so these rates and that of a simulation
    are shares of the same blocks.

    Args:
        trace: whose prompts are served.
        num_blocks: size of the cache; of a fleet, of all replicas together.
        block_size: tokens a block.
        config: says which plugins there are.
        base_dir: where relative paths of ``config.plugins.load`` start.

    Returns:
        ``fifo`` and ``lru`` where these are installed, and ``optimum``, that of Belady; empty if nothing can hit.
    """
    prompts = _prompts(trace, block_size)
    if prompts is None:
        return {}
    total = sum(-(-one.input_length // block_size) for one in trace.requests)
    catalog = discover(config.plugins, base_dir=base_dir)
    rates: dict[str, float] = {}
    for name in _USUAL:
        make = _maker(name, catalog)
        if make is not None:
            counts = replay_cache(prompts, num_blocks, make, eviction_name=name, block_size=block_size)
            rates[name] = counts.hits / total
    rates["optimum"] = optimal_cache(prompts, num_blocks).hits / total
    return rates


def _prompts(trace: Trace, block_size: int) -> list[tuple[int, ...]] | None:
    """The blocks of each prompt that may hit, by number; None if no two prompts share one."""
    names = BlockNames(trace, block_size)
    prompts = []
    for one in trace.requests:
        usable = (one.input_length - 1) // block_size
        prompts.append(tuple(int.from_bytes(name, "little") for name in names.of(one)[:usable]))
    num_blocks = sum(map(len, prompts))
    return prompts if len({block for prompt in prompts for block in prompt}) < num_blocks else None


def _maker(name: str, catalog: Catalog) -> Callable[[EvictionContext], EvictionPolicy] | None:
    try:
        entry, _ = choose_policy(PluginChoice(name=name), "cache.eviction", catalog)
    except PluginNotFoundError:
        return None

    def make(context: EvictionContext) -> EvictionPolicy:
        return cast(EvictionPolicy, catalog.create(entry, context=context))

    return make
