"""SentencePiece's BPE (Kudo and Richardson 2018, arXiv:1808.06226) from what a GGUF file keeps of it.

The file has the pieces with their scores and kinds, and no merges. SentencePiece joins, of all neighbours whose
concatenation is a piece, those whose piece has the highest score; the ``tokenizers`` library wants that order as a list
of pairs. Done here, and not by transformers, for two reasons: some versions that vcore runs with read such a
vocabulary as a unigram model, which splits text differently, and building a configuration first takes them twenty
seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcore_model_zoo.loaders.gguf_metadata import GGUFMetadata

if TYPE_CHECKING:
    import tokenizers

__all__ = ["is_sentencepiece_bpe", "sentencepiece_backend", "special_tokens"]

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How SentencePiece writes a space."""
_CONTROL, _USER_DEFINED = 3, 4
"""Values of ``tokenizer.ggml.token_type``: never in a text, and matched in it whole."""
_ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


def is_sentencepiece_bpe(metadata: GGUFMetadata) -> bool:
    """Whether the tokenizer is of the kind that is read here: one that takes spaces as they come, as Gemma's does.

    Others put a space before each text, and differ in when they do.
    """
    lookup = metadata.lookup
    return lookup("tokenizer.ggml.model") == "llama" and lookup("tokenizer.ggml.add_space_prefix") is False


def sentencepiece_backend(metadata: GGUFMetadata) -> tokenizers.Tokenizer:
    """The tokenizer, with what it puts around a text."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    pieces = [_spelled(token) for token in metadata.lookup("tokenizer.ggml.tokens")]
    vocabulary = {piece: token_id for token_id, piece in enumerate(pieces)}
    model = models.BPE(
        vocab=vocabulary,
        merges=_merges(vocabulary),
        unk_token=special_tokens(metadata).get("unk_token"),
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Replace(" ", _SPACE)
    backend.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    _add_tokens(backend, metadata)
    _add_surroundings(backend, metadata)
    return backend


def special_tokens(metadata: GGUFMetadata) -> dict[str, str]:
    """The special tokens by role, as ``tokenizer_config.json`` has them."""
    tokens = metadata.lookup("tokenizer.ggml.tokens")
    ids = {role: metadata.lookup(f"tokenizer.ggml.{kind}_token_id") for kind, role in _ROLES.items()}
    return {role: tokens[token_id] for role, token_id in ids.items() if token_id is not None}


def _spelled(token: str) -> str:
    """A piece as text is spelled when it is looked up; runs of spaces stand in the file as such."""
    return _SPACE * len(token) if token and not token.strip(" ") else token


def _merges(vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """All pairs of pieces that make a piece, those of the first piece first: scores fall as ids grow.

    Only pieces that users defined have scores out of order, which are meaningless; they come where their ids put them.
    """
    pairs = []
    for piece in vocabulary:
        halves = [(piece[:at], piece[at:]) for at in range(len(piece) - 1, 0, -1)]
        pairs += [pair for pair in halves if pair[0] in vocabulary and pair[1] in vocabulary]
    return pairs


def _add_tokens(backend: tokenizers.Tokenizer, metadata: GGUFMetadata) -> None:
    from tokenizers import AddedToken

    listed = list(
        zip(metadata.lookup("tokenizer.ggml.tokens"), metadata.lookup("tokenizer.ggml.token_type"), strict=True)
    )
    control = [token for token, kind in listed if kind == _CONTROL]
    # a run of spaces is left out: it would have to be added as it is spelled after normalisation, and is merged anyway
    whole = [token for token, kind in listed if kind == _USER_DEFINED and _spelled(token) == token]
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in whole])


def _add_surroundings(backend: tokenizers.Tokenizer, metadata: GGUFMetadata) -> None:
    """The tokens that begin and end a text, of which llama.cpp adds the first unless the file says otherwise."""
    from tokenizers.processors import TemplateProcessing

    tokens, lookup = special_tokens(metadata), metadata.lookup
    begin = tokens.get("bos_token") if lookup("tokenizer.ggml.add_bos_token") is not False else None
    end = tokens.get("eos_token") if lookup("tokenizer.ggml.add_eos_token") else None

    def around(sequence: str, kind: int) -> list[str]:
        first, last = ([f"{token}:{kind}"] if token else [] for token in (begin, end))
        return [*first, f"${sequence}:{kind}", *last]

    used = [(token, backend.token_to_id(token)) for token in dict.fromkeys((begin, end)) if token]
    if used:
        backend.post_processor = TemplateProcessing(
            single=around("A", 0), pair=around("A", 0) + around("B", 1), special_tokens=used
        )
