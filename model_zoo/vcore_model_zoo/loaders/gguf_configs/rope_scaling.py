"""``rope_scaling``: how the rotary embedding of a GGUF file reaches further than the model was trained for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vcore.errors import UnsupportedModelError
from vcore_model_zoo.loaders.gguf_metadata import GGUFMetadata

__all__ = ["llama3_scaling", "rope_scaling"]


def rope_scaling(metadata: GGUFMetadata) -> dict[str, Any] | None:
    """What the keys ``rope.scaling.*`` say; None if there is no scaling.

    Raises:
        UnsupportedModelError: it is of a kind that these keys do not tell in full.
    """
    kind = metadata.get("rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise UnsupportedModelError(
            f"{metadata.origin}: rope.scaling.type is {kind!r}; vcore reads none, linear and yarn from GGUF. "
            "Use the model's safetensors files instead."
        )
    scaling = {"rope_type": kind, "factor": float(metadata.require("rope.scaling.factor"))}
    original = metadata.get("rope.scaling.original_context_length")
    if kind == "yarn" and original is not None:
        scaling["original_max_position_embeddings"] = int(original)
    return scaling


def llama3_scaling(metadata: GGUFMetadata, config: Mapping[str, Any]) -> dict[str, Any]:
    """Which ``llama3`` scaling gives the frequency factors that the tensor ``rope_freqs`` stores.

    All released models use the same bounds; the factor is the largest of the stored ones. The result is compared
    with what is stored, so that a model with other bounds is refused and not computed wrongly.

    Raises:
        UnsupportedModelError: no such scaling gives these factors.
    """
    stored = metadata.tensor_values("rope_freqs.weight")
    scaling = {
        "rope_type": "llama3",
        "factor": float(max(stored)),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    expected = _llama3_factors(scaling, config["head_dim"], config["rope_theta"])
    if len(stored) != len(expected) or not all(map(_nearly_equal, stored, expected)):
        raise UnsupportedModelError(
            f"{metadata.origin} stores rotary frequency factors that are not those of Llama 3's scaling with factor "
            f"{scaling['factor']:g}. Use the model's safetensors files, whose config.json states the scaling."
        )
    return scaling


def _nearly_equal(stored: float, expected: float) -> bool:
    return math.isclose(stored, expected, rel_tol=1e-3)


def _llama3_factors(scaling: Mapping[str, Any], head_dim: int, theta: float) -> list[float]:
    """By how much each rotary frequency is divided (Grattafiori et al. 2024, "The Llama 3 Herd of Models")."""
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    original = scaling["original_max_position_embeddings"]
    factors = []
    for pair in range(head_dim // 2):
        wavelength = 2 * math.pi * theta ** (2 * pair / head_dim)
        smooth = min(max((original / wavelength - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / factor + smooth))
    return factors
