"""The layers whose attention is timed: plain and latent. Each knows its inputs, its bytes and its operations.

    case        plain attention                            latent attention
    decode      `AttentionLayer.forward`                   `LatentAttentionLayer.forward_absorbed`
    prefill     `AttentionLayer.forward`                   `LatentAttentionLayer.forward_ragged`

A case's plan is made once, before anything is timed. Caches (of a latent prefill keys and values, which come from no
cache) are rotated, so that a launch finds none of them in the device's own cache; queries are the same in each launch,
as in an engine they were computed just before. Block ids are shuffled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict

import torch

from vcore.bench.kernel_cases import KernelCase
from vcore.bench.kernel_timer import KernelTimer, Launches
from vcore.interfaces.attention import AttentionBackend, AttentionBackendContext, LatentSpec, LayerSpec
from vcore.testing.latent_case import build_ragged_batch
from vcore.testing.paged_batch import PagedBatch

__all__ = ["LatentLayer", "PlainLayer", "TimedLayer", "paged_batch"]


def paged_batch(case: KernelCase, *, block_size: int, dtype: torch.dtype, device: torch.device) -> PagedBatch:
    """The lengths, block tables and metadata of `case`."""
    requests = [(case.query_len, case.seq_len)] * case.num_requests
    return PagedBatch(requests, block_size=block_size, dtype=dtype, device=device, seed=0)


class TimedLayer(ABC):
    """One layer of a model, as far as attention goes."""

    features: frozenset[str]
    """What a backend must list to serve it."""
    head_dims: frozenset[int]
    """What a backend must serve."""
    spec: LayerSpec | LatentSpec

    def describe(self) -> dict[str, object]:
        """The spec, as plain data."""
        return asdict(self.spec)

    @abstractmethod
    def own_reasons(self, backend: type[AttentionBackend], context: AttentionBackendContext) -> Sequence[str]:
        """What the backend itself has against the layer."""

    @abstractmethod
    def bytes_read(self, case: KernelCase, itemsize: int) -> int:
        """Bytes of the cache that a decode must read: the whole context of each request, once."""

    @abstractmethod
    def operations(self, case: KernelCase) -> int:
        """Floating-point operations of a prefill: the two products of each query with each key that it sees.

        A multiplication and an addition count as two; the softmax and what a kernel masks do not count.
        """

    @abstractmethod
    def launches(
        self, backend: AttentionBackend, case: KernelCase, context: AttentionBackendContext, timer: KernelTimer
    ) -> Launches:
        """The attention of `case` over rotating random inputs."""


class PlainLayer(TimedLayer):
    """A layer that keeps keys and values of heads."""

    def __init__(self, *, num_heads: int, num_kv_heads: int, head_dim: int) -> None:
        """Args:
        num_heads: query heads, a multiple of `num_kv_heads`.
        num_kv_heads: key-value heads.
        head_dim: of queries, keys and values.
        """
        self.spec: LayerSpec = LayerSpec(
            num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim, scale=head_dim**-0.5
        )
        self.features = self.spec.required_features()
        self.head_dims = frozenset({head_dim})

    def own_reasons(self, backend: type[AttentionBackend], context: AttentionBackendContext) -> Sequence[str]:
        """`AttentionBackend.unsupported_reasons`."""
        return backend.unsupported_reasons(context, [self.spec])

    def bytes_read(self, case: KernelCase, itemsize: int) -> int:
        """A key and a value of each head and token."""
        return case.num_context_tokens * 2 * self.spec.num_kv_heads * self.spec.head_dim * itemsize

    def operations(self, case: KernelCase) -> int:
        """4 x head_dim a query head and pair of query and key."""
        return case.num_pairs * 4 * self.spec.num_heads * self.spec.head_dim

    def launches(
        self, backend: AttentionBackend, case: KernelCase, context: AttentionBackendContext, timer: KernelTimer
    ) -> Launches:
        """One `AttentionLayer.forward` each."""
        spec, size = self.spec, context.block_size
        batch = paged_batch(case, block_size=size, dtype=context.dtype, device=context.device)
        layer = backend.build_layer(spec)
        q, k, v = (
            _random((case.num_tokens, heads, spec.head_dim), context)
            for heads in (spec.num_heads, spec.num_kv_heads, spec.num_kv_heads)
        )
        shape = (_num_blocks(case, size), 2, size, spec.num_kv_heads, spec.head_dim)
        num_sets = timer.num_sets(self.bytes_read(case, context.dtype.itemsize))
        caches = [_random(shape, context) for _ in range(num_sets)]
        plan, out = backend.plan(batch.metadata), torch.empty_like(q)
        return Launches(lambda index: layer.forward(q, k, v, caches[index], plan, out), num_sets)


class LatentLayer(TimedLayer):
    """A layer of multi-head latent attention, with the dimensions of DeepSeek-V2 and V3 (arXiv:2405.04434)."""

    def __init__(self, *, num_heads: int) -> None:
        """Args:
        num_heads: query heads; DeepSeek-V2-Lite has 16.
        """
        self.spec: LatentSpec = LatentSpec(
            num_heads=num_heads,
            kv_lora_rank=512,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
            scale=192**-0.5,
        )
        self.features = frozenset({"mla"})
        self.head_dims = frozenset()  # a backend's do not apply to latent layers

    def own_reasons(self, backend: type[AttentionBackend], context: AttentionBackendContext) -> Sequence[str]:
        """`AttentionBackend.unsupported_latent_reasons`."""
        return backend.unsupported_latent_reasons(context, [self.spec])

    def bytes_read(self, case: KernelCase, itemsize: int) -> int:
        """A latent of each token, which is key and value at once."""
        return case.num_context_tokens * self.spec.latent_dim * itemsize

    def operations(self, case: KernelCase) -> int:
        """2 x (qk_head_dim + v_head_dim) a head and pair of query and key."""
        return case.num_pairs * 2 * self.spec.num_heads * (self.spec.qk_head_dim + self.spec.v_head_dim)

    def launches(
        self, backend: AttentionBackend, case: KernelCase, context: AttentionBackendContext, timer: KernelTimer
    ) -> Launches:
        """One `forward_absorbed` each of a decode, one `forward_ragged` each of a prefill."""
        make = self._absorbed if case.is_decode else self._ragged
        return make(backend, case, context, timer)

    def _absorbed(
        self, backend: AttentionBackend, case: KernelCase, context: AttentionBackendContext, timer: KernelTimer
    ) -> Launches:
        spec, size = self.spec, context.block_size
        batch = paged_batch(case, block_size=size, dtype=context.dtype, device=context.device)
        layer = backend.build_latent_layer(spec)
        q = _random((case.num_tokens, spec.num_heads, spec.latent_dim), context)
        out = q.new_empty((case.num_tokens, spec.num_heads, spec.kv_lora_rank))
        num_sets = timer.num_sets(self.bytes_read(case, context.dtype.itemsize))
        caches = [_random((_num_blocks(case, size), size, spec.latent_dim), context) for _ in range(num_sets)]
        plan = backend.plan(batch.metadata)
        return Launches(lambda index: layer.forward_absorbed(q, caches[index], plan, out), num_sets)

    def _ragged(
        self, backend: AttentionBackend, case: KernelCase, context: AttentionBackendContext, timer: KernelTimer
    ) -> Launches:
        spec, rows = self.spec, case.num_requests
        batch = build_ragged_batch([case.query_len] * rows, [case.seq_len] * rows, causal=True, device=context.device)
        layer = backend.build_latent_layer(spec)
        q = _random((case.num_tokens, spec.num_heads, spec.qk_head_dim), context)
        heads = (case.num_context_tokens, spec.num_heads)
        set_bytes = heads[0] * heads[1] * (spec.qk_head_dim + spec.v_head_dim) * context.dtype.itemsize
        num_sets = timer.num_sets(set_bytes)
        keys = [_random((*heads, spec.qk_head_dim), context) for _ in range(num_sets)]
        values = [_random((*heads, spec.v_head_dim), context) for _ in range(num_sets)]
        return Launches(lambda index: layer.forward_ragged(q, keys[index], values[index], batch), num_sets)


def _random(shape: tuple[int, ...], context: AttentionBackendContext) -> torch.Tensor:
    return torch.randn(shape, dtype=context.dtype, device=context.device)


def _num_blocks(case: KernelCase, block_size: int) -> int:
    """Of a cache, the null block included."""
    return 1 + case.num_requests * -(-case.seq_len // block_size)
