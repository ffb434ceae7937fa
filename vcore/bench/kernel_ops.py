"""The operations that are timed beside attention: those that a decode step is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from vcore import ops
from vcore.bench.kernel_timer import KernelTimer, Launches
from vcore.runner.choice import choose_and_record

__all__ = ["OpCase", "PreparedOp", "op_cases"]

_EPS = 1e-6
_BLOCK_SIZE = 16


@dataclass(frozen=True, slots=True)
class PreparedOp:
    """An operation with its inputs in place."""

    launches: Launches
    num_bytes: int
    """What one launch must read and write; of experts, only the weights of those that were chosen."""


@dataclass(frozen=True, slots=True)
class OpCase:
    """One operation on one shape."""

    name: str
    """As `vcore.ops` or the runner has it."""
    shape: str
    """In words for people: rows x features."""
    prepare: Callable[[KernelTimer], PreparedOp]
    """Makes as many sets of random inputs as the timer wants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """A model's, roughly."""

    rows: tuple[int, ...]
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    num_experts: int
    expert_hidden_size: int
    expert_size: int
    top_k: int = 6

    @property
    def hidden_size(self) -> int:
        return self.num_heads * self.head_dim


_DEVICE = _Sizes(  # Llama-3.1-8B; experts of DeepSeek-V2-Lite
    rows=(1, 256),
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    intermediate_size=14336,
    vocab_size=128256,
    num_experts=64,
    expert_hidden_size=2048,
    expert_size=1408,
)
_CPU = _Sizes(
    rows=(1, 8),
    num_heads=8,
    num_kv_heads=2,
    head_dim=64,
    intermediate_size=1536,
    vocab_size=32000,
    num_experts=8,
    expert_hidden_size=256,
    expert_size=128,
    top_k=2,
)


def op_cases(device: torch.device, dtype: torch.dtype) -> list[OpCase]:
    """Every operation on one row and on a batch; a matrix product on one row alone, since more are the library's.

    Shapes are those of Llama-3.1-8B, of experts those of DeepSeek-V2-Lite; on a CPU some of a small model.
    """
    sizes = _CPU if device.type == "cpu" else _DEVICE
    inputs = _Inputs(device, dtype, sizes)
    cases = []
    for rows in sizes.rows:
        cases += [
            OpCase("rms_norm", f"{rows} x {sizes.hidden_size}", partial(inputs.rms_norm, rows)),
            OpCase("add_rms_norm", f"{rows} x {sizes.hidden_size}", partial(inputs.add_rms_norm, rows)),
            OpCase("silu_and_mul", f"{rows} x {sizes.intermediate_size}", partial(inputs.silu_and_mul, rows)),
            OpCase("qk_norm_rope_write_", f"{rows} x {inputs.heads_text}", partial(inputs.rope_write, rows)),
            OpCase("choose_and_record", f"{rows} x {sizes.vocab_size}", partial(inputs.choice, rows)),
            OpCase("fused_experts", f"{rows} x {inputs.experts_text}", partial(inputs.experts, rows)),
        ]
    features = sizes.hidden_size
    return [*cases, OpCase("linear", f"1 x {features} x {features}", inputs.linear)]


