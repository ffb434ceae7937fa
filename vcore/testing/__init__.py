"""For tests of plugins: models and attention backends driven by hand, checkpoints that are dictionaries."""

from __future__ import annotations

from vcore._lazy import lazy_exports

_EXPORTS = {
    "attention_batch": ("build_attention_metadata",),
    "attention_case": ("AttentionCase",),
    "memory_checkpoint": ("MemoryCheckpoint",),
    "model_driver": ("ModelDriver",),
    "thread_collective": ("ThreadCollective",),
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
