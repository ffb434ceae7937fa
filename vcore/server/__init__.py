"""The HTTP server in front of an `AsyncLLM`. It knows no step, no block and no tensor.

lifecycle      from the start to the end        preflight      what is found wrong before a model is loaded
http_server    connections and their limits     ending         signals, drain, the death of the engine
app            everything put together          middleware/    request ids, keys, bodies, the last resort
routes/        one file a group of endpoints    protocol/      what requests and answers look like
generation     one HTTP request's prompts, run  sse            answers that come piece by piece
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcore._lazy import lazy_exports

if TYPE_CHECKING:  # what type checkers see of the names below
    from vcore.server.app import *  # noqa: F403

_EXPORTS = {"app": ("create_app",)}

_names, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
__all__ = [*_names]
