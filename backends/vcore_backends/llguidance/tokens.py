"""`make_ll_tokenizer`: a model's vocabulary as llguidance needs it."""

from __future__ import annotations

from llguidance import LLTokenizer

from vcore.errors import RequestError
from vcore.interfaces.logits import LogitsProcessorContext

__all__ = ["make_ll_tokenizer"]


def make_ll_tokenizer(context: LogitsProcessorContext) -> LLTokenizer:
    """The vocabulary as a trie of bytes; a fraction of a second.

    Raises:
        RequestError: the engine has no tokenizer, the model no end of sequence, or the tokenizer's form is unknown.
    """
    tokenizer = context.tokenizer
    if tokenizer is None:
        raise _error(
            "this engine has no tokenizer (model.skip_tokenizer, or the model has none), so the form of a text "
            "cannot be enforced; load one"
        )
    if not context.eos_token_ids:
        raise _error("the model states no end of sequence (eos_token_id), so a text that is complete could not end")
    size = max(context.vocab_size, tokenizer.vocab_size)
    try:
        return LLTokenizer(tokenizer.to_json(), n_vocab=size, eos_token=list(context.eos_token_ids))
    except Exception as error:  # the library raises what it likes
        raise _error(f"llguidance cannot read this model's tokenizer: {error}") from error


def _error(message: str) -> RequestError:
    return RequestError(f"structured_output: {message}", param="structured_output")
