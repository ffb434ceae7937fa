"""`CausalLM`: what decoder-only language models have in common, from the embedding to the logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import nn

from vcore.interfaces.attention import AttentionContext
from vcore.interfaces.model import BuildContext, Model
from vcore.interfaces.weights import CheckpointReader
from vcore.kv_cache.spec import KVCacheSpec
from vcore.layers.attention import collect_kv_cache_specs
from vcore.layers.config_checks import check_sizes
from vcore.layers.embedding import LMHead, VocabParallelEmbedding
from vcore.layers.norm import NormStyle
from vcore.layers.weights import WeightMap, load_weights

__all__ = ["CausalLM", "DecoderLayer"]


class DecoderLayer(nn.Module):
    """Attention, then a feed-forward network, each from the norm to the residual stream."""

    def __init__(self, self_attn: nn.Module, mlp: nn.Module) -> None:
        """Args:
        self_attn: takes ``(x, residual, rotation, attn)``, as `AttentionBlock` does.
        mlp: takes ``(x, residual)``, as `GatedMLP` does.
        """
        super().__init__()
        self.self_attn = self_attn
        self.mlp = mlp

    def forward(
        self, x: torch.Tensor, residual: torch.Tensor | None, rotation: object, attn: AttentionContext
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the layer adds last to the residual stream, and the stream before that."""
        x, residual = self.self_attn(x, residual, rotation, attn)
        added: tuple[torch.Tensor, torch.Tensor] = self.mlp(x, residual)
        return added


class DecoderStack(nn.Module):
    """Everything below the LM head."""

    def __init__(
        self,
        embed_tokens: VocabParallelEmbedding,
        rotary: nn.Module | None,
        layers: Sequence[nn.Module],
        norm: nn.Module,
    ) -> None:
        super().__init__()
        self.embed_tokens = embed_tokens
        self.rotary = rotary
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(self, x: torch.Tensor, positions: torch.Tensor, attn: AttentionContext) -> torch.Tensor:
        """Embedded tokens, [num_tokens, hidden_size], to hidden states after the final norm."""
        rotation = None if self.rotary is None else self.rotary(positions)
        residual: torch.Tensor | None = None
        for layer in self.layers:
            x, residual = layer(x, residual, rotation, attn)
        x, _ = self.norm(x, residual)
        return x


class CausalLM(Model):
    """Embedding, layers, final norm, LM head, with the module names of Hugging Face checkpoints.

    A subclass states `weight_map` and calls `__init__` with the parts that make its architecture. Parameters:
    ``model.embed_tokens``, ``model.layers.N`` (what `make_layer` gives), ``model.norm``, ``lm_head``.
    """

    weight_map: ClassVar[WeightMap]
    """How the names of parameters become those of checkpoints."""

    def __init__(
        self,
        context: BuildContext,
        *,
        make_layer: Callable[[int], nn.Module],
        norms: NormStyle,
        rotary: nn.Module | None,
        embedding_scale: float | None = None,
        logits_soft_cap: float | None = None,
    ) -> None:
        """Args:
        context: its config says how many layers, the sizes, and whether embeddings are tied.
        make_layer: makes layer i, which takes ``(x, residual, rotation, attn)`` as `DecoderLayer` does.
        norms: of which kind the final norm is.
        rotary: takes positions, int64 [num_tokens], to what layers get as `rotation`, once a step; None for nothing.
        embedding_scale: embedded tokens are multiplied by it.
        logits_soft_cap: logits become ``soft_cap * tanh(logits / soft_cap)``.

        Raises:
            UnsupportedModelError: the config lacks a size, or it is no whole number above zero.
        """
        super().__init__()
        config = context.config
        check_sizes(
            config,
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
        )
        embed_tokens = VocabParallelEmbedding(context, config.vocab_size, config.hidden_size)
        layers = [make_layer(layer_index) for layer_index in range(config.num_hidden_layers)]
        self.model = DecoderStack(embed_tokens, rotary, layers, norms.build(context, config.hidden_size))
        tied = embed_tokens if config.get("tie_word_embeddings", False) else None
        self.lm_head = LMHead(context, config.vocab_size, config.hidden_size, tied=tied)
        self._embedding_scale = embedding_scale
        self._logits_soft_cap = logits_soft_cap

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        attn: AttentionContext,
        intermediate: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if intermediate is not None:
            x = intermediate
        else:
            x = self.model.embed_tokens(input_ids)
            if self._embedding_scale is not None:
                x = x * torch.tensor(self._embedding_scale, dtype=x.dtype)  # rounded to the dtype, as in training
        hidden_states: torch.Tensor = self.model(x, positions, attn)
        return hidden_states

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.lm_head(hidden_states)
        cap = self._logits_soft_cap
        return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)

    def load_weights(self, checkpoint: CheckpointReader) -> None:
        load_weights(self, checkpoint, self.weight_map)

    def kv_cache_specs(self) -> Sequence[KVCacheSpec]:
        return collect_kv_cache_specs(self)
