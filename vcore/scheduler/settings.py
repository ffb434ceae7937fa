"""`SchedulerSettings`, what a scheduler is built with, and `SchedulerStats`, what it tells of itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SchedulerSettings", "SchedulerStats", "largest_chunk"]


def largest_chunk(max_num_batched_tokens: int, long_prefill_threshold: int | None, chunked_prefill: bool) -> int:
    """Most tokens of one request in a step, under these limits (see `SchedulerSettings`)."""
    if chunked_prefill and long_prefill_threshold is not None:
        return min(long_prefill_threshold, max_num_batched_tokens)
    return max_num_batched_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSettings:
    """Limits that hold for the scheduler's whole life; every number is resolved.

    Raises:
        ValueError: a limit is out of range.
    """

    max_num_seqs: int
    """Most requests that run at the same time, and the number of rows."""
    max_num_batched_tokens: int
    """Most tokens computed in a step."""
    max_model_len: int
    """Most tokens of prompt and output together."""
    block_size: int
    """Tokens a block holds."""
    num_blocks: int
    """Blocks in all, one of them the null block."""
    windows: tuple[int | None, ...] = (None,)
    """The sliding window of each group of layers (`CacheLayout.windows`), None for one that keeps everything."""
    prefix_caching: bool = True
    long_prefill_threshold: int | None = None
    """Most tokens of one request in a step; None for no such limit. Not used without `chunked_prefill`."""
    chunked_prefill: bool = True
    """Whether a prompt may be computed over several steps."""
    strict: bool = False
    """Whether a fault of a policy raises `vcore.errors.PolicyError`."""

    @property
    def max_chunk(self) -> int:
        """See `largest_chunk`."""
        return largest_chunk(self.max_num_batched_tokens, self.long_prefill_threshold, self.chunked_prefill)

    def __post_init__(self) -> None:
        least = {
            "max_num_seqs": 1,
            "max_num_batched_tokens": 1,
            "max_model_len": 1,
            "block_size": 1,
            "num_blocks": 1 + len(self.windows),
        }
        if self.long_prefill_threshold is not None:
            least["long_prefill_threshold"] = 1
        for name, minimum in least.items():
            value = getattr(self, name)
            if value < minimum:
                raise ValueError(f"SchedulerSettings.{name} must be at least {minimum}, got {value}")
        if not self.windows or any(window is not None and window < 1 for window in self.windows):
            raise ValueError(
                f"SchedulerSettings.windows must have None or at least 1 for each group, got {self.windows}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerStats:
    """Counts at one moment; those of prefix tokens and preemptions since the start."""

    running: int
    waiting: int
    used_blocks: int
    """Blocks that requests use."""
    free_blocks: int
    """Blocks that no request uses, cached ones included."""
    cached_blocks: int
    """Blocks that can be hit, used or not."""
    prefix_query_tokens: int
    """Prompt tokens of admitted requests that were looked up."""
    prefix_hit_tokens: int
    """Those of them that were cached."""
    preemptions: int
