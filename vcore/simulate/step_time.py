"""`StepTimeModel`: how long a step takes, from what it computes. `StepLoad`: what it computes, in numbers."""

from __future__ import annotations

from typing import Annotated, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from vcore.interfaces.step import SchedulerOutput

__all__ = ["StepLoad", "StepTime", "StepTimeModel"]

Seconds = Annotated[float, Field(ge=0.0, le=3600.0)]


class StepLoad(NamedTuple):
    """The work of one step. A row of one token is a decode row, as in `SchedulerOutput`; others are prefill."""

    num_tokens: int
    """Of all rows."""
    num_prefill_rows: int
    prefill_pairs: int
    """Query and key pairs of prefill rows: n tokens after c computed ones have ``n * c + n * (n + 1) / 2``."""
    num_decode_rows: int
    decode_kv_tokens: int
    """Tokens that decode rows attend to, each its own one too."""
    prefill_kv_tokens: int
    """The same of prefill rows, each row's context counted once."""

    @classmethod
    def of(cls, output: SchedulerOutput, starts: NDArray[np.int64]) -> StepLoad:
        """The load of a step.

        Args:
            output: the step.
            starts: int64 [num_scheduled]: computed tokens of each row before it.
        """
        num_decodes, num_rows = output.num_decodes, len(starts)
        kv_tokens = int(starts[:num_decodes].sum()) + num_decodes
        if num_decodes == num_rows:
            return cls(num_decodes, 0, 0, num_decodes, kv_tokens, 0)
        chunks = output.num_tokens[num_decodes:].astype(np.int64)
        before = starts[num_decodes:]
        pairs = chunks * before + chunks * (chunks + 1) // 2
        return cls(
            num_tokens=num_decodes + int(chunks.sum()),
            num_prefill_rows=num_rows - num_decodes,
            prefill_pairs=int(pairs.sum()),
            num_decode_rows=num_decodes,
            decode_kv_tokens=kv_tokens,
            prefill_kv_tokens=int(before.sum() + chunks.sum()),
        )


class StepTime(Protocol):
    """How long steps take."""

    def seconds(self, load: StepLoad) -> float:
        """See `StepTimeModel.seconds`."""
        ...

    def decode_seconds(self, num_rows: int, kv_tokens: int, num_steps: int) -> NDArray[np.float64]:
        """See `StepTimeModel.decode_seconds`."""
        ...


class StepTimeModel(BaseModel):
    """Seconds of a step, linear in its load but for one knee:

        base + token * max(num_tokens, knee)
             + prefill_row * num_prefill_rows + pair * prefill_pairs + prefill_kv_token * prefill_kv_tokens
             + decode_row * num_decode_rows + kv_token * decode_kv_tokens

    Products of few tokens take as long as reading the weights (the roofline of S. Williams, A. Waterman and
    D. Patterson, CACM 52(4), 2009): below the knee a token more costs nothing. Attention of prefill is bound by
    arithmetic, so by pairs of queries and keys; that of decode by reading keys and values, so by tokens. So is that of
    a short chunk after a long context.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    base_s: Seconds = 0.0
    """Of every step: host, launches, sampling."""
    token_s: Seconds = 0.0
    """Of a token in the products with weights."""
    knee_tokens: Annotated[int, Field(ge=0, le=2**31)] = 0
    """Tokens up to which these products take the same time."""
    prefill_row_s: Seconds = 0.0
    """Of a row with several tokens."""
    pair_s: Seconds = 0.0
    """Of a query and key pair of prefill."""
    prefill_kv_token_s: Seconds = 0.0
    """Of a token that a prefill row attends to, however many queries it has."""
    decode_row_s: Seconds = 0.0
    """Of a row with one token."""
    kv_token_s: Seconds = 0.0
    """Of a token that a decode row attends to."""

    def seconds(self, load: StepLoad) -> float:
        """The time of one step."""
        products = self.token_s * max(load.num_tokens, self.knee_tokens)
        prefill = (
            self.prefill_row_s * load.num_prefill_rows
            + self.pair_s * load.prefill_pairs
            + self.prefill_kv_token_s * load.prefill_kv_tokens
        )
        decode = self.decode_row_s * load.num_decode_rows + self.kv_token_s * load.decode_kv_tokens
        return self.base_s + products + prefill + decode

    def decode_seconds(self, num_rows: int, kv_tokens: int, num_steps: int) -> NDArray[np.float64]:
        """The times of steps of decode rows alone, one after another, equal to those of `seconds` to the last bit.

        Args:
            num_rows: rows, the same in all steps.
            kv_tokens: `StepLoad.decode_kv_tokens` of the first step; each step has `num_rows` more.
            num_steps: how many.

        Returns:
            float64 [num_steps].
        """
        products = self.token_s * max(num_rows, self.knee_tokens)
        read = kv_tokens + num_rows * np.arange(num_steps, dtype=np.int64)
        # The order of additions is that of `seconds`.
        decode = self.decode_row_s * num_rows + self.kv_token_s * read
        return np.asarray(self.base_s + products + 0.0 + decode, dtype=np.float64)
