"""`RunnerSettings`: what a runner is told when it is made. Plain values; nothing here is ``auto``."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["CPU_CACHE_BYTES_LIMIT", "RunnerSettings"]

CPU_CACHE_BYTES_LIMIT = 4 << 30
"""The most bytes of KV cache on CPU, unless a number of blocks is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """The resolved settings of one rank's runner."""

    device: torch.device
    dtype: torch.dtype
    """Of weights and activations."""
    block_size: int
    """Tokens a cache block holds."""
    max_num_seqs: int
    """Rows of the batch state."""
    max_num_batched_tokens: int
    max_model_len: int
    """Most tokens of prompt and output together."""
    memory_fraction: float
    """On CUDA, the share of the device's memory that the engine may use in all; on CPU, the share of the
    memory that is free once the model is loaded."""
    vocab_size: int
    """The width of the model's logits."""
    hidden_size: int | None = None
    """The width of its hidden states, for requests that pool; None if that is not known."""
    graph_sizes: tuple[int, ...] = ()
    """Numbers of rows, ascending, that CUDA graphs of decode steps are captured for; none: no graphs."""
    max_segment_tokens: int = 0
    """Most tokens of other steps that are recorded in segments; fewer for a model that it would not pay for."""
    capture_at_start: bool = False
    """Whether graphs and segments are captured once there is a cache, instead of each when a step first needs it."""
    num_threads: int | None = None
    """CPU threads for computing, set for the whole process when the model is loaded; None leaves them."""
    cpu_cache_bytes_limit: int = CPU_CACHE_BYTES_LIMIT
    """The most bytes that `ModelRunner.cache_bytes_available` answers on CPU."""

    @property
    def max_blocks_per_row(self) -> int:
        """The width of the block table."""
        return -(-self.max_model_len // self.block_size)
