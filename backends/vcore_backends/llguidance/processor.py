"""`LLGuidanceProcessor`: bans the tokens that a request's form does not allow next.

    prepare (any thread)    form ──► grammar ──► compiled matcher, kept for requests of the same form
    apply (each step)       the tokens that are new ──► each row's matcher ──► a bit a token ──► one masking op

The state of a row is derived from its output alone: a row that was preempted, or that is one of several samples,
starts from a copy of the compiled matcher and is told of every token of its output. Where the form is complete the end
of sequence is the only token left, and before that it is banned.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from llguidance import LLExecutor, LLMatcher, LLTokenizer

from vcore.errors import RequestError
from vcore.interfaces.logits import LogitsProcessor, LogitsProcessorContext, ProcessorRow
from vcore.structured_output import STRUCTURED_OUTPUT_FORMS
from vcore_backends.llguidance.deep_stack import with_deep_stack
from vcore_backends.llguidance.grammars import grammar_text
from vcore_backends.llguidance.limits import check_limits
from vcore_backends.llguidance.masks import MaskBuffer
from vcore_backends.llguidance.options import LLGuidanceOptions
from vcore_backends.llguidance.tokens import make_ll_tokenizer

__all__ = ["LLGuidanceProcessor"]

_MOST_THREADS = 8
_MOST_FINDING = 400
_LEFT_FORM = "satisfy the grammar"
"""What the library says of a token that its own mask had ruled out; all else that it finds by then are its limits."""
_SOURCE_LINE = re.compile(r"[0-9]+ \|")


@dataclass(slots=True)
class _RowState:
    """Where one row's text stands in its grammar."""

    matcher: LLMatcher
    param: str
    """The field of its request that states the form."""
    num_consumed: int = 0
    """Output tokens that the matcher was told of."""


class LLGuidanceProcessor(LogitsProcessor):
    """Keeps the text of each row to its form (`vcore.StructuredOutput`)."""

    needs_host_tokens = True

    def __init__(self, *, options: None, context: LogitsProcessorContext) -> None:
        """Remember the context; the vocabulary is read when the first request is prepared."""
        self._context = context
        self._tokenizer: LLTokenizer | None = None
        self._buffer: MaskBuffer | None = None
        self._executor: LLExecutor | None = None
        self._lock = threading.Lock()
        self._rows: dict[int, _RowState] = {}

    def prepare(self, arguments: Mapping[str, Any]) -> LLMatcher | None:
        """The compiled matcher of a form; None if the arguments state none.

        Raises:
            RequestError: the form is no valid schema, expression or grammar, or too complex.
        """
        options = LLGuidanceOptions.model_validate(dict(arguments))
        param = _param(arguments)
        try:
            check_limits(options)
            grammar = grammar_text(options)
        except Exception as error:  # of whatever reads a grammar that a stranger wrote
            raise RequestError(f"{param} cannot be read: {error}", param=param) from error
        if grammar is None:
            return None
        tokenizer = self._ll_tokenizer()
        matcher, error = with_deep_stack(lambda: _compile(tokenizer, grammar))
        if error is not None:
            raise RequestError(f"{param} cannot be enforced: {_finding(error)}", param=param)
        return matcher

    def on_batch_change(self, added: Sequence[ProcessorRow], removed: Sequence[int]) -> None:
        """Rows come with a matcher at the start of their text; `apply` tells it of the output so far."""
        for row in removed:
            self._rows.pop(row, None)
        for new in added:
            matcher = new.prepared if new.prepared is not None else self.prepare(new.arguments)
            if matcher is None:
                self._rows.pop(new.row, None)
            else:
                self._rows[new.row] = _RowState(matcher.deep_copy(), _param(new.arguments))

    def apply(self, logits: torch.Tensor, rows: Sequence[ProcessorRow]) -> torch.Tensor:
        """Ban what the forms do not allow, in place.

        Raises:
            RequestError: a row's grammar has become too complex at this place of its text.
            ValueError: a row's text has left its form.
        """
        states = [self._rows.get(row.row) for row in rows]
        for row, state in zip(rows, states, strict=True):
            if state is not None:
                _consume(state, row.output_token_ids)
        constrained = [(index, state) for index, state in enumerate(states) if state is not None]
        if not constrained:
            return logits
        buffer = self._masks()
        masks = buffer.begin(len(rows))
        if len(constrained) < len(rows):
            masks.fill_(-1)
        self._fill(masks, [(index, state.matcher) for index, state in constrained])
        for _, state in constrained:
            _check(state)
        buffer.apply(logits)
        return logits

    def _fill(self, masks: torch.Tensor, matchers: list[tuple[int, LLMatcher]]) -> None:
        """Each matcher's mask into its row; several are computed in parallel."""
        row_bytes = masks.shape[1] * masks.element_size()
        if len(matchers) == 1:
            [(index, matcher)] = matchers
            matcher.unsafe_compute_mask_ptr(masks[index].data_ptr(), row_bytes)
            return
        if self._executor is None:
            self._executor = LLExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
        self._executor.unsafe_compute_mask_ptr(
            [(matcher, index) for index, matcher in matchers], masks.data_ptr(), row_bytes, masks.shape[0]
        )

    def _masks(self) -> MaskBuffer:
        if self._buffer is None:
            num_words = -(-self._ll_tokenizer().vocab_size // 32)
            self._buffer = MaskBuffer(self._context.max_num_seqs, num_words, self._context.device)
        return self._buffer

    def _ll_tokenizer(self) -> LLTokenizer:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = make_ll_tokenizer(self._context)
            return self._tokenizer


def _compile(tokenizer: LLTokenizer, grammar: str) -> tuple[LLMatcher, str | None]:
    """The matcher, and what is wrong with the grammar."""
    matcher = LLMatcher(tokenizer, grammar, log_level=0)
    first = matcher.deep_copy()
    if not first.is_error():
        first.compute_bitmask()  # the first mask is the slowest, and what it finds is shared
    return matcher, first.get_error() if first.is_error() else None


def _consume(state: _RowState, output_token_ids: Sequence[int]) -> None:
    """Tell the matcher of the tokens that are new. After the end of the text there is nothing to tell."""
    _check(state)
    num_tokens = len(output_token_ids)
    if num_tokens == state.num_consumed:
        return
    new = output_token_ids[state.num_consumed : num_tokens]
    state.num_consumed = num_tokens
    for token_id in new:
        if state.matcher.is_stopped():
            break
        state.matcher.consume_token(token_id)
    _check(state)


def _check(state: _RowState) -> None:
    """Raise if the matcher cannot go on: the library has limits of its own for what a grammar may need at one place."""
    if not state.matcher.is_error():
        return
    finding = _finding(state.matcher.get_error())
    if _LEFT_FORM in finding:
        raise ValueError(f"the text cannot be kept to its form: {finding}")
    place = f"after {state.num_consumed} tokens"
    raise RequestError(f"{state.param} cannot be enforced any further, {place}: {finding}", param=state.param)


def _param(arguments: Mapping[str, Any]) -> str:
    form = next((form for form in STRUCTURED_OUTPUT_FORMS if arguments.get(form) not in (None, False)), None)
    return f"structured_output.{form}"


def _finding(text: str) -> str:
    """What is wrong, in one line: without the source that the library shows beneath, and its own state."""
    lines = [line.strip() for line in text.partition("<state>")[0].splitlines()]
    told = [line for line in lines if line.strip("^ ") and not _SOURCE_LINE.match(line)]
    return " ".join(told)[:_MOST_FINDING] or "the library gives no reason"
