"""Token embedding and LM head, with the vocabulary split over the tensor-parallel ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from vcore.interfaces.model import BuildContext
from vcore.layers.parallel import require_collective
from vcore.layers.weights import PartitionedModule, WeightPart, packed, parameter
from vcore.ops.linear import linear

__all__ = ["LMHead", "VocabParallelEmbedding"]


class _VocabParallelWeight(PartitionedModule):
    """A [vocab_size, hidden_size] matrix of which each rank has equally many rows, the last one padded."""

    def __init__(self, context: BuildContext, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self._shape = (vocab_size, hidden_size)
        self._tp_size = context.tp_size
        self._collective = require_collective(context)
        self._num_rows = -(-vocab_size // context.tp_size)
        self._first = min(context.tp_rank * self._num_rows, vocab_size)
        self._num_valid = min(self._num_rows, vocab_size - self._first)

    def _new_weight(self, context: BuildContext) -> torch.nn.Parameter:
        weight = parameter((self._num_rows, self._shape[1]), context.dtype, context.device)
        weight[self._num_valid :].zero_()
        return weight

    def weight_parts(self, parameter_name: str) -> Sequence[WeightPart]:
        """This rank's rows; the padding is not loaded."""
        if self._tp_size == 1:
            return (WeightPart(self._shape),)
        rows = slice(self._first, self._first + self._num_valid)
        return (WeightPart(self._shape, (rows, slice(None)), (slice(0, self._num_valid),)),)


class VocabParallelEmbedding(_VocabParallelWeight):
    """Token ids to vectors."""

    def __init__(self, context: BuildContext, vocab_size: int, hidden_size: int) -> None:
        super().__init__(context, vocab_size, hidden_size)
        self.weight = self._new_weight(context)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """int64 [num_tokens] to [num_tokens, hidden_size], the same on every rank."""
        if self._tp_size == 1:
            return F.embedding(input_ids, self.weight)
        rows = input_ids - self._first
        others = (rows < 0) | (rows >= self._num_valid)
        vectors = F.embedding(rows.masked_fill(others, 0), self.weight)
        return self._collective.all_reduce(vectors.masked_fill_(others.unsqueeze(-1), 0))


class LMHead(_VocabParallelWeight):
    """Hidden states to logits. With `tied`, it has that embedding's weight."""

    def __init__(
        self,
        context: BuildContext,
        vocab_size: int,
        hidden_size: int,
        tied: VocabParallelEmbedding | None = None,
    ) -> None:
        super().__init__(context, vocab_size, hidden_size)
        self.weight = self._new_weight(context) if tied is None else tied.weight
        self._is_tied = tied is not None
        self._packed: torch.Tensor | None = None

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """[num_rows, hidden_size] to [num_rows, vocab_size], whole on every rank."""
        logits = linear(hidden_states, self.weight if self._packed is None else self._packed)
        if self._tp_size == 1:
            return logits
        return self._collective.all_gather(logits)[..., : self._shape[0]]

    def weights_loaded(self) -> None:
        weight = packed(self.weight)
        if not self._is_tied:
            self.weight = weight
        elif weight.is_mkldnn:
            self._packed = weight.detach()  # the embedding goes on reading rows of the plain one
