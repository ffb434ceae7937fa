"""What a model architecture implements.

A model is an `nn.Module` that takes token ids and positions and gives hidden states. It knows its
layers and how a checkpoint's tensors map onto them; it does not know requests, blocks or policies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from vcore.interfaces.attention import AttentionBackend, AttentionContext
from vcore.interfaces.collective import Collective
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.weights import CheckpointReader
from vcore.kv_cache.spec import KVCacheSpec

__all__ = ["BuildContext", "Model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildContext:
    """What a model is built from. Modules are created on `device` in `dtype`, uninitialised."""

    config: HFConfig
    dtype: torch.dtype
    device: torch.device
    attention: AttentionBackend
    max_model_len: int
    tp_rank: int = 0
    tp_size: int = 1
    collective: Collective | None = None
    """How the ranks exchange tensors; needed where `tp_size` is above 1."""
    attention_fuses: frozenset[str] = frozenset()
    """`AttentionCapabilities.fuses` of the backend in `attention`: what the layers must leave to it."""
    moe_routing: Literal["model", "uniform"] = "model"
    """How tokens choose experts: by the model's own rule, or, for benchmarks, uniformly (`UniformRouting`)."""
    fused_write: bool = False
    """Whether layers normalise and turn queries and keys and write the cache in one kernel, where they can."""


class Model(nn.Module, ABC):
    """A causal language model (API 1.0).

    The plugin's `load` is called with ``options`` and ``context`` (a `BuildContext`).
    """

    @classmethod
    def complete_config(cls, config: HFConfig) -> HFConfig:
        """What a checkpoint's config means, in the keys that the engine reads.

        For architectures whose checkpoints leave out what equals a default, nest what is about text, or write lengths
        in a way of their own. The engine asks the class that `load` names, before it reads the number of tokens,
        the length or the sizes, and builds the model from the answer. It must take an answer of its own, too:
        a model that counts on it calls it in ``__init__``, so that it can be built without an engine.

        Args:
            config: the file's. Not changed.

        Raises:
            UnsupportedModelError: the model is none that the class can serve.
        """
        return config

    @abstractmethod
    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        attn: AttentionContext,
        intermediate: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states after the final norm.

        Args:
            input_ids: int64 [num_tokens], all requests' tokens one after another.
            positions: int64 [num_tokens], each token's position in its request.
            attn: the step's attention plan and caches; pass it on to each attention layer.
            intermediate: hidden states of the previous pipeline stage, or None.

        Returns:
            [num_tokens, hidden_size].
        """

    @abstractmethod
    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Logits [num_rows, vocab_size] of hidden states [num_rows, hidden_size].

        The result is the caller's: sampling changes it in place.
        """

    @abstractmethod
    def load_weights(self, checkpoint: CheckpointReader) -> None:
        """Fill every parameter from `checkpoint`.

        Raises:
            WeightsError: a tensor is missing, surplus or of the wrong shape; the message names it.
        """

    @abstractmethod
    def kv_cache_specs(self) -> Sequence[KVCacheSpec]:
        """One spec a layer that keeps a cache, in the order of `AttentionContext.layer_caches`."""
