"""`XFormers`: the two operators and the masks that the backend uses of the library.

The operators are called by their `apply`, not by the dispatching functions: those refuse every operator where the
library's C++ part does not load, which these two do not need, and check shapes anew in every layer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

__all__ = ["LOAD_ERRORS", "XFormers"]

LOAD_ERRORS = (ImportError, OSError, RuntimeError, AttributeError)
"""What a library of another build, or beside another torch or flash-attn, raises when it is imported."""


class XFormers:
    """Making one imports the library."""

    def __init__(self) -> None:
        """Raises:
        ImportError: it is not installed, or does not go with this torch, or with the flash-attn that is installed.
        """
        from xformers.ops.fmha import Inputs, attn_bias, flash, triton_splitk

        self._inputs = Inputs
        self._masks = attn_bias
        self._flash = flash.FwOp
        self._split_kv = triton_splitk.FwOp
        self._paged_masks: dict[tuple[int, int, bool], Any] = {}

    def reasons(self) -> list[str]:
        """Why its operators do not run here."""
        operators = {"flash.FwOp": self._flash, "triton_splitk.FwOp": self._split_kv}
        return [
            f"xformers lists {name} as not available: see `python -m xformers.info`"
            for name, operator in operators.items()
            if not operator.is_available()
        ]

    def paged_mask(
        self, seq_lens: torch.Tensor, block_table: torch.Tensor, page_size: int, starts: torch.Tensor | None
    ) -> Any:
        """The mask of rows of one query each.

        What is constant in it is made once for a shape, by a copy from the host, which no CUDA graph could capture.

        Args:
            seq_lens: int32 [num_rows]: one past the last key that a row sees.
            block_table: int32 [num_rows, width]: its pages.
            page_size: tokens a page holds.
            starts: int32 [num_rows]: the first key that a row sees; None: 0.
        """
        num_rows, width = block_table.shape
        key = (num_rows, width, starts is not None)
        if key not in self._paged_masks:
            self._paged_masks[key] = self._make_paged_mask(block_table, page_size, starts is not None)
        mask = self._paged_masks[key]
        keys = replace(mask.k_seqinfo, seqlen=seq_lens)
        if starts is not None:
            keys = replace(keys, seqstart=starts)
        return replace(mask, k_seqinfo=keys, block_tables=block_table)

    def _make_paged_mask(self, block_table: torch.Tensor, page_size: int, has_starts: bool) -> Any:
        masks, device = self._masks, block_table.device
        num_rows, width = block_table.shape
        ones, capacity = [1] * num_rows, width * page_size
        if has_starts:
            # The paged mask's own constructor contradicts itself in version 0.0.35.
            starts = list(range(0, (num_rows + 1) * capacity, capacity))
            unpaged = masks.BlockDiagonalGappyKeysMask.from_seqlens(ones, starts, ones, device=device)
            paged_type = masks.PagedBlockDiagonalGappyKeysMask
            mask = unpaged.make_paged(block_table, page_size, capacity, paged_type)
        else:
            paged_type = masks.PagedBlockDiagonalPaddedKeysMask
            mask = paged_type.from_seqlens(ones, ones, block_table, page_size, device=device)
        return replace(mask, block_tables=None)  # those of each step are put in its place

    def block_mask(
        self,
        query_lens: list[int],
        kv_lens: list[int],
        *,
        causal: bool,
        window: int | None,
        device: torch.device,
        kv_start_loc: torch.Tensor | None = None,
    ) -> Any:
        """The mask of ragged rows, aligned to the bottom right.

        Args:
            query_lens: queries of each row.
            kv_lens: keys of each row, or upper bounds.
            causal: whether a query sees no later key.
            window: how many keys it sees, its own included; None: all. Of causal masks alone.
            device: where the mask's tensors are made.
            kv_start_loc: int32 [num_rows + 1]: where each row's keys begin, if `kv_lens` are bounds.
        """
        mask = self._masks.BlockDiagonalMask.from_seqlens(query_lens, kv_lens, device=device)
        if window is not None:
            mask = mask.make_local_attention_from_bottomright(window)
        elif causal:
            mask = mask.make_causal_from_bottomright()
        if kv_start_loc is not None:
            mask = replace(mask, k_seqinfo=replace(mask.k_seqinfo, seqstart=kv_start_loc))
        return mask

    def decode(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any, scale: float) -> torch.Tensor:
        """Split-KV attention over pages, by a mask of `paged_mask`.

        Args:
            q: [num_rows, num_kv_heads, group, head_dim].
            k: [num_keys, num_kv_heads, group, head_dim]: the pages; heads of a group share memory.
            v: the same.
            mask: of the rows.
            scale: multiplies the scores.

        Returns:
            [num_rows, num_kv_heads, group, head_dim].
        """
        return self._apply(self._split_kv, q, k, v, mask, scale)

    def prefill(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any, scale: float) -> torch.Tensor:
        """Attention of ragged rows, by a mask of `block_mask`; shapes as those of `decode`."""
        return self._apply(self._flash, q, k, v, mask, scale)

    def _apply(
        self, operator: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any, scale: float
    ) -> torch.Tensor:
        inputs = self._inputs(query=q[None], key=k[None], value=v[None], attn_bias=mask, p=0.0, scale=scale)
        out: torch.Tensor = operator.apply(inputs, needs_gradient=False)[0]
        return out.reshape(q.shape)
