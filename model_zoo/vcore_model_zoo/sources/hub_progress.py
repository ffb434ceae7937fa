"""Turns the progress bars that ``huggingface_hub`` makes into calls of a `ProgressCallback`."""

from __future__ import annotations

import io
from typing import Any

from vcore.interfaces.sources import ProgressCallback

__all__ = ["progress_bar_class"]


def progress_bar_class(description: str, progress: ProgressCallback | None) -> Any:
    """A class of progress bars that draw nothing, and tell `progress` of bytes."""
    from huggingface_hub.utils import tqdm

    class CallbackBar(tqdm):  # type: ignore[misc]  # the base class is untyped
        def __init__(self, *args: Any, **keywords: Any) -> None:
            # Without a terminal the base class would be disabled, and then count nothing.
            keywords.update(file=io.StringIO(), disable=False)
            super().__init__(*args, **keywords)

        def update(self, n: float | None = 1) -> Any:
            result = super().update(n)
            if progress is not None and getattr(self, "unit", "") == "B":
                progress(description, int(self.n), int(self.total) if self.total else None)
            return result

    return CallbackBar
