"""`ModelOutline`: what a model will need, as numbers and specs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from vcore.interfaces.attention import LatentSpec, LayerSpec
from vcore.kv_cache.layout import CacheLayout, build_cache_layout
from vcore.kv_cache.needs import BlockNeeds
from vcore.kv_cache.spec import KVCacheSpec

__all__ = ["CacheKind", "ModelOutline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKind:
    """The layers whose caches are alike."""

    spec: KVCacheSpec
    num_layers: int

    @property
    def window(self) -> int | None:
        """How many tokens of a request stay in the cache; None for all of them."""
        return self.spec.window

    def bytes_per_token(self, block_size: int) -> int:
        """Of one layer, for a token that is kept; rounded up where a block's bytes do not divide."""
        return -(-self.spec.page_bytes(block_size) // block_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOutline:
    """What one rank of a model holds and asks for. Rank 0, where ranks differ."""

    layers: tuple[LayerSpec | LatentSpec, ...]
    """What the attention backend is asked for, in the order of building."""
    kv_cache_specs: tuple[KVCacheSpec, ...]
    """As `Model.kv_cache_specs` says: one a layer that keeps a cache."""
    num_parameters: int
    """Of this rank; weights that are shared (tied embeddings) counted once."""
    weight_bytes: int
    """The same in bytes."""

    @property
    def plain_layers(self) -> tuple[LayerSpec, ...]:
        """The layers of ordinary attention."""
        return tuple(layer for layer in self.layers if isinstance(layer, LayerSpec))

    @property
    def latent_layers(self) -> tuple[LatentSpec, ...]:
        """The layers of latent attention."""
        return tuple(layer for layer in self.layers if isinstance(layer, LatentSpec))

    @property
    def head_dims(self) -> tuple[int, ...]:
        """Every head dimension of queries, keys and values of ordinary attention, ascending."""
        layers = self.plain_layers
        return tuple(sorted({dim for layer in layers for dim in (layer.head_dim, layer.v_head_dim or layer.head_dim)}))

    @property
    def features(self) -> frozenset[str]:
        """What a backend must list, as in `AttentionCapabilities.features`, to serve every layer."""
        wanted = {feature for layer in self.plain_layers for feature in layer.required_features()}
        if self.latent_layers:
            wanted.add("mla")
        return frozenset(wanted)

    @property
    def cache_kinds(self) -> tuple[CacheKind, ...]:
        """The layers by what they keep, in the order of their first layer."""
        counts = Counter(self.kv_cache_specs)
        return tuple(CacheKind(spec=spec, num_layers=count) for spec, count in counts.items())

    def kv_bytes_per_token(self, block_size: int) -> int:
        """Bytes of cache that a token takes over all layers, as long as it is inside every window."""
        return sum(kind.num_layers * kind.bytes_per_token(block_size) for kind in self.cache_kinds)

    def kv_bytes_per_distant_token(self, block_size: int) -> int:
        """The same of a token that every window has left behind: layers without a window keep it."""
        kept = [kind for kind in self.cache_kinds if kind.window is None]
        return sum(kind.num_layers * kind.bytes_per_token(block_size) for kind in kept)

    def kv_bytes_per_request(self, num_tokens: int, block_size: int, max_chunk: int) -> int:
        """The most bytes of cache that one request of `num_tokens` tokens holds at a time, in whole blocks.

        Args:
            num_tokens: of the request.
            block_size: tokens a block holds.
            max_chunk: most tokens of one request in a step: a window's blocks are freed between steps.
        """
        layout = self.layout(block_size)
        needs = BlockNeeds(block_size, layout.windows, max_chunk)
        return needs.most_blocks(num_tokens) * layout.bytes_per_block

    def layout(self, block_size: int) -> CacheLayout:
        """How the layers share blocks, as the engine lays them out."""
        return build_cache_layout(self.kv_cache_specs, block_size)
