"""What is known of a model before anything is loaded: it is built without memory, and what it asks for is written down.

Never imports a kernel library, and reads no weights.
"""

from __future__ import annotations

from vcore.engine.outline.headers import HeaderCheckpoint, WeightFit, fit_weights
from vcore.engine.outline.meta_build import MetaModel, build_on_meta, outline_model
from vcore.engine.outline.model_outline import CacheKind, ModelOutline
from vcore.engine.outline.recording import RecordingAttention

__all__ = [
    "CacheKind",
    "HeaderCheckpoint",
    "MetaModel",
    "ModelOutline",
    "RecordingAttention",
    "WeightFit",
    "build_on_meta",
    "fit_weights",
    "outline_model",
]
