"""`model.pooling`: how embeddings are made of hidden states, by the configuration or by what the checkpoint says.

Checkpoints say it in the files of sentence-transformers, a list of modules with a folder for each:

    modules.json               [Transformer, Pooling, Normalize]
    1_Pooling/config.json      {"pooling_mode_lasttoken": true, ...}, or {"pooling_mode": "lasttoken"}

Of files without these, such as GGUF, the loader says it in the configuration, as ``embedding_pooling``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from vcore.engine.pooling import ModelPooling
from vcore.engine.resolve.decisions import Decision
from vcore.engine.resolve.hf_values import text_config
from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig
from vcore.pooling_params import PoolingMode

__all__ = ["resolve_pooling"]

_MODULES = "modules.json"
_KNOWN = ("Transformer", "Pooling", "Normalize")
_MODES: Mapping[str, PoolingMode] = {"lasttoken": "last", "mean": "mean"}
"""sentence-transformers' names to ours."""
_SERVED = f"served are {' and '.join(sorted(_MODES))}"
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_SIZE_KEYS = ("hidden_size", "n_embd", "d_model")
"""Where architectures state the width of hidden states; the first that is there counts."""


@dataclass(frozen=True, slots=True)
class _Said:
    """What a checkpoint says of embeddings."""

    mode: PoolingMode | None
    why: str
    """Where it says so, or why it has no mode that is served."""
    normalize: bool = True


class _UnservedError(Exception):
    """The checkpoint asks for what is not served; the text says for what."""


def resolve_pooling(wanted: str, path: Path, config: HFConfig) -> tuple[ModelPooling, Decision | None]:
    """How the model makes embeddings.

    What a checkpoint asks for and vcore does not do leaves the model without embeddings; it may well generate.

    Args:
        wanted: ``model.pooling``.
        path: the model's folder, or its one file.
        config: the model's.

    Raises:
        UnsupportedModelError: the model is to make embeddings, and its config asks for attention in both directions, or
            does not say how wide its hidden states are.
    """
    said = _read(path, config)
    if (both := _sees_both_ways(config)) is not None:
        if wanted in ("last", "mean"):
            raise UnsupportedModelError(f"{config.origin}: {both}. Use another model, or write model.pooling=none.")
        said = _Said(None, both)
    if wanted != "auto":
        mode = None if wanted == "none" else cast(PoolingMode, wanted)
        return _pooling(mode, said.normalize, config, "model.pooling is none"), None
    decision = Decision(key="model.pooling", value=said.mode or "none", why=said.why)
    return _pooling(said.mode, said.normalize, config, said.why), decision


def _pooling(mode: PoolingMode | None, normalize: bool, config: HFConfig, why_not: str) -> ModelPooling:
    if mode is None:
        return ModelPooling(why_not=why_not)
    text = text_config(config)
    size = next((value for key in _SIZE_KEYS if isinstance(value := text.get(key), int) and value > 0), None)
    if size is None:
        raise UnsupportedModelError(
            f"{text.origin}: found none of {', '.join(_SIZE_KEYS)}, which embeddings (model.pooling={mode}) need. "
            "Complete the file, or write model.pooling=none."
        )
    return ModelPooling(mode=mode, size=size, normalize=normalize)


def _sees_both_ways(config: HFConfig) -> str | None:
    """What is wrong with a config whose tokens are to see those behind them: the vectors would be others'."""
    for holder in (config, text_config(config)):
        for key, value in (("is_causal", False), ("use_bidirectional_attention", True)):
            if holder.get(key) is value:
                told = f"found {key}={str(value).lower()}, which is attention in both directions"
                return f"{told}; here tokens see those before them alone"
    return None


def _read(folder: Path, config: HFConfig) -> _Said:
    """What the files in `folder` say."""
    if not (folder / _MODULES).is_file():
        return _read_config(config)
    normalize = True
    try:
        modules = _modules(folder / _MODULES)
        kinds = [kind for kind, _ in modules]
        normalize = "Normalize" in kinds
        if surplus := [kind for kind in kinds if kind not in _KNOWN]:
            raise _UnservedError(f"{_MODULES} has a module {surplus[0]!r}; served are {', '.join(_KNOWN)}")
        if kinds.count("Pooling") != 1:
            raise _UnservedError(f"{_MODULES} has {kinds.count('Pooling')} modules that pool; one is served")
        if "Normalize" in kinds[: kinds.index("Pooling")]:
            raise _UnservedError(f"{_MODULES} normalises before it pools; served is to normalise what was pooled")
        return _read_pooling(folder / dict(modules)["Pooling"] / "config.json", folder, normalize)
    except _UnservedError as error:
        return _Said(None, str(error), normalize)


def _read_config(config: HFConfig) -> _Said:
    """What the loader says who made `config`."""
    stated = config.get("embedding_pooling")
    if stated is None:
        return _Said(None, f"the model comes without {_MODULES}, in which models for embeddings say how they pool")
    if stated == "none":
        return _Said(None, "the model's file says that nothing is pooled")
    if not isinstance(stated, str) or stated not in _MODES:
        return _Said(None, f"the model's file asks for the pooling {stated!r}; {_SERVED}")
    return _Said(_MODES[stated], f"the model's file says {stated}")


def _read_pooling(file: Path, folder: Path, normalize: bool) -> _Said:
    name = file.relative_to(folder).as_posix()
    modes = _pooling_modes(file, name)
    if len(modes) != 1:
        raise _UnservedError(f"{name} asks for {' with '.join(modes) or 'no kind of pooling'}; {_SERVED}, one of them")
    if modes[0] not in _MODES:
        raise _UnservedError(f"{name} asks for the pooling {modes[0]!r}; {_SERVED}")
    ending = ", normalised" if normalize else ", not normalised"
    return _Said(_MODES[modes[0]], f"{name} says {modes[0]}{ending}", normalize)


def _modules(file: Path) -> list[tuple[str, str]]:
    """The modules' kinds, each with the path of its folder within the model's."""
    found = _json(file, file.name)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise _UnservedError(f"{file.name} is no list of modules")
    modules = []
    for item in found:
        kind, path = str(item.get("type", "")).rpartition(".")[2], str(item.get("path", ""))
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise _UnservedError(f"{file.name} has a path {path!r}, which leads out of the model's folder")
        modules.append((kind, path))
    return modules


def _pooling_modes(file: Path, name: str) -> list[str]:
    values = _json(file, name)
    if not isinstance(values, dict):
        raise _UnservedError(f"{name} is no object")
    stated = values.get("pooling_mode")
    if stated is not None:
        return [str(mode) for mode in stated] if isinstance(stated, list) else [str(stated)]
    return [mode for flag, mode in _FLAGS.items() if values.get(flag) is True]


def _json(file: Path, name: str) -> Any:  # whatever JSON holds
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:  # clients are told, too, whom the folder does not concern
        raise _UnservedError(f"{name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _UnservedError(f"{name} cannot be read: {error}") from error
