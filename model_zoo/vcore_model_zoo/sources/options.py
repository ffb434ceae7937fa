"""The options of the model sources."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from vcore.config.models import PluginOptions

__all__ = ["HubOptions"]


class HubOptions(PluginOptions):
    """Options of the ``hub`` source."""

    endpoint: str | None = None
    """The hub's address, such as a mirror's; None: huggingface_hub's own choice."""
    token: SecretStr | None = None
    """An access token, for private and gated models; None: the one that ``hf auth login`` stored, if any."""
    revision: str | None = None
    """A branch, tag or commit; None: the main branch."""
    gguf_file: str | None = None
    """A file name, or a pattern such as ``*Q4_K_M.gguf``: fetch this instead of safetensors."""
    cache_dir: Path | None = None
    """Where to keep files; None: huggingface_hub's own cache, which other programs share."""
