"""What of a request can be judged only beside a model: ids against its vocabulary, words and texts by its tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from vcore.engine.prompts import check_text
from vcore.errors import RequestError, RequestTooLargeError
from vcore.sampling_params import SamplingParams

if TYPE_CHECKING:
    from vcore.tokenizer.tokenizer import Tokenizer

__all__ = [
    "bad_words_token_ids",
    "check_ids",
    "check_params",
    "check_something_is_left",
    "check_text_fits",
    "require_tokenizer",
]


def check_ids(token_ids: Iterable[int], vocab_size: int, param: str) -> None:
    """Refuse ids that the model has no row for.

    Raises:
        RequestError: one is negative or not below `vocab_size`; says which, and at what position.
    """
    for position, token_id in enumerate(token_ids):
        if not 0 <= token_id < vocab_size:
            raise RequestError(
                f"{param} has {token_id} at position {position}, which is outside the vocabulary: "
                f"token ids are 0 to {vocab_size - 1}",
                param=param,
            )


def check_params(params: SamplingParams, vocab_size: int, tokenizer: Tokenizer | None) -> None:
    """Refuse ids outside the vocabulary, and words or stop strings without a tokenizer.

    Raises:
        RequestError: names the field, what it got, and what is expected.
    """
    check_ids(params.stop_token_ids, vocab_size, "stop_token_ids")
    check_ids(params.allowed_token_ids or (), vocab_size, "allowed_token_ids")
    check_ids(params.logit_bias or (), vocab_size, "logit_bias")
    for field in ("stop", "bad_words"):
        texts: tuple[str, ...] = getattr(params, field)
        if texts and tokenizer is None:
            raise RequestError(
                f"{field} was given, but this engine has no tokenizer (model.skip_tokenizer): "
                "use stop_token_ids and logit_bias instead, or load the tokenizer",
                param=field,
            )
        for text in texts:
            check_text(text, field)


def check_text_fits(text: str, tokenizer: Tokenizer, max_model_len: int, param: str) -> None:
    """Refuse a text that is far too long before it is tokenised, which takes seconds for millions of characters.

    Raises:
        RequestTooLargeError: it has more tokens than the model takes, however it is tokenised.
    """
    if len(text) > max_model_len and (fewest := tokenizer.fewest_tokens(text)) > max_model_len:
        raise RequestTooLargeError(
            f"the prompt has {len(text)} characters, so at least {fewest} tokens, and the model's length is "
            f"max_model_len={max_model_len}. Shorten the prompt",
            param=param,
        )


def bad_words_token_ids(words: Iterable[str], tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """Every spelling of `words` as token ids: at the start of a text or line, and after a space.

    Raises:
        RequestError: a word has no tokens.
    """
    spellings: dict[tuple[int, ...], None] = {}
    for word in words:
        bare = word.lstrip(" ")
        for spelling in (bare, f" {bare}"):
            token_ids = tuple(tokenizer.encode(spelling, add_special_tokens=False))
            if not token_ids:
                raise RequestError(
                    f"bad_words has {word!r}, which the tokenizer turns into no tokens", param="bad_words"
                )
            spellings[token_ids] = None
    return tuple(spellings)


def check_something_is_left(
    params: SamplingParams, bad_words: tuple[tuple[int, ...], ...], eos_token_ids: tuple[int, ...]
) -> None:
    """Refuse a request whose own limits leave no token to sample.

    Raises:
        RequestError: every allowed token is a bad word, or an end of sequence that `min_tokens` forbids.
    """
    if params.allowed_token_ids is None:
        return
    left = set(params.allowed_token_ids) - {word[0] for word in bad_words if len(word) == 1}
    if not left:
        raise RequestError(
            "allowed_token_ids and bad_words contradict each other: every allowed token is a bad word",
            param="bad_words",
        )
    if params.min_tokens and not left.difference(eos_token_ids, params.stop_token_ids):
        raise RequestError(
            f"allowed_token_ids leaves only tokens that end the request, which min_tokens={params.min_tokens} "
            "forbids at first: allow another token, or set min_tokens=0",
            param="allowed_token_ids",
        )


def require_tokenizer(tokenizer: Tokenizer | None) -> Tokenizer:
    """An engine's tokenizer.

    Raises:
        RequestError: the engine was made without one.
    """
    if tokenizer is None:
        raise RequestError(
            "this engine has no tokenizer: model.skip_tokenizer is set, or the model comes without one. "
            "Set model.tokenizer to a folder with one, or work with token ids"
        )
    return tokenizer
