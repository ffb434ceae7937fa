"""Registers the triton_mla attention backend."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins import AttentionBackendSpec, AttentionCapabilities, hookimpl

__all__ = ["vcore_attention_backends"]


@hookimpl
def vcore_attention_backends() -> Sequence[AttentionBackendSpec]:
    """One backend: vcore's own Triton kernels for latent attention, and for nothing else."""
    return [
        AttentionBackendSpec(
            name="triton_mla",
            load="vcore_backends.triton_mla.backend:TritonMLABackend",
            api="1.0",
            summary="vcore's own Triton kernels for latent attention: absorbed split-KV decode and ragged prefill",
            rank=30,
            requires=("triton>=3.6",),
            capabilities=AttentionCapabilities(
                devices=("cuda",),
                dtypes=("bfloat16", "float16"),
                # Of layers other than latent ones, which it does not compute.
                head_dims=(),
                # Smaller blocks are served too, but take up to a fifth longer.
                block_sizes=(64,),
                features=frozenset({"mla"}),
                graph_support="decode",
                min_compute_capability=(8, 0),
            ),
        )
    ]
