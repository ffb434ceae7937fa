"""Where the decode kernels leave the partial results that the merging kernel reads.

It is allocated when the layers are built and never again, so that addresses captured in a CUDA graph
stay valid. Layers of equal shape share one: they run one after another on one stream.
"""

from __future__ import annotations

import torch

from vcore_backends.triton_paged.configs import decode_config, shared_config
from vcore_backends.triton_paged.decode import partial_rows
from vcore_backends.triton_paged.shared_prefix import num_shared_splits
from vcore_backends.triton_paged.tiles import row_class

__all__ = ["Workspace"]


class Workspace:
    """Partial results of one layer shape, for any batch of up to `max_requests` decode rows."""

    __slots__ = ("max_requests", "partial", "partial_lse", "shared", "shared_lse")

    def __init__(
        self,
        *,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
        max_num_seqs: int,
        num_sms: int,
        shared_prefix: bool = False,
    ) -> None:
        self.max_requests = row_class(max_num_seqs)
        """Padded batches may be larger than `max_num_seqs`; they are never larger than this."""
        rows = max(
            partial_rows(
                decode_config(itemsize=dtype.itemsize, head_dim=head_dim, num_requests=num_requests),
                num_requests=num_requests,
                num_kv_heads=num_kv_heads,
                num_sms=num_sms,
            )
            for num_requests in range(1, self.max_requests + 1)
        )
        self.partial = torch.empty(rows, num_heads, head_dim, dtype=torch.float32, device=device)
        self.partial_lse = torch.empty(rows, num_heads, dtype=torch.float32, device=device)
        shared_rows = 0
        if shared_prefix:
            group, itemsize = num_heads // num_kv_heads, dtype.itemsize
            for num_requests in range(2, self.max_requests + 1):
                num_queries = num_requests * group
                config = shared_config(itemsize=itemsize, head_dim=head_dim, num_queries=num_queries)
                num_splits = num_shared_splits(config, num_queries, num_kv_heads, num_sms)
                shared_rows = max(shared_rows, num_splits * num_requests)
        self.shared = torch.empty(shared_rows, num_heads, head_dim, dtype=torch.float32, device=device)
        self.shared_lse = torch.empty(shared_rows, num_heads, dtype=torch.float32, device=device)
