"""`LogitsHead`: the part of a causal language model behind its decoder, whatever that is.

Between a decoder's hidden states and the logits there may be more than a matrix: scales, caps, projections. All of it
stands in the model's own ``forward``; so that is called, on a copy of the model whose decoder hands through what it
is given.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

__all__ = ["LogitsHead", "decoder_path"]


class LogitsHead:
    """Calls the head of a model. Shares the model's modules and weights, and is not one of its modules."""

    __slots__ = ("_shell",)

    def __init__(self, model: PreTrainedModel) -> None:
        """Args:
        model: of which `get_decoder` says what comes before the head.
        """
        shell: nn.Module = _copy_without_children(model)
        parent = shell
        *ancestors, last = decoder_path(model).split(".")
        for name in ancestors:
            child = _copy_without_children(parent.get_submodule(name))
            parent._modules[name] = child
            parent = child
        parent._modules[last] = _HandThrough()
        self._shell = shell

    def __call__(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """[num_rows, hidden_size] to [num_rows, vocab_size]."""
        logits: torch.Tensor = self._shell(inputs_embeds=hidden_states.unsqueeze(0), use_cache=False).logits
        return logits.squeeze(0)


class _HandedThrough(BaseModelOutputWithPast):
    """An output that has None for whatever else a decoder may give: losses of routers, states of other kinds."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)


class _HandThrough(nn.Module):
    """A decoder that returns the embeddings that it is given."""

    def forward(self, *args: object, inputs_embeds: torch.Tensor, **kwargs: object) -> BaseModelOutputWithPast:
        return _HandedThrough(last_hidden_state=inputs_embeds)


def decoder_path(model: PreTrainedModel) -> str:
    """Where the decoder, from token ids to hidden states, is among the model's modules.

    Raises:
        ValueError: it is none of them.
    """
    for decoder in (model.get_decoder(), model.base_model):
        # Some models call their last matrix their decoder.
        path = next((name for name, module in model.named_modules() if module is decoder), "")
        if path and isinstance(decoder, PreTrainedModel):
            return path
    raise ValueError("neither get_decoder nor base_model names a part of the model that gives hidden states")


def _copy_without_children(module: nn.Module) -> nn.Module:
    """A copy that shares everything but the table of its modules."""
    twin = copy.copy(module)
    twin.__dict__["_modules"] = dict(module._modules)
    return twin
