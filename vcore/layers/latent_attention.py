"""`LatentAttention`: where a model hands its queries and latents to the attention backend."""

from __future__ import annotations

from functools import partial

import torch

from vcore.interfaces.attention import AttentionContext, GroupContext, LatentSpec
from vcore.interfaces.model import BuildContext
from vcore.kv_cache.spec import LatentCacheSpec
from vcore.layers.attention import CachingLayer
from vcore.layers.kv_up_projection import KVUpProjection
from vcore.layers.latent_prefill import LatentPiece, plan_prefill
from vcore.ops.merge_attention import merge_attention_

__all__ = ["LatentAttention"]


class LatentAttention(CachingLayer):
    """Latent attention over a request's cached tokens, this step's among them.

    Decode rows are computed in the absorbed form, prefill rows in whichever is cheaper (`latent_prefill`).
    """

    def __init__(self, context: BuildContext, layer_index: int, spec: LatentSpec, *, workspace_tokens: int) -> None:
        """Args:
        context: brings the backend.
        layer_index: this layer's place in `AttentionContext.layer_caches`.
        spec: what the backend is asked for.
        workspace_tokens: most tokens that are read from the cache and projected up at a time.
        """
        super().__init__()
        self.layer_index = layer_index
        self.kv_cache_spec = LatentCacheSpec(dtype=context.dtype, latent_dim=spec.latent_dim)
        self._spec = spec
        self._workspace_tokens = workspace_tokens
        self._kernel = context.attention.build_latent_layer(spec)

    def forward(
        self, q: torch.Tensor, latent: torch.Tensor, kv_b_proj: KVUpProjection, attn: AttentionContext
    ) -> torch.Tensor:
        """Args:
            q: [num_tokens, num_heads, qk_head_dim]: the part without position, then the rotary part, turned.
            latent: [num_tokens, latent_dim]: the normalised latent, then the rotary key, turned.
            kv_b_proj: from latents to keys and values.
            attn: the step's plan and caches; the step's latents are in this layer's cache already.

        Returns:
            [num_tokens, num_heads, v_head_dim].
        """
        return attn.run(partial(self._attend, kv_b_proj), q, latent)

    def destination(self, attn: AttentionContext) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the step's latents go: the cache and slots, as `latent_write` takes them."""
        return attn.layer_caches[self.layer_index], attn.layer_groups[self.layer_index].slot_mapping

    def _attend(
        self,
        kv_b_proj: KVUpProjection,
        attn: AttentionContext,
        out: torch.Tensor | None,
        q: torch.Tensor,
        latent: torch.Tensor,
    ) -> torch.Tensor:
        layer_cache, group = attn.layer_caches[self.layer_index], attn.layer_groups[self.layer_index]
        num_decodes = group.metadata.num_decodes
        pieces = None
        if num_decodes < group.metadata.num_tokens:
            pieces = self._pieces(group, layer_cache.shape[1])
        if pieces is None:
            parts = [self._absorbed(q, kv_b_proj, layer_cache, group)]
        else:
            parts = [self._up_projected(q[num_decodes:], latent[num_decodes:], kv_b_proj, layer_cache, pieces)]
            if num_decodes:
                parts.insert(0, self._absorbed(q[:num_decodes], kv_b_proj, layer_cache, group))
        if out is None and len(parts) == 1:
            return parts[0]
        return torch.cat(parts, out=out)

    def _pieces(self, group: GroupContext, block_size: int) -> list[LatentPiece] | None:
        """The step's plan, which all layers of one shape share."""

        def plan() -> list[LatentPiece] | None:
            return plan_prefill(
                group.metadata, self._spec, block_size=block_size, workspace_tokens=self._workspace_tokens
            )

        return group.shared((LatentAttention, self._spec, self._workspace_tokens), plan)

    def _absorbed(
        self, q: torch.Tensor, kv_b_proj: KVUpProjection, layer_cache: torch.Tensor, group: GroupContext
    ) -> torch.Tensor:
        attended = self._kernel.forward_absorbed(kv_b_proj.absorb(q), layer_cache, group.plan)
        return kv_b_proj.values(attended)

    def _up_projected(
        self,
        q: torch.Tensor,
        latent: torch.Tensor,
        kv_b_proj: KVUpProjection,
        layer_cache: torch.Tensor,
        pieces: list[LatentPiece],
    ) -> torch.Tensor:
        """Of the prefill rows, whose queries and latents are given."""
        cache_rows = layer_cache.view(-1, layer_cache.shape[-1])  # [num_slots, latent_dim]
        is_split = len(pieces) > 1

        def attend(piece: LatentPiece) -> tuple[torch.Tensor, torch.Tensor | None]:
            rows = latent if piece.slots is None else cache_rows.index_select(0, piece.slots)
            k, v = kv_b_proj.keys_and_values(rows)
            return self._kernel.forward_ragged(q[piece.queries], k, v, piece.batch, return_lse=is_split)

        out, lse = attend(pieces[0])
        for piece in pieces[1:]:
            further, further_lse = attend(piece)
            assert lse is not None
            assert further_lse is not None
            merge_attention_(out[piece.queries], lse[piece.queries], further, further_lse)
        return out
