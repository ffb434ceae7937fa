"""Which class of transformers a ``config.json`` means, and what can be refused by looking at its config alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel

from vcore.errors import ConfigError, UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig

__all__ = ["causal_lm_class", "check_length", "rope_scalings", "transformers_config"]

_REMEDY = "The model needs a model plugin of its own (docs/add_a_model.md)."


def transformers_config(config: HFConfig) -> PreTrainedConfig:
    """The configuration as an object of transformers; no code from the checkpoint is run.

    Raises:
        UnsupportedModelError: this version of transformers has no such ``model_type``, or refuses the values.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise UnsupportedModelError(
            f"{config.origin}: found model_type {model_type!r}, which transformers {transformers.__version__} does not "
            f"have. A newer transformers may; code that comes with a checkpoint is not run. {_REMEDY}"
        )
    try:
        made: PreTrainedConfig = CONFIG_MAPPING[model_type].from_dict(_plain(config))
    except Exception as error:  # each class checks its values in its own way
        raise UnsupportedModelError(
            f"{config.origin}: transformers {transformers.__version__} refuses the values: {type(error).__name__}: "
            f"{error}. Fetch the file again, or correct it."
        ) from error
    return made


def _plain(value: Any) -> Any:
    """What JSON holds, in dictionaries and lists of its own."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def causal_lm_class(config: HFConfig, made: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class of the causal language model.

    Raises:
        UnsupportedModelError: there is none, the config names another class, or it cannot run over a paged cache.
    """
    found = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(made), None)
    if not isinstance(found, type):
        raise UnsupportedModelError(
            f"{config.origin}: transformers {transformers.__version__} has no causal language model for model_type "
            f"{made.model_type!r}. {_REMEDY}"
        )
    if config.architectures and found.__name__ not in config.architectures:
        raise UnsupportedModelError(
            f"{config.origin}: found the architecture {' or '.join(config.architectures)}, but the causal language "
            f"model of transformers for model_type {made.model_type!r} is {found.__name__}. {_REMEDY}"
        )
    reason = _why_not(found, made)
    if reason is not None:
        raise UnsupportedModelError(
            f"transformers' {found.__name__} cannot run over a paged cache: {reason}. {_REMEDY}"
        )
    return found


def _why_not(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> str | None:
    if getattr(model_class, "_is_stateful", False):
        return "it keeps a state beside, or instead of, the keys and values of attention"
    if getattr(config, "is_encoder_decoder", False):
        return "it has an encoder"
    parts = sorted(name for name in config.sub_configs if name != "text_config")
    if parts:
        return f"it takes more than text ({', '.join(parts)})"
    return None


def check_length(config: PreTrainedConfig, max_model_len: int) -> None:
    """Refuse lengths at which the rotary angles of a token would depend on the longest request of its step.

    Raises:
        ConfigError: `max_model_len` is above what the scaling leaves alone.
    """
    for scaling in rope_scalings(config):
        kind = scaling.get("rope_type")
        if kind not in ("dynamic", "longrope"):
            continue
        limit = scaling.get("original_max_position_embeddings") or getattr(
            config, "original_max_position_embeddings", None
        )
        limit = limit or config.max_position_embeddings
        if max_model_len > limit:
            raise ConfigError(
                f"model.max_model_len: found {max_model_len:,}, but with the rotary scaling {kind!r} transformers' "
                f"modules give a token other angles as soon as any request of the same step exceeds {limit:,} tokens. "
                f"Set model.max_model_len to {limit} or less."
            )


def rope_scalings(config: PreTrainedConfig) -> Iterator[dict[str, Any]]:
    """The rotary scaling, or those of each kind of layer, as `config` has them; none if it states none."""
    stated = getattr(config, "rope_parameters", None)
    if isinstance(stated, dict):
        nested = [one for one in stated.values() if isinstance(one, dict)]
        yield from nested or [stated]
