"""`Workspace`: where the kernel of the absorbed form leaves the partial results that the merging kernel reads.

It is allocated when the layers are built and never again, so that addresses captured in a CUDA graph
stay valid. Layers of equal shape share one: they run one after another on one stream.
"""

from __future__ import annotations

import torch

from vcore.interfaces.attention import LatentSpec
from vcore_backends.triton_mla.absorbed import partial_rows
from vcore_backends.triton_mla.configs import chunk_config, decode_config

__all__ = ["Workspace"]


class Workspace:
    """Partial results of layers of one shape, for batches of any size."""

    __slots__ = ("partial", "partial_lse")

    def __init__(
        self, spec: LatentSpec, *, dtype: torch.dtype, device: torch.device, max_num_seqs: int, num_sms: int
    ) -> None:
        itemsize = dtype.itemsize
        sizes = range(1, max_num_seqs + 1)
        configs = {
            decode_config(itemsize=itemsize, num_heads=spec.num_heads, num_requests=num_requests)
            for num_requests in sizes
        } | {chunk_config(itemsize=itemsize)}
        # Padded batches may be larger than any that was asked about here, but the last entry has no limits.
        configs.add(decode_config(itemsize=itemsize, num_heads=spec.num_heads, num_requests=1 << 30))
        rows = max(partial_rows(config, num_heads=spec.num_heads, num_sms=num_sms) for config in configs)
        self.partial = torch.empty(rows, spec.kv_lora_rank, dtype=torch.float32, device=device)
        """A row is one query of one head."""
        self.partial_lse = torch.empty(rows, dtype=torch.float32, device=device)
