"""The xformers backend: a step's decode rows go to its split-KV kernel, its longer rows to flash attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vcore.interfaces.attention import (
    AttentionBackend,
    AttentionBackendContext,
    AttentionLayer,
    AttentionMetadata,
    LayerSpec,
)
from vcore_backends.xformers.buckets import padded
from vcore_backends.xformers.decode import DecodeRows
from vcore_backends.xformers.library import LOAD_ERRORS, XFormers
from vcore_backends.xformers.pages import KVPages
from vcore_backends.xformers.prefill import PrefillRun, prefill_runs
from vcore_backends.xformers.scratch import Scratch

__all__ = ["XFormersBackend", "XFormersLayer", "XFormersPlan"]


class XFormersPlan:
    """A step. What layers of one kind need is planned when the first of them asks."""

    def __init__(self, library: XFormers, metadata: AttentionMetadata, block_size: int) -> None:
        self._library = library
        self._metadata = metadata
        self._block_size = block_size
        self._decode: dict[int | None, DecodeRows] = {}
        self._prefill: dict[tuple[bool, int | None], list[PrefillRun]] = {}
        self.num_decodes = metadata.num_decodes

    def decode(self, window: int | None) -> DecodeRows:
        """The decode rows, of which there is at least one, for layers of this window."""
        if window not in self._decode:
            self._decode[window] = DecodeRows(self._library, self._metadata, self._block_size, window)
        return self._decode[window]

    def prefill(self, causal: bool, window: int | None) -> list[PrefillRun]:
        """The other rows."""
        key = (causal, window)
        if key not in self._prefill:
            self._prefill[key] = prefill_runs(
                self._library, self._metadata, self._block_size, causal=causal, window=window
            )
        return self._prefill[key]


class XFormersLayer(AttentionLayer):
    """One layer's attention. Layers of equal spec are one object."""

    def __init__(self, library: XFormers, scratch: Scratch, spec: LayerSpec, max_model_len: int) -> None:
        self._library = library
        self._scratch = scratch
        self._spec = spec
        window = spec.sliding_window
        # A window that no context outgrows is none.
        self._window = window if window is not None and window < max_model_len else None
        self._grouped = (-1, spec.num_kv_heads, spec.num_heads // spec.num_kv_heads, spec.head_dim)

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer_cache: torch.Tensor,
        plan: object,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As the contract says; whole prompts take K and V as they are given, other rows out of the cache.

        Raises:
            ConfigError: the cache's blocks do not lie whole pages apart.
        """
        assert isinstance(plan, XFormersPlan)
        if out is None:
            out = torch.empty_like(q, memory_format=torch.contiguous_format)
        pages = KVPages.of(layer_cache)
        if plan.num_decodes:
            self._run_decode(plan.decode(self._window), q, pages, out)
        for run in plan.prefill(self._spec.causal, self._window):
            self._run_prefill(run, q, k, v, pages, out)
        return out

    def _run_decode(self, rows: DecodeRows, q: torch.Tensor, pages: KVPages, out: torch.Tensor) -> None:
        queries = padded(q[: rows.num_rows], rows.num_padded).view(self._grouped)
        mask = rows.mask(pages.pages_per_block)
        result = self._library.decode(queries, self._shared(pages.k), self._shared(pages.v), mask, self._spec.scale)
        out[: rows.num_rows].view(self._grouped).copy_(result[: rows.num_rows])

    def _run_prefill(
        self, run: PrefillRun, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pages: KVPages, out: torch.Tensor
    ) -> None:
        index = run.index(pages.pages_per_block)
        if index is None:
            k, v = k[run.tokens], v[run.tokens]
        else:
            k, v = self._scratch.gather(pages, index)
        queries = q[run.tokens].view(self._grouped)
        result = self._library.prefill(queries, self._shared(k), self._shared(v), run.mask, self._spec.scale)
        out[run.tokens].view(self._grouped).copy_(result)

    def _shared(self, heads: torch.Tensor) -> torch.Tensor:
        """[num_keys, num_kv_heads, head_dim] once for each query head of a group, in the same memory."""
        return heads.unsqueeze(2).expand(*self._grouped)


class XFormersBackend(AttentionBackend):
    """Builds `XFormersLayer`s and plans their steps."""

    def __init__(self, *, options: None, context: AttentionBackendContext) -> None:
        self._context = context
        self._library = XFormers()
        self._scratch = Scratch()
        self._layers: dict[LayerSpec, XFormersLayer] = {}

    def build_layer(self, spec: LayerSpec) -> XFormersLayer:
        """The layer for `spec`."""
        if spec not in self._layers:
            self._layers[spec] = XFormersLayer(self._library, self._scratch, spec, self._context.max_model_len)
        return self._layers[spec]

    def plan(self, metadata: AttentionMetadata) -> XFormersPlan:
        """The step. Of decode rows, the host's numbers give shapes alone, so that it can be captured."""
        return XFormersPlan(self._library, metadata, self._context.block_size)

    @classmethod
    def unsupported_reasons(cls, context: AttentionBackendContext, layers: Sequence[LayerSpec]) -> Sequence[str]:
        """A library that does not load or has not the operators, and layers that they do not compute."""
        reasons = [
            f"values of {spec.v_head_dim} dimensions beside keys of {spec.head_dim}; they must be equal"
            for spec in layers
            if spec.v_head_dim not in (None, spec.head_dim)
        ]
        reasons += [f"a scale of {spec.scale}; it must be positive" for spec in layers if spec.scale <= 0]
        if any(not spec.causal and spec.sliding_window is not None for spec in layers):
            reasons.append("a sliding window is supported in causal layers only")
        sizes = sorted({spec.num_kv_heads * spec.head_dim for spec in layers})
        if any(sizes[-1] % size for size in sizes):
            listed = ", ".join(str(size) for size in sizes)
            reasons.append(f"layers whose keys take {listed} numbers a token; the largest must be a multiple of each")
        try:
            reasons += XFormers().reasons()
        except LOAD_ERRORS as error:
            reasons.append(
                f"xformers is installed but does not load: {error}; install a build for torch {torch.__version__}"
            )
        return tuple(dict.fromkeys(reasons))
