"""`TransformersModel`: a causal language model of transformers, with vcore's paged attention under its modules.

Everything but attention is transformers' own code: norms, projections, rotary angles, experts. It runs over one row of
all tokens of a step, whose positions are given, and so knows nothing of requests. It fuses nothing, captures no graphs
and is not split over ranks: a plugin of its own is faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from vcore.errors import ConfigError
from vcore.interfaces.attention import AttentionContext
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import BuildContext, Model
from vcore.interfaces.weights import CheckpointReader
from vcore.kv_cache.spec import KVCacheSpec
from vcore.layers import Attention, collect_kv_cache_specs
from vcore_model_zoo.transformers_fallback.describe import describe
from vcore_model_zoo.transformers_fallback.hf_class import causal_lm_class, check_length, transformers_config
from vcore_model_zoo.transformers_fallback.logits_head import LogitsHead, decoder_path
from vcore_model_zoo.transformers_fallback.paged_attention import STEP, PagedStep
from vcore_model_zoo.transformers_fallback.weights import check_names, load_model

__all__ = ["TransformersModel"]


class TransformersModel(Model):
    """Any causal language model that transformers has, as far as its attention interface allows."""

    def __init__(self, *, options: None, context: BuildContext) -> None:
        """Build it without memory; weights get theirs when they are loaded.

        Raises:
            UnsupportedModelError: transformers does not have the model, or its interface does not allow it.
            ConfigError: there are several ranks, or `max_model_len` is beyond what the rotary scaling allows here.
        """
        super().__init__()
        if context.tp_size > 1:
            raise ConfigError(
                f"runtime.tensor_parallel_size is {context.tp_size}, but transformers' modules are not split over "
                "ranks. Set it to 1, or use a model plugin of the architecture's own."
            )
        self._config = transformers_config(context.config)
        self._class = causal_lm_class(context.config, self._config)
        check_length(self._config, context.max_model_len)
        vocab_size = self._config.get_text_config().vocab_size
        described = describe(self._class, self._config, context.dtype, vocab_size)
        self._dtype, self._device = context.dtype, context.device
        self._specs = described.layers
        self._attention = nn.ModuleList(Attention(context, index, spec) for index, spec in enumerate(self._specs))
        self._set_model(described.model)

    @classmethod
    def complete_config(cls, config: HFConfig) -> HFConfig:
        """`config` with the vocabulary and length that transformers takes where it states none.

        Raises:
            UnsupportedModelError: transformers does not have the model, or its class cannot be run.
        """
        made = transformers_config(config)
        causal_lm_class(config, made)
        text = made.get_text_config()
        known = {key: getattr(text, key, None) for key in ("vocab_size", "max_position_embeddings")}
        added = {key: value for key, value in known.items() if value is not None and key not in config}
        return HFConfig(config.to_dict() | added, config.origin) if added else config

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        attn: AttentionContext,
        intermediate: torch.Tensor | None = None,
    ) -> torch.Tensor:
        step = PagedStep(attn, self._attention, self._specs)
        output = self._decoder[0](
            input_ids=input_ids.unsqueeze(0), position_ids=positions.unsqueeze(0), use_cache=False, **{STEP: step}
        )
        hidden_states: torch.Tensor = output.last_hidden_state
        return hidden_states.squeeze(0)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self._head(hidden_states)

    def load_weights(self, checkpoint: CheckpointReader) -> None:
        """Let transformers make the model with the checkpoint's tensors, converted where it knows how.

        Raises:
            WeightsError: tensors are missing, surplus or of another shape.
            NotImplementedError: the model was built to be described only, and the names of the checkpoint's tensors
                alone do not tell whether they fit.
        """
        wanted, tied = self.hf_model.state_dict(), _tied_names(self.hf_model)
        if self._device.type == "meta":
            check_names(wanted, tied, checkpoint)
            return
        for name in tied:
            del wanted[name]
        model = load_model(self._class, self._config, checkpoint, wanted, self._dtype)
        self._set_model(model.to(self._device))

    def kv_cache_specs(self) -> Sequence[KVCacheSpec]:
        return collect_kv_cache_specs(self)

    def _set_model(self, model: PreTrainedModel) -> None:
        self.hf_model = model
        """transformers' model; on ``meta`` until `load_weights`."""
        self._decoder = (model.get_submodule(decoder_path(model)),)  # in a tuple, since it is a module of hf_model
        self._head = LogitsHead(model)


def _tied_names(model: nn.Module) -> set[str]:
    """Names of parameters that are another one's, under another name."""
    first = {name for name, _ in model.named_parameters()}
    return {name for name, _ in model.named_parameters(remove_duplicate=False)} - first
