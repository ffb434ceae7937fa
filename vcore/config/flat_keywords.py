"""Flat keywords, as users of vLLM know them, and the keys of the tree that they stand for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from vcore.errors import ConfigError

__all__ = ["FLAT_KEYWORDS", "expand_keywords"]

FLAT_KEYWORDS: Mapping[str, str] = MappingProxyType(
    {
        "attention_backend": "attention.backend",
        "block_size": "cache.block_size",
        "device": "runtime.device",
        "dtype": "model.dtype",
        "enable_chunked_prefill": "scheduler.chunked_prefill",
        "enable_prefix_caching": "cache.prefix_caching",
        "enforce_eager": "runtime.enforce_eager",
        "gpu_memory_utilization": "cache.memory_fraction",
        "load_format": "model.load_format",
        "long_prefill_token_threshold": "scheduler.long_prefill_threshold",
        "max_model_len": "model.max_model_len",
        "max_num_batched_tokens": "scheduler.max_num_batched_tokens",
        "max_num_seqs": "scheduler.max_num_seqs",
        "num_gpu_blocks_override": "cache.num_blocks",
        "scheduling_policy": "scheduler.policy",
        "seed": "runtime.seed",
        "skip_tokenizer_init": "model.skip_tokenizer",
        "tensor_parallel_size": "runtime.tensor_parallel_size",
        "tokenizer": "model.tokenizer",
    }
)
"""Each flat keyword and its key. `model` (a name) and `trust_remote_code` are understood beside them."""

_DTYPES = {"half": "float16", "float": "float32", "bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def expand_keywords(keywords: Mapping[str, Any], sections: Iterable[str]) -> list[tuple[str, Any]]:
    """Pairs of dotted key and value for keywords of Python: flat ones, dotted ones and parts of the tree.

    A flat keyword of None counts as not given.

    Args:
        keywords: as given to `LLM`.
        sections: the keys at the top of the tree.

    Raises:
        ConfigError: a keyword is unknown, or `trust_remote_code` is set.
    """
    known = list(sections)
    pairs: list[tuple[str, Any]] = []
    for keyword, value in keywords.items():
        if keyword in FLAT_KEYWORDS:
            if value is not None:
                pairs.append((FLAT_KEYWORDS[keyword], _convert(keyword, value)))
        elif keyword == "trust_remote_code":
            _refuse_remote_code(value)
        elif keyword == "model" and (isinstance(value, str) or hasattr(value, "__fspath__")):
            pairs.append(("model.path", str(value)))
        elif keyword.partition(".")[0] in known:
            pairs.append((keyword, value))
        else:
            raise _unknown(keyword, known)
    return pairs


def _convert(keyword: str, value: Any) -> Any:
    """`value` in the tree's terms."""
    if keyword == "dtype":
        name = str(value).removeprefix("torch.")
        return _DTYPES.get(name, name)
    if keyword in ("device", "tokenizer"):
        return str(value)
    if keyword == "long_prefill_token_threshold" and value == 0 and not isinstance(value, bool):
        return None
    return value


def _refuse_remote_code(value: object) -> None:
    if value:
        raise ConfigError(
            "trust_remote_code=True was given, but vcore runs no code from a checkpoint. Leave it out; for an "
            "architecture that no installed plugin serves, use a model plugin (see `vcore plugins list`)."
        )


def _unknown(keyword: str, sections: list[str]) -> ConfigError:
    from vcore.config.models import EngineConfig
    from vcore.config.problems import dotted_keys  # it imports this module

    dotted = dotted_keys(EngineConfig)
    by_name = {key: key for key in [*FLAT_KEYWORDS, *dotted]} | {
        key.rpartition(".")[2]: key for key in dotted if key.rpartition(".")[2] not in FLAT_KEYWORDS
    }
    close = dict.fromkeys(by_name[name] for name in difflib.get_close_matches(keyword, by_name, n=3, cutoff=0.6))
    hint = f"Did you mean {' or '.join(repr(name) for name in close)}?" if close else ""
    return ConfigError(
        f"unknown keyword {keyword!r}. {hint} Keywords are: {', '.join(FLAT_KEYWORDS)}; "
        f"parts of the tree ({', '.join(sections)}); or dotted keys, as in **{{'cache.block_size': 16}}."
    )
