"""What runs on one rank: the batch state, the step's input, the model and the sampler.

`ModelRunner` is what an executor drives; the other parts are its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcore._lazy import lazy_exports

if TYPE_CHECKING:  # what type checkers see of the names below
    from vcore.runner.model_runner import *  # noqa: F403
    from vcore.runner.settings import *  # noqa: F403

_EXPORTS = {
    "model_runner": ("ModelRunner",),
    "settings": ("RunnerSettings",),
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
