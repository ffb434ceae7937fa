"""The tokenizer of a GGUF file, as a folder in Hugging Face's layout."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from vcore_model_zoo.loaders.gguf_metadata import GGUFMetadata
from vcore_model_zoo.loaders.gguf_sentencepiece import is_sentencepiece_bpe, sentencepiece_backend, special_tokens

__all__ = ["write_tokenizer"]

logger = logging.getLogger(__name__)

_TEMPLATE = "tokenizer.chat_template"


def write_tokenizer(file: Path, metadata: GGUFMetadata, folder: Path) -> None:
    """Write the tokenizer of `file` into `folder`, if it has one that can be read; otherwise that is logged.

    Args:
        file: the GGUF file.
        metadata: what it says.
        folder: exists.
    """
    if metadata.lookup("tokenizer.ggml.model") is None:
        return
    try:
        if is_sentencepiece_bpe(metadata):
            _write_sentencepiece(metadata, folder)
        else:
            _write_by_transformers(file, folder)
    except Exception as error:  # any library that transformers calls may raise, and weights can be used without text
        logger.warning(
            "the tokenizer in %s cannot be read (%s: %s); set model.tokenizer to a folder that has one, or "
            "update transformers and remove the .vcore folder beside the file",
            file,
            type(error).__name__,
            error,
        )


def _write_sentencepiece(metadata: GGUFMetadata, folder: Path) -> None:
    sentencepiece_backend(metadata).save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **special_tokens(metadata),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    template = metadata.lookup(_TEMPLATE)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _write_by_transformers(file: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name).save_pretrained(folder)
