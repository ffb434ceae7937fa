"""`UniprocExecutor`: one rank in the caller's process, so that a debugger sees it and notebooks work."""

from __future__ import annotations

from pathlib import Path

from vcore.config.models import PluginOptions
from vcore.errors import ConfigError, EngineDeadError
from vcore.interfaces.executor import Executor, ExecutorContext, Runner, StepHandle
from vcore.interfaces.step import SchedulerOutput
from vcore.kv_cache.layout import CacheLayout

__all__ = ["UniprocExecutor"]


class UniprocExecutor(Executor):
    """Calls one runner directly; a step's errors reach the caller as they are."""

    def __init__(self, *, options: PluginOptions | None, context: ExecutorContext) -> None:
        """Make the executor; nothing is loaded.

        Args:
            options: None; it has none.
            context: what the core tells it.

        Raises:
            ConfigError: more than one rank is asked for.
        """
        if context.world_size != 1:
            raise ConfigError(
                f"the executor 'uniproc' runs one rank, but {context.world_size} were asked for "
                f"(runtime.tensor_parallel_size); choose another executor, or 1"
            )
        self._context = context
        self._runner: Runner | None = None
        self._closed = False

    def load(self) -> None:
        """Make the runner and load its model."""
        self._check_open()
        runner = self._context.runner_factory(0, 1)
        runner.load()
        self._runner = runner

    def cache_bytes_available(self) -> int:
        """The runner's answer."""
        return self._loaded().cache_bytes_available()

    def cache_layout(self) -> CacheLayout:
        """The runner's answer."""
        return self._loaded().cache_layout()

    def initialize_cache(self, num_blocks: int) -> None:
        """Allocate the runner's cache."""
        self._loaded().initialize_cache(num_blocks)

    def launch(self, output: SchedulerOutput) -> StepHandle:
        """Launch the step on the runner. On the CPU it is computed here and now."""
        return self._loaded().launch(output)

    def check_health(self) -> None:
        """Raise `EngineDeadError` once it was shut down."""
        self._check_open()

    def start_profile(self, folder: Path) -> None:
        """Start torch's profiler in this process."""
        self._loaded().start_profile(folder)

    def stop_profile(self) -> None:
        """Stop it and write the trace."""
        self._loaded().stop_profile()

    def shutdown(self) -> None:
        """Free the model and the cache."""
        self._closed = True
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    def _loaded(self) -> Runner:
        if self._runner is None:
            self._check_open()
            raise EngineDeadError("the executor 'uniproc' has no model; call load first")
        return self._runner

    def _check_open(self) -> None:
        if self._closed:
            raise EngineDeadError("the executor 'uniproc' was shut down; make a new engine")
