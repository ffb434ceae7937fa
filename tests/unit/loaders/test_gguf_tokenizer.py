"""Tokenizers of GGUF files: SentencePiece's BPE against its definition, what stands around a text, templates."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vcore_model_zoo.loaders.gguf_file import GGUFFile
from vcore_model_zoo.loaders.gguf_loader import GGUFLoader
from vcore_model_zoo.loaders.gguf_metadata import GGUFMetadata
from vcore_model_zoo.loaders.gguf_sentencepiece import is_sentencepiece_bpe, sentencepiece_backend, special_tokens
from vcore_model_zoo.loaders.gguf_tokenizer import write_tokenizer

from vcore.interfaces.weights import WeightLoaderContext
from vcore.tokenizer import load_tokenizer

Tensors = dict[str, np.ndarray[Any, Any]]

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
WHOLE = ["\n", "\n\n", "<b>", "  ", "   "]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
JOINED = [f"{SPACE}t", "he", f"{SPACE}a", "in", f"{SPACE}the", "th", "the", "ing", f"{SPACE}thing", "éa", "aa", "aaa"]
LETTERS = ["e", "t", "h", "a", "i", "n", "g", SPACE, "é", "日", "<", "b", ">"]
TOKENS = [*CONTROL, *WHOLE, *BYTES, *JOINED, *LETTERS]
KINDS = [3] * len(CONTROL) + [4] * len(WHOLE) + [6] * len(BYTES) + [1] * len(JOINED + LETTERS)
VALUES = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": KINDS,
    "tokenizer.ggml.scores": [-float(i) for i in range(len(TOKENS))],
    "tokenizer.ggml.add_space_prefix": False,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.unknown_token_id": 3,
    "tokenizer.ggml.padding_token_id": 0,
}
IDS = {"tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.eos_token_id": 1}
"""Which the fixture that writes files adds by itself."""


def metadata(**values: Any) -> GGUFMetadata:
    known = {**VALUES, **IDS, **{f"tokenizer.ggml.{key}": value for key, value in values.items()}}
    return GGUFMetadata(origin="x.gguf", lookup=known.get, shapes={}, tensor_values=lambda name: [])


def by_definition(text: str) -> list[int]:
    """Join the best pair of neighbours, the first of equals, for as long as one is a piece; then bytes."""
    pieces = {token.replace(" ", SPACE): i for i, token in enumerate(TOKENS)}
    symbols = list(text.replace(" ", SPACE))
    while True:
        pairs = [symbols[i] + symbols[i + 1] for i in range(len(symbols) - 1)]
        ranked = [(pieces[pair], i) for i, pair in enumerate(pairs) if pair in pieces]
        if not ranked:
            break
        at = min(ranked)[1]
        symbols[at : at + 2] = [pairs[at]]
    return [
        token_id
        for symbol in symbols
        for token_id in (
            [pieces[symbol]] if symbol in pieces else [pieces[f"<0x{byte:02X}>"] for byte in symbol.encode()]
        )
    ]


class TestSentencePiece:
    @settings(max_examples=300, deadline=None)
    @given(text=st.text(alphabet="the aingé日x😀", max_size=24))
    def test_ids_are_those_of_the_definition(self, text: str) -> None:
        assert BACKEND.encode(text, add_special_tokens=False).ids == by_definition(text)

    @settings(max_examples=200, deadline=None)
    @given(text=st.text(max_size=24).filter(lambda text: SPACE not in text))
    def test_every_text_comes_back(self, text: str) -> None:
        ids = BACKEND.encode(text, add_special_tokens=False).ids
        assert BACKEND.decode(ids, skip_special_tokens=False) == text

    def test_pieces_of_users_are_matched_whole_and_control_tokens_too(self) -> None:
        tokens = BACKEND.encode("<start_of_turn>the\n\n<b>   t<end_of_turn>").tokens
        assert tokens == ["<bos>", "<start_of_turn>", "the", "\n\n", "<b>", 3 * SPACE, "t", "<end_of_turn>"]

    @pytest.mark.parametrize(
        ("values", "tokens"),
        [
            ({}, ["<bos>", "the"]),
            ({"add_bos_token": None}, ["<bos>", "the"]),
            ({"add_bos_token": False}, ["the"]),
            ({"add_eos_token": True}, ["<bos>", "the", "<eos>"]),
            ({"add_bos_token": False, "add_eos_token": True}, ["the", "<eos>"]),
        ],
    )
    def test_what_stands_around_a_text(self, values: dict[str, Any], tokens: list[str]) -> None:
        assert sentencepiece_backend(metadata(**values)).encode("the").tokens == tokens

    def test_roles(self) -> None:
        assert special_tokens(metadata()) == {
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
        }

    @pytest.mark.parametrize("values", [{"add_space_prefix": None}, {"add_space_prefix": True}, {"model": "gpt2"}])
    def test_other_kinds_are_left_to_transformers(self, values: dict[str, Any]) -> None:
        assert is_sentencepiece_bpe(metadata())
        assert not is_sentencepiece_bpe(metadata(**values))


BACKEND = sentencepiece_backend(metadata())


class TestFiles:
    @pytest.fixture
    def path(self, write_gguf: Callable[..., Path], tiny_tensors: Tensors) -> Path:
        template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        return write_gguf(tiny_tensors, values={**VALUES, "tokenizer.chat_template": template})

    def test_transformers_reads_what_is_written(self, path: Path) -> None:
        """With the ids that the file states: the fixture has 1 for the beginning of a text, and 2 for its end."""
        from transformers import AutoTokenizer

        folder = GGUFLoader(options=None, context=WeightLoaderContext(path=path)).tokenizer_path()
        assert folder is not None
        ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
        for text in ("the thing", "<b>日 x😀\n\n", " <end_of_turn>  "):
            assert ours.encode(text) == theirs.encode(text)
            assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text), skip_special_tokens=True)
        assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id) == (1, 2)
        assert ours.render_chat([{"role": "user", "content": "the"}]) == "the"

    def test_the_end_of_a_turn_ends_an_answer(self, write_gguf: Callable[..., Path], tiny_tensors: Tensors) -> None:
        path = write_gguf(tiny_tensors, architecture="gemma3", values=VALUES, metadata={"attention.sliding_window": 4})
        # 2 and 3 are the fixture's
        assert GGUFFile(path).generation_config()["eos_token_id"] == [2, 3, TOKENS.index("<end_of_turn>")]

    def test_damaged_vocabularies_are_no_obstacle(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            write_tokenizer(tmp_path / "x.gguf", metadata(token_type=KINDS[:-1]), tmp_path)
        assert "cannot be read (ValueError" in caplog.text
        assert list(tmp_path.iterdir()) == []

    def test_no_tokenizer_is_nothing_to_write(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        write_tokenizer(tmp_path / "x.gguf", metadata(model=None), tmp_path)
        assert caplog.text == ""
        assert list(tmp_path.iterdir()) == []
