"""What a model of transformers asks of attention, found by running it once without memory.

Two tokens pass through the model on torch's ``meta`` device, with an attention function and a mask function of ours.
What the model hands to them is what vcore's layers are built from, rather than what its config seems to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface

from vcore.errors import UnsupportedModelError
from vcore.interfaces.attention import LayerSpec
from vcore_model_zoo.transformers_fallback.paged_attention import STEP

__all__ = ["PROBE", "AttentionProbe", "probe_attention", "window_of_mask"]

PROBE = "vcore_probe"
"""The name of the functions in transformers' interfaces."""
_IGNORED = frozenset(
    {
        "cache_position",
        "dropout",
        "is_causal",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "position_embeddings",
        "position_ids",
        "scaling",
        "sliding_window",
        "softcap",
        "use_cache",
        STEP,
    }
)
"""Arguments of attention functions that are read below, or that say nothing of what is computed."""
_FAR = (1_000_003, 2_000_006)
"""Positions from which a mask is looked at: beyond any window, and not at the same place in chunks of any size."""


@dataclass(slots=True)
class AttentionProbe:
    """Stands in the place of a step, and is told what each layer asks for."""

    model: str
    """Its class, for messages."""
    layers: dict[int, LayerSpec] = field(default_factory=dict)
    """By `layer_idx`."""

    def record(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: object,
        arguments: dict[str, Any],
    ) -> None:
        """Note what one layer asks for.

        Raises:
            UnsupportedModelError: it is something that cannot be done.
        """
        index = getattr(module, "layer_idx", None)
        if not isinstance(index, int):
            raise self.refusal("an attention module has no layer_idx, so that its cache cannot be told")
        if index in self.layers:
            raise self.refusal(f"layer {index} computes attention twice, and has only one cache")
        if not arguments.get("is_causal", getattr(module, "is_causal", True)):
            raise self.refusal(f"attention of layer {index} is not causal")
        others = sorted(name for name, given in arguments.items() if name not in _IGNORED and _says_something(given))
        if others:
            raise self.refusal(
                f"attention of layer {index} gets {', '.join(others)}, which vcore's attention does not take"
            )
        scaling = arguments.get("scaling")
        self.layers[index] = LayerSpec(
            num_heads=query.shape[1],
            num_kv_heads=key.shape[1],
            head_dim=max(query.shape[-1], value.shape[-1]),
            scale=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
            sliding_window=self._window(index, mask, arguments.get("sliding_window")),
            soft_cap=arguments.get("softcap"),
        )

    def refusal(self, reason: str) -> UnsupportedModelError:
        """The error that says so."""
        return UnsupportedModelError(
            f"transformers' {self.model} cannot run over a paged cache: {reason}. The model needs a model plugin of "
            "its own (docs/add_a_model.md)."
        )

    def _window(self, index: int, mask: object, stated: int | None) -> int | None:
        """The sliding window, which mask and argument must agree on if both are there."""
        if mask is None:
            return None if stated is None else int(stated)
        if not isinstance(mask, _NotedMask):
            raise self.refusal(f"attention of layer {index} gets a mask of the model's own making")
        if mask.reason is not None:
            raise self.refusal(f"the mask of layer {index} {mask.reason}")
        if stated is not None and stated != mask.window:
            raise self.refusal(
                f"attention of layer {index} gets a sliding window of {stated}, and a mask with one of {mask.window}"
            )
        return mask.window


class _NotedMask(torch.Tensor):
    """A mask without content, with what it would hide; what is made from one has the defaults."""

    window: int | None = None
    reason: str | None = "is changed by the model"
    """Why it is neither causal nor a sliding window, or None."""


def probe_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: object,
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """Tell the probe, and give a result of the right shape.

    Raises:
        UnsupportedModelError: what the layer asks for cannot be done, or the probe did not get here.
    """
    probe = arguments.get(STEP)
    if not isinstance(probe, AttentionProbe):
        raise UnsupportedModelError(
            f"transformers' {type(module).__name__} cannot run over a paged cache: its model does not hand the keyword "
            "arguments of its forward on to attention. The model needs a model plugin of its own (docs/add_a_model.md)."
        )
    probe.record(module, query, key, value, attention_mask, arguments)
    return query.new_empty(1, query.shape[2], query.shape[1], value.shape[-1]), None


def window_of_mask(mask_function: Callable[..., Any]) -> int | None:
    """The sliding window of an index function of transformers (batch, head, query position, key position).

    Raises:
        ValueError: it is neither causal nor causal with a sliding window; the message says how so.
    """
    windows = set()
    zero = torch.tensor(0)
    for position in _FAR:
        keys = torch.arange(position + 3)
        seen = mask_function(zero, zero, torch.tensor(position), keys).expand(keys.shape)
        first, last, count = int(seen.int().argmax()), int(keys[seen].max()), int(seen.sum())
        if last != position or count != last - first + 1:
            raise ValueError("is not causal" if last > position else "has gaps")
        windows.add(None if first == 0 else count)
    if len(windows) > 1:
        raise ValueError("is neither causal nor a sliding window, but depends on where a token stands")
    return windows.pop()


def _probe_mask(**arguments: Any) -> torch.Tensor:
    """What transformers is given as its mask: what the index function `mask_function` hides, and no content."""
    shape = (1, 1, arguments.get("q_length", 1), arguments.get("kv_length", 1))
    mask = torch.empty(shape, device="meta").as_subclass(_NotedMask)
    mask.window = mask.reason = None
    try:
        with torch.device("cpu"):
            mask.window = window_of_mask(arguments["mask_function"])
    except ValueError as error:
        mask.reason = str(error)
    except Exception:  # it depends on values that there are none of here
        mask.reason = "depends on more than positions"
    return mask


def _says_something(value: object) -> bool:
    return value is not None and value is not False


AttentionInterface.register(PROBE, probe_attention)
AttentionMaskInterface.register(PROBE, _probe_mask)
