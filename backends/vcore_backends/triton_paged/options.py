"""The options of the triton_paged backend."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vcore.config.models import PluginOptions

__all__ = ["TritonPagedOptions"]


class TritonPagedOptions(PluginOptions):
    """Options of the ``triton_paged`` backend."""

    shared_prefix: bool = True
    """Read a beginning that all decoding requests of a step have in common once for all of them."""
    min_shared_blocks: Annotated[int, Field(ge=1)] = 8
    """Cache blocks that such a beginning must have to be worth it."""
