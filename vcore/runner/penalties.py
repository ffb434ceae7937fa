"""`PenaltyTable`: which tokens a request has seen and how often it made them, kept on the device.

Counted as tokens are sampled, so that no step reads a request's history, and a step can be launched
before the one before it was collected. Only requests with penalties take a slot.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["PenaltyTable"]


class PenaltyTable:
    """Token counts of the requests that have penalties, one slot each."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._free: list[int] = []
        self._counts = torch.zeros((0, vocab_size), dtype=torch.int32, device=device)
        """int32 [num_slots, vocab_size]: how often each token was generated."""
        self._in_prompt = torch.zeros((0, vocab_size), dtype=torch.bool, device=device)

    @property
    def num_slots(self) -> int:
        """Slots there are, in use or not."""
        return self._counts.shape[0]

    def add(self, prompt_token_ids: Sequence[int], output_token_ids: Sequence[int]) -> int:
        """Give a slot to a request with these tokens."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        prompt = np.bincount(np.asarray(prompt_token_ids, dtype=np.int64), minlength=self._vocab_size)
        counts = np.bincount(np.asarray(output_token_ids, dtype=np.int64), minlength=self._vocab_size)
        self._in_prompt[slot] = torch.from_numpy(prompt > 0).to(self._device)
        self._counts[slot] = torch.from_numpy(counts.astype(np.int32)).to(self._device)
        return slot

    def remove(self, slot: int) -> None:
        """Take the slot back."""
        self._free.append(slot)

    def record(self, slots: torch.Tensor, token_ids: torch.Tensor) -> None:
        """Count one generated token for each of the (distinct) `slots`; both are int64 [num_rows]."""
        ones = torch.ones_like(slots, dtype=torch.int32)
        self._counts.index_put_((slots, token_ids), ones, accumulate=True)

    def apply(
        self,
        logits: torch.Tensor,
        slots: torch.Tensor,
        repetition: torch.Tensor,
        presence: torch.Tensor,
        frequency: torch.Tensor,
    ) -> torch.Tensor:
        """Penalised logits.

        Repetition (Keskar et al. 2019, section 4.1) divides positive logits of tokens in prompt or output and
        multiplies negative ones; presence and frequency are subtracted for tokens in the output.

        Args:
            logits: float32 [num_rows, vocab_size]. Overwritten.
            slots: int64 [num_rows].
            repetition: float32 [num_rows]; so are `presence` and `frequency`.

        Returns:
            `logits`.
        """
        counts = self._counts.index_select(0, slots)
        generated = counts > 0
        seen = self._in_prompt.index_select(0, slots).logical_or_(generated)
        factor = repetition[:, None]
        penalised = torch.where(logits > 0, logits / factor, logits * factor)
        torch.where(seen, penalised, logits, out=logits)
        logits.addcmul_(counts.float(), frequency[:, None], value=-1.0)
        return logits.addcmul_(generated.float(), presence[:, None], value=-1.0)

    def _grow(self) -> None:
        old, new = self.num_slots, max(4, 2 * self.num_slots)
        counts = torch.zeros((new, self._vocab_size), dtype=torch.int32, device=self._device)
        in_prompt = torch.zeros((new, self._vocab_size), dtype=torch.bool, device=self._device)
        counts[:old], in_prompt[:old] = self._counts, self._in_prompt
        self._counts, self._in_prompt = counts, in_prompt
        self._free.extend(range(new - 1, old - 1, -1))
