"""vcore: an LLM inference engine whose every choice is a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcore._lazy import lazy_exports
from vcore.version import __version__

if TYPE_CHECKING:  # what type checkers see of the names below
    from vcore.config import *  # noqa: F403
    from vcore.engine.async_llm import *  # noqa: F403
    from vcore.engine.llm import *  # noqa: F403
    from vcore.errors import *  # noqa: F403
    from vcore.outputs import *  # noqa: F403
    from vcore.pooling_params import *  # noqa: F403
    from vcore.sampling_params import *  # noqa: F403
    from vcore.structured_output import *  # noqa: F403

_EXPORTS = {
    "config": ("EngineConfig",),
    "engine.async_llm": (
        "AsyncLLM",
        "BlockMap",
        "EngineListener",
        "EngineStatus",
        "RequestRecord",
        "RestartPolicy",
        "StepRecord",
    ),
    "engine.llm": ("LLM",),
    "errors": ("RequestError", "VcoreError"),
    "outputs": ("CompletionOutput", "EmbeddingOutput", "RequestOutput"),
    "pooling_params": ("PoolingParams",),
    "sampling_params": ("SamplingParams",),
    "structured_output": ("StructuredOutput",),
}

_names, __getattr__, _dir = lazy_exports(__name__, _EXPORTS)
__all__ = [*_names, "__version__"]


def __dir__() -> list[str]:
    return __all__
