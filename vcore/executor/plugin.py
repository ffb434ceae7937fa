"""Registers the executors that come with vcore."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins.hookspecs import hookimpl
from vcore.plugins.specs import ExecutorSpec


@hookimpl
def vcore_executors() -> Sequence[ExecutorSpec]:
    """`uniproc`, which runs one rank in the caller's process."""
    return [
        ExecutorSpec(
            name="uniproc",
            load="vcore.executor.uniproc:UniprocExecutor",
            api="1.0",
            summary="one rank, in the caller's process",
            rank=0,
            max_world_size=1,
        )
    ]
