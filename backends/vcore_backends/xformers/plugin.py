"""Registers the xformers attention backend."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins import AttentionBackendSpec, AttentionCapabilities, hookimpl

__all__ = ["vcore_attention_backends"]


@hookimpl
def vcore_attention_backends() -> Sequence[AttentionBackendSpec]:
    """One backend, behind vcore's own kernels and flash-attn's in rank."""
    return [
        AttentionBackendSpec(
            name="xformers",
            load="vcore_backends.xformers.backend:XFormersBackend",
            api="1.0",
            summary="xformers: its split-KV Triton kernel over the paged cache, PyTorch's flash attention for prompts",
            rank=10,
            # Its decode kernel is written with block pointers, which Triton 3.9 no longer has.
            requires=("xformers>=0.0.35", "triton<3.9"),
            capabilities=AttentionCapabilities(
                devices=("cuda",),
                dtypes=("bfloat16", "float16"),
                head_dims=(32, 64, 128, 256),
                block_sizes=(64,),
                features=frozenset({"sliding_window", "non_causal"}),
                graph_support="decode",
                min_compute_capability=(8, 0),
            ),
        )
    ]
