"""`build_recorded`: an engine in this process whose steps are written down, one in flight at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vcore.config import EngineConfig, load_config
from vcore.engine.build import Engine, build_engine
from vcore.simulate.step_log import RECORDER, StepLog, recorder_spec

__all__ = ["build_recorded"]


def build_recorded(
    config: EngineConfig, log: StepLog, *, base_dir: Path | None = None, plugins: Sequence[object] = ()
) -> Engine:
    """Compose an engine, without a tokenizer; whoever asked for it shuts it down.

    Args:
        config: of the engine; its executor does not count.
        log: gets its steps.
        base_dir: what relative paths in `config` are relative to.
        plugins: plugin objects beside those that are installed.

    Raises:
        ConfigError: the configuration cannot be met here.
    """
    overrides: dict[str, Any] = {"executor": RECORDER, "runtime.async_scheduling": False, "model.skip_tokenizer": True}
    return build_engine(load_config(config, overrides), plugins=[*plugins, recorder_spec(log)], base_dir=base_dir)
