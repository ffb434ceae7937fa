"""`QueryTiles`: the chunks of a step cut into tiles of a few consecutive queries each.

request 0, five queries, after 40 cached tokens       request 1, two queries
[q0 q1 q2 q3] [q4]                                    [q5 q6]
 sees 44       sees 45                                 ...             of its context, by the tile's last query
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vcore.interfaces.attention import AttentionMetadata
from vcore.layers.ragged import send_int32

__all__ = ["QueryTiles"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryTiles:
    """Tiles of the rows that are no decode rows, all on the device: int32 [num_tiles] each."""

    lengths: torch.Tensor
    """Tokens that the tile's last query sees, itself included."""
    requests: torch.Tensor
    """Rows of the block table."""
    first_queries: torch.Tensor
    """Places in the step's queries."""
    num_queries: torch.Tensor

    @classmethod
    def cut(cls, metadata: AttentionMetadata, queries_per_tile: int) -> QueryTiles:
        """The tiles of a step that has such rows. Lengths are those on the device."""
        rows = np.arange(metadata.num_decodes, metadata.num_requests)
        starts = metadata.query_start_loc_cpu.astype(np.int64)
        counts = np.diff(starts)[rows]
        num_tiles = -(-counts // queries_per_tile)
        requests = np.repeat(rows, num_tiles)
        places = np.arange(num_tiles.sum()) - np.repeat(np.cumsum(num_tiles) - num_tiles, num_tiles)
        first = places * queries_per_tile  # in the chunk
        taken = np.minimum(np.repeat(counts, num_tiles) - first, queries_per_tile)
        behind = np.repeat(counts, num_tiles) - first - taken  # queries of the chunk after the tile
        arrays = [requests, starts[requests] + first, taken, behind]
        sent, first_queries, num_queries, queries_behind = send_int32(arrays, metadata.seq_lens.device)
        lengths = metadata.seq_lens.index_select(0, sent) - queries_behind
        return cls(lengths=lengths, requests=sent, first_queries=first_queries, num_queries=num_queries)
