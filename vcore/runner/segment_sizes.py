"""For which numbers of tokens a model is recorded in segments: up to where the device, not the host, is the limit."""

from __future__ import annotations

from torch import nn

from vcore.interfaces.model import Model
from vcore.layers.embedding import LMHead, VocabParallelEmbedding
from vcore.layers.moe import FusedMoE

__all__ = ["segment_sizes", "worthwhile_tokens"]

_HOST_SECONDS = 1e-3
"""What the host takes to launch a layer kernel by kernel: 0.8 to 1.3 ms beside an H100, for Qwen3 and Llama alike."""
_DEVICE_FLOPS = 5.5e14
"""Floating-point operations a second that large products reach on an H100. Slower devices are the limit sooner: then
the sizes between cost some padding, no more."""
_TILE = 128
"""Rows that products are computed at a time; padding to a multiple of it is free where there are more."""


def segment_sizes(largest: int) -> tuple[int, ...]:
    """Numbers of tokens to record for, ascending, the last `largest`; none if that is 0."""
    sizes = [8, 16, 32, 64, 96, 128, 192, *range(256, 2048, _TILE), *range(2048, 4096, 2 * _TILE)]
    sizes += range(4096, largest, 4 * _TILE)
    return (*(size for size in sizes if size < largest), largest) if largest else ()


def worthwhile_tokens(model: Model) -> int:
    """Beyond how many tokens a step keeps the device busy for longer than the host takes to launch its kernels.

    A token takes two operations a weight that it meets: of routed experts, those of the experts that it is sent to;
    of embedding and LM head none, which are no part of the layers.
    """
    weights = sum(_own_weights(module) for module in model.modules())
    for module in model.modules():
        if isinstance(module, FusedMoE):
            for part in (module.gate_up_experts.weight, module.down_experts.weight):
                if part is not None:  # [num_experts, ...]
                    weights -= part[0].numel() * (len(part) - module.routing.top_k)
    num_layers = max(1, len(model.kv_cache_specs()))
    num_tokens = int(_HOST_SECONDS * num_layers * _DEVICE_FLOPS / (2 * max(1, weights)))
    return num_tokens // _TILE * _TILE


def _own_weights(module: nn.Module) -> int:
    if isinstance(module, VocabParallelEmbedding | LMHead):
        return 0
    return sum(parameter.numel() for parameter in module.parameters(recurse=False))