class _Inputs:
    """Makes operations with random inputs of one device and dtype."""

    def __init__(self, device: torch.device, dtype: torch.dtype, sizes: _Sizes) -> None:
        self._device, self._dtype, self._sizes = device, dtype, sizes
        self.heads_text = f"{sizes.num_heads + 2 * sizes.num_kv_heads} heads of {sizes.head_dim}"
        self.experts_text = f"{sizes.top_k} of {sizes.num_experts}"

    def rms_norm(self, rows: int, timer: KernelTimer) -> PreparedOp:
        size = self._sizes.hidden_size
        weight = self._random(size)
        return self._prepared(timer, lambda: self._random(rows, size), lambda x: ops.rms_norm(x, weight, _EPS), 2.0)

    def add_rms_norm(self, rows: int, timer: KernelTimer) -> PreparedOp:
        size = self._sizes.hidden_size
        weight = self._random(size)
        return self._prepared(
            timer, lambda: self._random(2, rows, size), lambda x: ops.add_rms_norm(x[0], x[1], weight, _EPS), 2.0
        )

    def silu_and_mul(self, rows: int, timer: KernelTimer) -> PreparedOp:
        return self._prepared(
            timer, lambda: self._random(rows, 2 * self._sizes.intermediate_size), ops.silu_and_mul, 1.5
        )

    def linear(self, timer: KernelTimer) -> PreparedOp:
        size = self._sizes.hidden_size
        x = self._random(1, size)
        return self._prepared(
            timer,
            lambda: ops.pack_linear_weight(self._random(size, size)),
            lambda weight: ops.linear(x, weight),
            1.0,
            set_bytes=size * size * self._dtype.itemsize,
        )

    def rope_write(self, rows: int, timer: KernelTimer) -> PreparedOp:
        """Norms of queries and keys, rotation and cache write: heads are read and written, keys in two places."""
        sizes, dim = self._sizes, self._sizes.head_dim
        num_heads = sizes.num_heads + 2 * sizes.num_kv_heads
        moved = 2 + sizes.num_kv_heads / num_heads
        cache = self._random(1 + -(-rows // _BLOCK_SIZE), 2, _BLOCK_SIZE, sizes.num_kv_heads, dim)
        slots = torch.arange(_BLOCK_SIZE, _BLOCK_SIZE + rows, device=self._device)
        q_weight, k_weight = self._random(dim), self._random(dim)
        angles = torch.rand(rows, 1, dim // 2, device=self._device)
        cos, sin = angles.cos(), angles.sin()

        def call(heads: torch.Tensor) -> None:
            ops.qk_norm_rope_write_(heads, q_weight, k_weight, _EPS, cos, sin, False, cache, slots)

        return self._prepared(timer, lambda: self._random(rows, num_heads, dim), call, moved)

    def choice(self, rows: int, timer: KernelTimer) -> PreparedOp:
        """A sample a row at temperature 1; logits are read once."""
        device = self._device
        temperature = torch.ones(rows, device=device)
        keys = torch.randint(1 << 62, (rows,), device=device)
        numbers = torch.arange(rows, device=device)
        last, token_ids = torch.zeros_like(numbers), torch.zeros_like(numbers)
        scores = torch.empty_like(temperature)

        def call(logits: torch.Tensor) -> None:
            choose_and_record(logits, temperature, keys, numbers, last, token_ids, scores)

        return self._prepared(timer, lambda: self._random(rows, self._sizes.vocab_size), call, 1.0)

    def experts(self, rows: int, timer: KernelTimer) -> PreparedOp:
        """Experts are chosen evenly, others by each row; the bytes are those of the weights of the chosen."""
        sizes = self._sizes
        x = self._random(rows, sizes.expert_hidden_size)
        scores = torch.rand(rows, sizes.num_experts, device=self._device)
        weights, expert_ids = scores.topk(sizes.top_k)
        per_expert = 3 * sizes.expert_size * sizes.expert_hidden_size * self._dtype.itemsize

        def matrices() -> tuple[torch.Tensor, torch.Tensor]:
            up = self._random(sizes.num_experts, 2 * sizes.expert_size, sizes.expert_hidden_size)
            return up, self._random(sizes.num_experts, sizes.expert_hidden_size, sizes.expert_size)

        num_sets = timer.num_sets(sizes.num_experts * per_expert)
        made = [matrices() for _ in range(num_sets)]

        def launch(index: int) -> object:
            return ops.fused_experts(x, *made[index], weights, expert_ids, ops.silu_and_mul)

        return PreparedOp(Launches(launch, num_sets), len(set(expert_ids.flatten().tolist())) * per_expert)

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=self._dtype, device=self._device)

    def _prepared(
        self,
        timer: KernelTimer,
        make: Callable[[], torch.Tensor],
        call: Callable[[torch.Tensor], object],
        moved: float,
        *,
        set_bytes: int | None = None,
    ) -> PreparedOp:
        """`call` on what `make` makes, of which `moved` times its size is read and written."""
        first = make()
        size = first.nbytes if set_bytes is None else set_bytes
        sets = [first, *(make() for _ in range(timer.num_sets(size) - 1))]
        return PreparedOp(Launches(lambda index: call(sets[index]), len(sets)), int(size * moved))
