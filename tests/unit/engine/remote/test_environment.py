"""What an engine's process is started with: bounds for libraries, unless the user has set his own."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from vcore import AsyncLLM
from vcore.engine.remote.environment import engine_environment

NAMES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


def test_caches_are_bounded_unless_the_user_says_otherwise() -> None:
    found = engine_environment({"HOME": "/me", NAMES[0]: "7"})
    assert {name: found[name] for name in ("HOME", *NAMES)} == {"HOME": "/me", NAMES[0]: "7", NAMES[1]: "128"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_has_them(llm: AsyncLLM, runner: asyncio.Runner) -> None:
    pid = llm.health().pid
    if pid is None:  # it has no process of its own, and ours is left alone
        return
    variables = dict(one.split("=", 1) for one in Path(f"/proc/{pid}/environ").read_text().split("\0") if one)
    assert {name: variables[name] for name in NAMES} == dict.fromkeys(NAMES, "128")
    assert "PATH" in variables
