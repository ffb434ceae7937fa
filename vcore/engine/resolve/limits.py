"""How many requests run at once, and how many tokens a step: the scheduler's numbers, and what contradicts what."""

from __future__ import annotations

from dataclasses import dataclass

from vcore.config import SchedulerConfig
from vcore.engine.resolve.decisions import Decision
from vcore.errors import ConfigError

__all__ = ["Limits", "check_limits", "resolve_limits"]

_MAX_NUM_SEQS = 256
_MAX_BATCHED_TOKENS_CPU = 2048
_MAX_BATCHED_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Limits:
    """The scheduler's numbers."""

    max_num_seqs: int
    max_num_batched_tokens: int


def resolve_limits(
    config: SchedulerConfig, *, device_type: str, max_model_len: int
) -> tuple[Limits, tuple[Decision, ...]]:
    """Both numbers, with the decisions behind those that were ``auto``.

    Raises:
        ConfigError: they contradict each other, or `chunked_prefill`.
    """
    check_limits(config, max_model_len=max_model_len)
    decisions = []
    seqs, tokens = config.max_num_seqs, config.max_num_batched_tokens
    if seqs == "auto":
        seqs, why = _MAX_NUM_SEQS, "the core's default"
        if isinstance(tokens, int) and tokens < seqs:
            seqs, why = tokens, "each running request needs a token of max_num_batched_tokens in a step"
        decisions.append(Decision(key="scheduler.max_num_seqs", value=seqs, why=why))
    if tokens == "auto":
        tokens, why = _auto_tokens(config, device_type, seqs, max_model_len)
        decisions.append(Decision(key="scheduler.max_num_batched_tokens", value=tokens, why=why))
    return Limits(seqs, tokens), tuple(decisions)


def check_limits(config: SchedulerConfig, *, max_model_len: int | None = None) -> None:
    """Refuse what contradicts itself, as far as it is known.

    Raises:
        ConfigError: with the numbers.
    """
    seqs, tokens = config.max_num_seqs, config.max_num_batched_tokens
    if isinstance(seqs, int) and isinstance(tokens, int) and tokens < seqs:
        raise ConfigError(
            f"scheduler: found max_num_batched_tokens={tokens} below max_num_seqs={seqs}, but each running request "
            "needs at least one token in a step; raise the first or lower the second"
        )
    if config.chunked_prefill:
        return
    if config.long_prefill_threshold is not None:
        raise ConfigError(
            f"scheduler: found long_prefill_threshold={config.long_prefill_threshold} with chunked_prefill=false, but "
            "the threshold works by computing a prompt over several steps; leave one of them out"
        )
    if isinstance(tokens, int) and max_model_len is not None and tokens < max_model_len:
        raise ConfigError(
            f"scheduler: found max_num_batched_tokens={tokens} with chunked_prefill=false, but a prompt of up to "
            f"model.max_model_len={max_model_len} tokens must then fit in one step; raise the first to that, lower the "
            "second, or allow chunked_prefill"
        )


def _auto_tokens(config: SchedulerConfig, device_type: str, seqs: int, max_model_len: int) -> tuple[int, str]:
    tokens = _MAX_BATCHED_TOKENS_CPU if device_type == "cpu" else _MAX_BATCHED_TOKENS
    why = f"the core's default on {device_type}"
    if tokens < seqs:
        tokens, why = seqs, "one token for each of max_num_seqs"
    if not config.chunked_prefill and tokens < max_model_len:
        tokens, why = max_model_len, "without chunked_prefill the longest prompt must fit in one step"
    return tokens, why
