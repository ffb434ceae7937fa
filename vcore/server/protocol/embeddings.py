"""``/v1/embeddings``."""

from __future__ import annotations

from typing import Literal

from vcore.server.protocol.common import RequestModel
from vcore.server.protocol.completions import PromptForms
from vcore.server.protocol.numbers import Count

__all__ = ["EmbeddingsRequest"]


class EmbeddingsRequest(RequestModel):
    """Texts to embed."""

    model: str | None = None
    input: PromptForms
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    user: str | None = None
