"""`describe`: a model of transformers without memory, and the layers of attention that it asks for."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from vcore.errors import UnsupportedModelError
from vcore.interfaces.attention import LayerSpec
from vcore_model_zoo.transformers_fallback.hf_class import rope_scalings
from vcore_model_zoo.transformers_fallback.logits_head import LogitsHead, decoder_path
from vcore_model_zoo.transformers_fallback.paged_attention import STEP
from vcore_model_zoo.transformers_fallback.probe import PROBE, AttentionProbe

__all__ = ["Description", "describe"]

_NUM_TOKENS = 2
_OWN_ATTENTION = "it computes attention itself, instead of through transformers' attention interface"


@dataclass(frozen=True, slots=True)
class Description:
    """What was found."""

    model: PreTrainedModel
    """On ``meta``."""
    layers: Sequence[LayerSpec]
    """By `layer_idx`."""


def describe(
    model_class: type[PreTrainedModel], config: PreTrainedConfig, dtype: torch.dtype, vocab_size: int
) -> Description:
    """Build the model without memory and run it once.

    Raises:
        UnsupportedModelError: it does something that vcore's paged attention does not allow, or cannot be told.
    """
    probe = AttentionProbe(model_class.__name__)
    try:
        with torch.device("meta"), torch.no_grad():
            model = _build(config, dtype).eval()
            logits = LogitsHead(model)(_run(model, probe))
    except UnsupportedModelError:
        raise
    except Exception as error:  # each model raises in its own way
        if isinstance(error, KeyError) and error.args == (PROBE,):  # it has a table of its own
            raise probe.refusal(_OWN_ATTENTION) from error
        raise probe.refusal(f"running it without memory raised {type(error).__name__}: {error}") from error
    if not probe.layers:
        raise probe.refusal(_OWN_ATTENTION)
    if tuple(logits.shape) != (_NUM_TOKENS, vocab_size):
        expected = [_NUM_TOKENS, vocab_size]
        raise probe.refusal(f"its head gave logits of shape {list(logits.shape)} instead of {expected}")
    _check_modules(model, probe)
    _check_layers(config, probe)
    return Description(model, [probe.layers[index] for index in sorted(probe.layers)])


def _build(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    config = copy.deepcopy(config)  # it is written to
    # The form of experts that has no loop over values, which there are none of without memory.
    config._experts_implementation = "batched_mm"
    # Nor are there positions, which some scalings look at; the shapes are the same with any.
    for scaling in rope_scalings(config):
        scaling["rope_type"] = "default"
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=PROBE)
    return model


def _run(model: PreTrainedModel, probe: AttentionProbe) -> torch.Tensor:
    """Hidden states [num_tokens, hidden_size], of nothing."""
    decoder = model.get_submodule(decoder_path(model))
    output = decoder(
        input_ids=torch.zeros((1, _NUM_TOKENS), dtype=torch.int64),
        # Without it, transformers looks at the positions, of which there are none, for several sequences.
        attention_mask=torch.ones((1, _NUM_TOKENS), dtype=torch.int64),
        position_ids=torch.zeros((1, _NUM_TOKENS), dtype=torch.int64),
        use_cache=False,
        **{STEP: probe},
    )
    hidden_states: torch.Tensor = output.last_hidden_state
    return hidden_states.squeeze(0)


def _check_modules(model: PreTrainedModel, probe: AttentionProbe) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv1d) and module.kernel_size != (1,):
            raise probe.refusal(f"{name} is a convolution, which mixes neighbouring tokens outside attention")


def _check_layers(config: PreTrainedConfig, probe: AttentionProbe) -> None:
    stated = config.get_text_config().num_hidden_layers
    without = sorted(set(range(stated)) - set(probe.layers))
    if without:
        raise probe.refusal(
            f"{len(without)} of its {stated} layers compute no attention through transformers' interface "
            f"(the first is layer {without[0]})"
        )
    beyond = sorted(set(probe.layers) - set(range(stated)))
    if beyond:
        raise probe.refusal(f"attention has the layers {beyond}, beside the {stated} that the config states")
