"""The flash_attn backends: each step is one call of the library for its decode rows, and one for the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from vcore.interfaces.attention import (
    AttentionBackend,
    AttentionBackendContext,
    AttentionLayer,
    AttentionMetadata,
    LayerSpec,
)
from vcore_backends.flash_attn.fa2 import FlashAttention2
from vcore_backends.flash_attn.fa3 import FlashAttention3
from vcore_backends.flash_attn.fa4 import FlashAttention4
from vcore_backends.flash_attn.library import FlashAttention, Scores
from vcore_backends.flash_attn.rows import StepRows, plan_rows

__all__ = ["FlashAttention2Backend", "FlashAttention3Backend", "FlashAttention4Backend", "FlashAttentionLayer"]


class FlashAttentionLayer(AttentionLayer):
    """One layer's attention. Layers of equal spec are one object."""

    def __init__(self, library: FlashAttention, scores: Scores) -> None:
        self._library = library
        self._scores = scores

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer_cache: torch.Tensor,
        plan: object,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As the contract says; K and V are read from the cache alone."""
        assert isinstance(plan, StepRows)
        num_decodes, prefill = plan.num_decodes, plan.prefill
        if prefill is None:
            return _put(self._decode(q, layer_cache, plan), out)
        k_cache, v_cache = layer_cache.unbind(1)
        queries = q[num_decodes:]
        if not num_decodes:
            return _put(self._library.prefill(queries, k_cache, v_cache, prefill, self._scores), out)
        if out is None:
            out = torch.empty_like(q, memory_format=torch.contiguous_format)
        # The library has no argument for where results go.
        out[:num_decodes].copy_(self._decode(q[:num_decodes], layer_cache, plan))
        out[num_decodes:].copy_(self._library.prefill(queries, k_cache, v_cache, prefill, self._scores))
        return out

    def _decode(self, q: torch.Tensor, layer_cache: torch.Tensor, plan: StepRows) -> torch.Tensor:
        k_cache, v_cache = layer_cache.unbind(1)
        return self._library.decode(q, k_cache, v_cache, plan.decode_seq_lens, plan.decode_block_table, self._scores)


def _put(result: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    return result if out is None else out.copy_(result)


class _FlashAttentionBackend(AttentionBackend):
    """What the versions have in common."""

    library: ClassVar[type[FlashAttention]]

    def __init__(self, *, options: None, context: AttentionBackendContext) -> None:
        self._context = context
        self._library = self.library()
        self._layers: dict[LayerSpec, FlashAttentionLayer] = {}

    def build_layer(self, spec: LayerSpec) -> FlashAttentionLayer:
        """The layer for `spec`."""
        if spec not in self._layers:
            scores = Scores.of(spec, self._context.max_model_len)
            self._layers[spec] = FlashAttentionLayer(self._library, scores)
        return self._layers[spec]

    def plan(self, metadata: AttentionMetadata) -> StepRows:
        """The step's rows; nothing is read from the device."""
        return plan_rows(metadata, sums_lengths=self._library.sums_lengths)

    @classmethod
    def unsupported_reasons(cls, context: AttentionBackendContext, layers: Sequence[LayerSpec]) -> Sequence[str]:
        """A library that does not load, a device that lacks kernels, layers that the kernels do not compute."""
        reasons = [
            f"values of {spec.v_head_dim} dimensions beside keys of {spec.head_dim}; they must be equal"
            for spec in layers
            if spec.v_head_dim not in (None, spec.head_dim)
        ]
        reasons += [f"a scale of {spec.scale}; it must be positive" for spec in layers if spec.scale <= 0]
        if any(not spec.causal and spec.sliding_window is not None for spec in layers):
            reasons.append("a sliding window is supported in causal layers only")
        device_reason = cls.library.device_reason(context.device)
        if device_reason is not None:
            reasons.append(device_reason)
        try:
            cls.library()
        except (ImportError, OSError, RuntimeError, AttributeError) as error:  # what a library of another build raises
            reasons.append(
                f"the library is installed but does not load: {error}; install a build for torch {torch.__version__}"
            )
        return tuple(dict.fromkeys(reasons))


class FlashAttention2Backend(_FlashAttentionBackend):
    """flash-attn 2 over blocks of a multiple of 256 tokens."""

    library = FlashAttention2


class FlashAttention3Backend(_FlashAttentionBackend):
    """flash-attn 3 on Hopper."""

    library = FlashAttention3


class FlashAttention4Backend(_FlashAttentionBackend):
    """flash-attn 4 on Hopper and Blackwell."""

    library = FlashAttention4
