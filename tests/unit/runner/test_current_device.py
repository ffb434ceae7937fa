"""Whatever a runner launches is launched on its device, from whichever thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from vcore.engine import build, runner_builder
from vcore.runner import forward_pass, model_runner
from vcore.runner.current_device import on_device

Make = Callable[..., Any]


class Devices(threading.local):
    """A fake of CUDA's current device, which each thread has for itself."""

    current = 0

    @contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        before, self.current = self.current, 1
        yield
        self.current = before


def test_a_cuda_device_becomes_the_current_one_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: asked.append(device) or Devices().on(device))
    with on_device(torch.device("cuda:1")):
        assert asked == [torch.device("cuda:1")]
    with on_device(torch.device("cpu")), on_device(torch.device("cpu")):
        assert len(asked) == 1


def test_load_cache_and_steps_run_there(
    setup_runner: Make, make_request: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices, seen = Devices(), []
    monkeypatch.setattr(model_runner, "on_device", devices.on)
    setup = setup_runner()
    forward, build_model, allocate = setup.model.forward, setup.runner._build_model, forward_pass.allocate_caches
    setup.model.forward = lambda *args: (seen.append(("forward", devices.current)), forward(*args))[1]
    setup.runner._build_model = lambda context: (seen.append(("load", devices.current)), build_model(context))[1]
    monkeypatch.setattr(
        forward_pass, "allocate_caches", lambda *args: (seen.append(("cache", devices.current)), allocate(*args))[1]
    )
    monkeypatch.setattr(
        forward_pass.ForwardPass,
        "cache_bytes_available",
        lambda self: seen.append(("profile", devices.current)),
    )

    def work() -> None:
        setup.runner.load()
        setup.runner.cache_bytes_available()
        setup.runner.initialize_cache(64)
        setup.driver.step((make_request([1, 2, 3]), 3))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(name, 1) for name in ("load", "profile", "cache", "forward")]
    assert devices.current == 0


def test_a_runner_is_made_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """So are the attention backend's workspaces, and pinned memory."""
    devices, seen = Devices(), []
    monkeypatch.setattr(runner_builder, "on_device", devices.on)
    monkeypatch.setattr(runner_builder.RunnerBuilder, "_build", lambda *args: seen.append(devices.current))

    class Catalog:
        def create(self, entry: object, *, options: object, context: Any) -> Any:
            return context.runner_factory(0, 1)

    class Anything:
        def __getattr__(self, name: str) -> Any:
            return self

    build._build_executor(Anything(), Catalog(), Anything())  # type: ignore[arg-type]
    assert seen == [1]
