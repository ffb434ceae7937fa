"""The options of the weight loaders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from vcore.config.models import PluginOptions

__all__ = ["GGUFOptions"]


class GGUFOptions(PluginOptions):
    """Options of the ``gguf`` loader."""

    converted_copy: bool = True
    """Keep a copy with the tokenizer and float32 weights beside the file, so that the next start is quick."""
    converted_folder: Path | None = None
    """Where to keep it; None: beside the file, or in the user's cache folder if that cannot be written."""
    max_converted_gib: Annotated[float, Field(ge=0.0)] = 8.0
    """Weights that would take more, in GiB, are not copied but dequantised at each start."""
