"""`load_tokenizer`: from a folder to a `Tokenizer`.

A folder with a ``tokenizer.json`` is read directly, in a fraction of a second; any other goes through
transformers, which converts what it knows. As in transformers 5, what goes around a text (a beginning-of-sequence
token, say) is what ``tokenizer.json`` says, whatever ``add_bos_token`` in the configuration says.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcore.errors import ModelError, ModelNotFoundError, UnsupportedModelError
from vcore.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    import tokenizers

__all__ = ["load_tokenizer"]

logger = logging.getLogger(__name__)

_TOKENIZER_FILE = "tokenizer.json"
_CONFIG_FILE = "tokenizer_config.json"
_OTHER_FILES = ("tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json", _CONFIG_FILE)
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in folder `path`.

    Args:
        path: a folder with ``tokenizer.json``, or with any tokenizer that transformers converts to that form.

    Raises:
        ModelNotFoundError: there is no such folder, or no tokenizer in it.
        ModelError: a file is damaged.
        UnsupportedModelError: the tokenizer cannot be converted.
    """
    if not path.is_dir():
        raise ModelNotFoundError(f"no folder {path} to read a tokenizer from; give a folder with {_TOKENIZER_FILE}")
    if (path / _TOKENIZER_FILE).exists():
        return _read(path)
    if any((path / name).exists() for name in _OTHER_FILES):
        return _convert(path)
    found = ", ".join(sorted(entry.name for entry in path.iterdir())[:12]) or "nothing"
    raise ModelNotFoundError(
        f"{path} holds no tokenizer: expected {_TOKENIZER_FILE} or one of {', '.join(_OTHER_FILES)}, found {found}. "
        "Add it, set model.tokenizer to a folder that has one, or set model.skip_tokenizer and pass token ids."
    )


def _read(path: Path) -> Tokenizer:
    import tokenizers

    file = path / _TOKENIZER_FILE
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        raise ModelError(
            f"{file} ({file.stat().st_size:,} bytes) is no tokenizer that this version of tokenizers "
            f"({tokenizers.__version__}) reads: {error}. Fetch the model again, or update tokenizers."
        ) from error
    config = _read_json(path / _CONFIG_FILE)
    try:
        special_tokens = _special_tokens({**_read_json(path / "special_tokens_map.json"), **config})
        _add_missing_tokens(backend, special_tokens, config)
        return Tokenizer(backend, special_tokens, _chat_templates(path, config))
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # JSON, but not of the shape that is known
        raise ModelError(
            f"{path / _CONFIG_FILE} or special_tokens_map.json has another shape than known: "
            f"{type(error).__name__}: {error}. Expected special tokens and chat templates as transformers writes them; "
            "fetch the model again."
        ) from error


def _convert(path: Path) -> Tokenizer:
    """Through transformers, which builds a fast tokenizer from whatever files there are."""
    from transformers import AutoTokenizer

    logger.info("%s has no %s; converting its tokenizer with transformers", path, _TOKENIZER_FILE)
    try:
        converted = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        backend = converted.backend_tokenizer
    except Exception as error:  # any library that transformers calls may raise
        raise UnsupportedModelError(
            f"transformers cannot make a fast tokenizer from {path}: {type(error).__name__}: {error}. Convert it where "
            f"the model's code is available, with save_pretrained, so that the folder holds {_TOKENIZER_FILE}."
        ) from error
    tokens = {role: str(token) for role, token in converted.special_tokens_map.items() if role in _ROLES}
    return Tokenizer(backend, tokens, _chat_templates(path, _read_json(path / _CONFIG_FILE)))


def _read_json(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} is no valid JSON: {error}. Fetch the model again.") from error
    if not isinstance(values, dict):
        raise ModelError(f"{file} must hold a JSON object, got {type(values).__name__}. Fetch the model again.")
    return values


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """By role. A token stands there as its text, or as an object with its ``content``."""
    tokens = {role: config.get(role) for role in _ROLES}
    texts = {role: token["content"] if isinstance(token, dict) else token for role, token in tokens.items() if token}
    return {role: str(text) for role, text in texts.items()}


def _add_missing_tokens(backend: tokenizers.Tokenizer, special_tokens: dict[str, str], config: dict[str, Any]) -> None:
    """Add the tokens that only ``tokenizer_config.json`` names, in the order of their ids, as transformers does."""
    from tokenizers import AddedToken

    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    listed = sorted((config.get("added_tokens_decoder") or {}).items(), key=lambda item: int(item[0]))
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    for _, token in listed:
        if token["content"] not in known:
            backend.add_tokens([AddedToken(token["content"], **{flag: token[flag] for flag in flags if flag in token})])
            known.add(token["content"])
    backend.add_special_tokens([token for token in dict.fromkeys(special_tokens.values()) if token not in known])


def _chat_templates(path: Path, config: dict[str, Any]) -> dict[str, str]:
    """By name, from the newest place that has any: files of their own, or the tokenizer's configuration."""
    templates: dict[str, str] = {}
    stated = config.get("chat_template") or _read_json(path / "chat_template.json").get("chat_template")
    if isinstance(stated, str):
        templates["default"] = stated
    elif isinstance(stated, list):
        templates.update({entry["name"]: entry["template"] for entry in stated})
    if (path / "chat_template.jinja").exists():
        templates["default"] = _read_template(path / "chat_template.jinja")
    for file in sorted((path / "additional_chat_templates").glob("*.jinja")):
        templates[file.stem] = _read_template(file)
    return templates


def _read_template(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{file} is no UTF-8 text: {error}. Fetch the model again.") from error
