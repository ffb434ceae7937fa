"""`Resolution`: what a configuration came to on this machine, with the objects that the engine is composed from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vcore.config import EngineConfig
from vcore.engine.outline import ModelOutline
from vcore.engine.pooling import ModelPooling
from vcore.engine.resolve.decisions import Decision
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.weights import WeightLoader
from vcore.plugins.entry import CatalogEntry
from vcore.scheduler.settings import largest_chunk

if TYPE_CHECKING:
    import torch

__all__ = ["Resolution"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """A configuration without ``auto``, and everything that was found on the way."""

    config: EngineConfig
    """Without ``auto``, but for `cache.num_blocks`, which is known once the model is loaded, and `chat`, whose parsers
    are chosen by who parses answers, with the chat template at hand."""
    decisions: tuple[Decision, ...]
    """What each ``auto`` became, in the order of the tree."""
    model_path: Path
    """The model's folder, or its one file."""
    hf_config: HFConfig
    generation_config: Mapping[str, object]
    """``generation_config.json``, or empty."""
    loader: WeightLoader
    """Created; nothing but the config has been read."""
    source_entry: CatalogEntry
    loader_entry: CatalogEntry
    model: CatalogEntry
    attention: CatalogEntry
    scheduling: CatalogEntry
    eviction: CatalogEntry
    executor: CatalogEntry
    observers: tuple[CatalogEntry, ...]
    """In the order of `observability.observers`."""
    structured_output: CatalogEntry | None
    """The logits processor that keeps texts to their form, if there is one."""
    device: torch.device
    dtype: torch.dtype
    max_model_len: int
    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    pooling: ModelPooling
    """How the model makes embeddings, if it does."""
    outline: ModelOutline | None
    """What the model will need, a rank; None if its plugin cannot build it without memory."""

    @property
    def kv_bytes_per_token(self) -> int | None:
        """Bytes of cache that a token takes over all layers of a rank, inside every window; None if it is not known."""
        return None if self.outline is None else self.outline.kv_bytes_per_token(self.block_size)

    @property
    def max_chunk(self) -> int:
        """Most tokens of one request in a step."""
        scheduler = self.config.scheduler
        threshold, chunked = scheduler.long_prefill_threshold, scheduler.chunked_prefill
        return largest_chunk(self.max_num_batched_tokens, threshold, chunked)

    @property
    def tokenizer_path(self) -> Path | None:
        """The folder of the tokenizer; None if there is none, or `model.skip_tokenizer` is set.

        A loader may have to convert the tokenizer first, so ask only when it is needed.
        """
        if self.config.model.skip_tokenizer:
            return None
        if self.config.model.tokenizer is not None:
            return Path(self.config.model.tokenizer)
        return self.loader.tokenizer_path()
