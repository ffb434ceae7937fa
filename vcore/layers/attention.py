"""`Attention`: where a model hands its queries, keys and values to the attention backend.

What it has in common with other layers that keep a cache is `CachingLayer`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from vcore.errors import PluginBrokenError
from vcore.interfaces.attention import AttentionContext, LayerSpec
from vcore.interfaces.model import BuildContext
from vcore.kv_cache.spec import FullAttentionSpec, KVCacheSpec, SlidingWindowSpec
from vcore.ops.kv_write import kv_write

__all__ = ["Attention", "CachingLayer", "collect_kv_cache_specs"]


class CachingLayer(nn.Module):
    """A layer that keeps something of every token in the KV cache. Composed of such layers, a model states its
    cache by `collect_kv_cache_specs`."""

    layer_index: int
    """Its place in `AttentionContext.layer_caches`."""
    kv_cache_spec: KVCacheSpec
    """What it keeps."""


class Attention(CachingLayer):
    """Attention over a request's cached tokens: writes the step's K and V, then computes."""

    def __init__(self, context: BuildContext, layer_index: int, spec: LayerSpec) -> None:
        """Args:
        context: brings the backend.
        layer_index: this layer's place in `AttentionContext.layer_caches`.
        spec: what the backend is asked for. A window that no request outgrows is none: published configs have
            windows of twice the longest request, which no backend needs to know, nor the cache to free blocks behind.

        Raises:
            PluginBrokenError: the backend fuses what this layer cannot leave to it.
        """
        super().__init__()
        if spec.sliding_window is not None and spec.sliding_window >= context.max_model_len:
            spec = replace(spec, sliding_window=None)
        beyond = context.attention_fuses - {"kv_write"}
        if beyond:
            raise PluginBrokenError(
                f"the attention backend fuses {', '.join(sorted(beyond))}, but layers of this version leave only "
                f"kv_write to a backend. Choose another attention.backend."
            )
        self.layer_index = layer_index
        self.kv_cache_spec = _cache_spec(spec, context.dtype)
        self.writes_cache = "kv_write" not in context.attention_fuses
        """Whether K and V are written here, before the backend attends."""
        self._kernel = context.attention.build_layer(spec)

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn: AttentionContext) -> torch.Tensor:
        """Args:
            q: [num_tokens, num_heads, head_dim].
            k: [num_tokens, num_kv_heads, head_dim].
            v: the same.
            attn: the step's plan and caches; this layer's cache is written.

        Returns:
            [num_tokens, num_heads, head_dim].
        """
        if self.writes_cache:
            kv_write(k, v, *self.destination(k, attn))
        return self.attend(q, k, v, attn)

    def destination(
        self, k: torch.Tensor, attn: AttentionContext
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
        """Where the step's K and V go: the cache, slots and block offsets, as `kv_write` takes them."""
        layer_cache, group = attn.layer_caches[self.layer_index], attn.layer_groups[self.layer_index]
        # CUDA's kernel divides for itself.
        return layer_cache, group.slot_mapping, None if k.is_cuda else group.block_offsets(layer_cache.shape[2])

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn: AttentionContext) -> torch.Tensor:
        """As `forward`, with K and V in the cache already, unless the backend writes them."""
        return attn.run(self._attend, q, k, v)

    def _attend(
        self, attn: AttentionContext, out: torch.Tensor | None, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        layer_cache, group = attn.layer_caches[self.layer_index], attn.layer_groups[self.layer_index]
        return self._kernel.forward(q, k, v, layer_cache, group.plan, out)


def _cache_spec(spec: LayerSpec, dtype: torch.dtype) -> KVCacheSpec:
    if spec.sliding_window is None:
        return FullAttentionSpec(dtype=dtype, num_kv_heads=spec.num_kv_heads, head_dim=spec.head_dim)
    return SlidingWindowSpec(
        dtype=dtype, num_kv_heads=spec.num_kv_heads, head_dim=spec.head_dim, sliding_window=spec.sliding_window
    )


def collect_kv_cache_specs(model: nn.Module) -> list[KVCacheSpec]:
    """The specs of all layers in `model` that keep a cache, in the order of their `layer_index`."""
    layers = [module for module in model.modules() if isinstance(module, CachingLayer)]
    return [layer.kv_cache_spec for layer in sorted(layers, key=lambda layer: layer.layer_index)]
