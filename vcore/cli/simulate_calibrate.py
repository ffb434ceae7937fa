"""``vcore simulate --calibrate``: how long the steps of an engine take on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

from vcore.cli.output import reserved_stdout
from vcore.cli.simulate_options import TraceOptions
from vcore.errors import ConfigError

__all__ = ["run_calibration"]


def run_calibration(path: Path, options: TraceOptions, model: str | None, *, as_json: bool) -> None:
    """Measure the engine of a configuration, and write its deployment to `path`.

    Raises:
        ConfigError: a trace is given, too, or the file cannot be written.
        VcoreError: the engine cannot be composed.
    """
    from vcore.config.cli_options import config_from_cli
    from vcore.simulate.calibration import calibrate

    if options.trace is not None:
        raise ConfigError(
            "--calibrate measures an engine; simulate with --deployment afterwards, and leave --trace out"
        )
    if not path.parent.is_dir():
        raise ConfigError(f"--calibrate: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise ConfigError(f"--calibrate: {path} is a folder, expected the name of a file")
    tree, base_dir = config_from_cli(options.config, options.set_ or [], options.plugins or [], model)
    with reserved_stdout(as_json) as emit:
        found = calibrate(tree, base_dir=base_dir, report=lambda line: print(line, file=sys.stderr))
        path.write_text(found.deployment.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if as_json:
            told = found.deployment.model_dump(mode="json")
            emit({"path": str(path), "deployment": told, "num_points": found.num_points, "error": found.error})
            return
        print(
            f"wrote {path}; of {found.num_points} loads the model is off by "
            f"{found.error['p50']:.1%} in the median and {found.error['p90']:.1%} at p90"
        )
