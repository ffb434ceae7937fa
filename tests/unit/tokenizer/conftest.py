"""Small tokenizers of each kind of decoder, made here, and the real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from vcore.tokenizer import Tokenizer, load_tokenizer

WORDS = ("▁", "▁Hello", "▁Paris", "Hello", "Paris", "!", ",", "a", "é", "▁▁", "\N{REPLACEMENT CHARACTER}")
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def _add_special(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    backend.add_special_tokens(list(SPECIAL.values()))
    backend.add_tokens(["<plain added>"])
    return backend


def sentencepiece_style() -> tokenizers.Tokenizer:
    """As Llama 2 has it: byte fallback, and a space dropped at the start of a text."""
    pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    model = models.BPE({piece: i for i, piece in enumerate(pieces)}, [], byte_fallback=True, fuse_unk=True)
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return _add_special(backend)


def spaces_as_they_come() -> tokenizers.Tokenizer:
    """As Gemma has it: byte fallback, and no space put before a text or dropped from it."""
    backend = sentencepiece_style()
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return backend


def metaspace() -> tokenizers.Tokenizer:
    """As XLM-R has it."""
    backend = tokenizers.Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="a"))
    backend.decoder = decoders.Metaspace()
    return _add_special(backend)


def word_piece() -> tokenizers.Tokenizer:
    """As BERT has it."""
    words = ["hello", "##ing", "paris", ",", "don", "'", "t", "[UNK]"]
    backend = tokenizers.Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    return _add_special(backend)


def no_decoder() -> tokenizers.Tokenizer:
    """Tokens joined by spaces."""
    return _add_special(tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="a")))


def byte_level() -> tokenizers.Tokenizer:
    """As GPT-2 has it: one token a byte, and two of several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, "ĠParis", "ðŁĺ"]  # the second is three bytes of an emoji
    backend = tokenizers.Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return _add_special(backend)


def byte_level_in_sequence() -> tokenizers.Tokenizer:
    """A byte-level decoder with something after it, which only the library itself can follow."""
    backend = byte_level()
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("x", "yy")])
    return backend


KINDS: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    kind.__name__: kind
    for kind in (
        sentencepiece_style,
        spaces_as_they_come,
        metaspace,
        word_piece,
        no_decoder,
        byte_level,
        byte_level_in_sequence,
    )
}


Builder = Callable[[], tokenizers.Tokenizer]


@pytest.fixture
def byte_level_backend() -> Builder:
    """Makes a byte-level tokenizer of the library."""
    return byte_level


@pytest.fixture(params=sorted(KINDS))
def any_tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """One of each kind."""
    return Tokenizer(KINDS[request.param](), SPECIAL, {})


@pytest.fixture
def sentencepiece_tokenizer() -> Tokenizer:
    return Tokenizer(sentencepiece_style(), SPECIAL, {})


@pytest.fixture
def gemma_style_tokenizer() -> Tokenizer:
    return Tokenizer(spaces_as_they_come(), SPECIAL, {})


@pytest.fixture
def byte_level_tokenizer() -> Tokenizer:
    return Tokenizer(byte_level(), SPECIAL, {})


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder with ``tokenizer.json`` and other JSON or text files."""

    def write(backend: tokenizers.Tokenizer, **files: Any) -> Path:
        backend.save(str(tmp_path / "tokenizer.json"))
        for stem, content in files.items():
            (tmp_path / f"{stem}.json").write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture(scope="session")
def smollm2_tokenizer_path(smollm2_path: Path) -> Path:
    """The folder with the real tokenizer."""
    from vcore_model_zoo.loaders.gguf_loader import GGUFLoader

    from vcore.interfaces.weights import WeightLoaderContext

    path = GGUFLoader(options=None, context=WeightLoaderContext(path=smollm2_path)).tokenizer_path()
    assert path is not None
    return path


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2_tokenizer_path: Path) -> Tokenizer:
    return load_tokenizer(smollm2_tokenizer_path)


@pytest.fixture(scope="session")
def smollm2_reference(smollm2_tokenizer_path: Path) -> Any:
    """transformers' own tokenizer from the same folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2_tokenizer_path)
