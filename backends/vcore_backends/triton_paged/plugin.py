"""Registers the triton_paged attention backend."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins import AttentionBackendSpec, AttentionCapabilities, hookimpl

__all__ = ["vcore_attention_backends"]


@hookimpl
def vcore_attention_backends() -> Sequence[AttentionBackendSpec]:
    """One backend: vcore's own Triton kernels."""
    return [
        AttentionBackendSpec(
            name="triton_paged",
            load="vcore_backends.triton_paged.backend:TritonPagedBackend",
            api="1.0",
            options="vcore_backends.triton_paged.options:TritonPagedOptions",
            summary="vcore's own Triton kernels: split-KV decode and ragged prefill over the paged cache",
            rank=30,
            requires=("triton>=3.6",),
            capabilities=AttentionCapabilities(
                devices=("cuda",),
                dtypes=("bfloat16", "float16", "float32"),
                head_dims=(64, 80, 96, 128, 192, 256),
                block_sizes=(16,),
                features=frozenset({"sliding_window", "soft_cap"}),
                graph_support="decode",
                min_compute_capability=(8, 0),
            ),
        )
    ]
