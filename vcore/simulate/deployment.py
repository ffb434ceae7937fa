"""`Deployment`: what a simulation must know of a model on a machine. Read from JSON, or one that comes with vcore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vcore.errors import ConfigError
from vcore.simulate.step_time import StepTimeModel

__all__ = ["DEPLOYMENTS", "Deployment", "read_deployment"]

DEPLOYMENTS = Path(__file__).parent / "deployments"
"""The folder of those that come with vcore."""

Count = Annotated[int, Field(ge=1)]


class Deployment(BaseModel):
    """A model on a machine: how long steps take, and how much fits."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """What and where."""
    derived_from: str = ""
    """Where the figures come from, for people."""
    step_time: StepTimeModel
    cache_tokens: Count | None = None
    """Tokens that the KV cache holds; None if it must be said."""
    max_num_seqs: Annotated[int, Field(ge=1, le=2**20)] = 256
    """Where the configuration leaves it open."""
    max_num_batched_tokens: Count = 8192
    """Where the configuration leaves it open."""


def read_deployment(name: str) -> Deployment:
    """A deployment by the name of one that comes with vcore, or from a JSON file.

    Raises:
        ConfigError: there is neither, or the file is no deployment.
    """
    known = sorted(path.stem for path in DEPLOYMENTS.glob("*.json"))
    path = DEPLOYMENTS / f"{name}.json" if name in known else Path(name)
    try:
        return Deployment.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"--deployment: found {name!r}, expected the path of a file (as --calibrate writes it), or one of "
            f"{', '.join(known)}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--deployment: cannot read {path}: {error}") from None
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in error.errors())
        raise ConfigError(f"--deployment: {path} is no deployment: {found}") from None
