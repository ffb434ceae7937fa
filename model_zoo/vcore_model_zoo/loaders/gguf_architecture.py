"""`GGUFArchitecture`: how one value of ``general.architecture`` is read, from GGUF's terms to Hugging Face's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vcore_model_zoo.loaders.gguf_metadata import GGUFMetadata

__all__ = ["DENSE_LAYER", "DENSE_MODEL", "GGUFArchitecture"]

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")

DENSE_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""The names that most decoders share, within a layer."""
DENSE_MODEL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
"""And outside the layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GGUFArchitecture:
    """What is to know of an architecture."""

    config: Callable[[GGUFMetadata], dict[str, Any]]
    """The contents of ``config.json``."""
    model_tensors: Mapping[str, str] = field(default_factory=lambda: DENSE_MODEL)
    """Names outside the layers, without ``.weight`` and ``.bias``."""
    layer_tensors: Mapping[str, str] = field(default_factory=lambda: DENSE_LAYER)
    """Names within a layer."""
    expert_tensors: Mapping[str, str] = field(default_factory=dict)
    """Layer tensors that hold a matrix of every expert, one after another; the name of one, with ``{}`` for its
    number."""
    permuted: Mapping[str, str] = field(default_factory=dict)
    """Layer tensors whose rows llama.cpp reorders for its rotary embedding, with the config key that counts their
    heads."""
    norm_offset: float = 0.0
    """What llama.cpp adds to the weights of norms, where the model itself adds it as it computes."""
    consumed: frozenset[str] = frozenset()
    """Tensors that the configuration takes in, and the model has no place for."""
    ends: tuple[str, ...] = ()
    """Tokens that end an answer besides those that the file names, if it has them: older files name just one."""

    def hf_names(self, name: str, shape: tuple[int, ...]) -> list[str]:
        """The Hugging Face names of tensor `name`: none if it is consumed, one for each expert, otherwise one.

        Unknown names stay as they are.

        Args:
            name: in the file.
            shape: of the tensor in the file, in torch's order.
        """
        if name in self.consumed:
            return []
        stem, _, kind = name.rpartition(".")
        block = _BLOCK.fullmatch(stem)
        if block is None:
            mapped = self.model_tensors.get(stem)
            return [name if mapped is None else f"{mapped}.{kind}"]
        prefix = f"model.layers.{block[1]}."
        if block[2] in self.expert_tensors:
            each = self.expert_tensors[block[2]]
            return [f"{prefix}{each.format(expert)}.{kind}" for expert in range(shape[0])]
        mapped = self.layer_tensors.get(block[2])
        return [name if mapped is None else f"{prefix}{mapped}.{kind}"]

    def holds_experts(self, name: str) -> bool:
        """Whether `hf_names` of tensor `name` are of experts, in order."""
        block = _BLOCK.fullmatch(name.rpartition(".")[0])
        return block is not None and block[2] in self.expert_tensors

    def heads_key(self, name: str) -> str | None:
        """The config key that counts the heads of a tensor with reordered rows; None if the rows are in order."""
        block = _BLOCK.fullmatch(name.rpartition(".")[0])
        return None if block is None else self.permuted.get(block[2])

    def offset(self, name: str) -> float:
        """What has been added to the values of tensor `name`."""
        return self.norm_offset if name.endswith("norm.weight") else 0.0
