"""Registers the torch_sdpa attention backend."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins import AttentionBackendSpec, AttentionCapabilities, hookimpl


@hookimpl
def vcore_attention_backends() -> Sequence[AttentionBackendSpec]:
    return [
        AttentionBackendSpec(
            name="torch_sdpa",
            load="vcore_backends.torch_sdpa.backend:TorchSDPABackend",
            api="1.0",
            summary="PyTorch's scaled_dot_product_attention over gathered blocks; runs on every device",
            # Kernels that read the blocks in place come before it wherever they run.
            rank=0,
            capabilities=AttentionCapabilities(
                devices=("*",),
                dtypes=("float32", "bfloat16", "float16"),
                head_dims=None,
                block_sizes=None,
                features=frozenset({"sliding_window", "soft_cap", "non_causal", "mla"}),
            ),
        )
    ]
