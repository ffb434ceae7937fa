"""`KVUpProjection`: from the latent of multi-head latent attention to keys and values, in both of its forms."""

from __future__ import annotations

import torch

from vcore.interfaces.attention import LatentSpec
from vcore.interfaces.model import BuildContext
from vcore.layers.linear import ColumnParallelLinear
from vcore.ops.latent_heads import absorb_queries, latent_values
from vcore.ops.linear import linear

__all__ = ["KVUpProjection"]


class KVUpProjection(ColumnParallelLinear):
    """``kv_b_proj``: the projections W_UK and W_UV of all heads, joined (DeepSeek-V2, arXiv:2405.04434, equations 10
    and 11), with the heads split over the ranks.

    Since ``q · (W_UK c) = (W_UKᵀ q) · c``, and a weighted sum of ``W_UV c`` is W_UV times that of ``c``, queries can
    be taken to the latent before attention, and its result from there to values afterwards (section 2.1.2). That
    needs the projections of each head by themselves: views of the one weight, which so must stay in the plain layout.
    """

    def __init__(self, context: BuildContext, spec: LatentSpec) -> None:
        """Args:
        context: the device, dtype and ranks to build for.
        spec: the layer; its heads are this rank's.
        """
        sizes = [spec.qk_nope_head_dim, spec.v_head_dim]
        super().__init__(context, spec.kv_lora_rank, context.tp_size * spec.num_heads * sum(sizes))
        self._sizes = sizes
        self._rank = spec.kv_lora_rank
        heads = self.weight.detach().view(spec.num_heads, sum(sizes), self._rank)  # [num_heads, nope + v, rank]
        self._w_uk, self._w_uv = torch.split(heads, sizes, 1)  # [num_heads, nope, rank], [num_heads, v, rank]

    def weights_loaded(self) -> None:
        """Nothing: a packed copy would be a second one."""

    def keys_and_values(self, latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The up-projected form.

        Args:
            latent: [num_tokens, latent_dim]: the latent, then the rotary key that all heads share.

        Returns:
            Keys [num_tokens, num_heads, qk_head_dim] and values [num_tokens, num_heads, v_head_dim], a view with
            strides.
        """
        joined = linear(latent[:, : self._rank], self.weight).view(len(latent), -1, sum(self._sizes))
        k_nope, v = torch.split(joined, self._sizes, -1)
        k_rope = latent[:, None, self._rank :].expand(-1, joined.shape[1], -1)
        return torch.cat((k_nope, k_rope), -1), v

    def absorb(self, q: torch.Tensor) -> torch.Tensor:
        """Queries [num_tokens, num_heads, qk_head_dim] taken to the latent: [num_tokens, num_heads, latent_dim]."""
        return absorb_queries(q, self._w_uk)

    def values(self, attended: torch.Tensor) -> torch.Tensor:
        """Attended latents [num_tokens, num_heads, rank] to values [num_tokens, num_heads, v_head_dim]."""
        return latent_values(attended, self._w_uv)
