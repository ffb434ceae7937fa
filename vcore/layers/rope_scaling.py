"""Inverse frequencies of rotary embedding, by the scaling that a model's config asks for.

It reads the config and does arithmetic; it knows no layer. All follow transformers' definitions, so that
checkpoints give the same numbers; `dynamic_ntk` and `longrope` state where a paged engine has to differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig

__all__ = ["RopeFrequencies", "RopeParameters", "rope_frequencies"]


_MAX_ROTARY_DIM = 4096
"""Far above what any model has: a damaged number must not fill the memory with angles."""


@dataclass(frozen=True, slots=True)
class RopeFrequencies:
    """What the angles are made from."""

    inv_freq: torch.Tensor
    """float32 [rotary_dim / 2], on the CPU: radians a position."""
    attention_factor: float
    """Multiplies cos and sin, and so the scores by its square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeParameters:
    """What a config says of rotary embedding, whichever way it says it."""

    rope_type: str
    theta: float
    rotary_dim: int
    """How many features of a head are turned."""
    max_position_embeddings: int
    max_model_len: int
    """The longest request that the engine will take."""
    scaling: Mapping[str, Any]
    """The numbers of the scaling, as in the config."""
    origin: str

    @classmethod
    def from_config(
        cls, config: HFConfig, head_dim: int, max_model_len: int, layer_type: str | None = None
    ) -> RopeParameters:
        """Read ``rope_parameters`` (transformers 5) or ``rope_scaling`` with ``rope_theta`` (before).

        Args:
            config: the model's config.json.
            head_dim: features of a head.
            max_model_len: the longest request that the engine will take.
            layer_type: whose parameters, as in ``layer_types`` (``"full_attention"``, ``"sliding_attention"``), for
                models in which they differ. ``rope_parameters`` has an object for each type then; before that,
                ``rope_local_base_freq`` was the base of layers with a sliding window, which no scaling applied to.
                A config that makes no difference gives every type the same.

        Raises:
            UnsupportedModelError: the config has no ``max_position_embeddings``, or parameters for each type of layer
                where one for all is asked for, or numbers from which no angles can be made.
        """
        scaling, theta = _written_parameters(config, layer_type)
        partial = scaling.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
        return cls(
            rope_type=_rope_type(scaling),
            theta=_checked_theta(config, scaling.get("rope_theta") or theta or 10_000.0),
            rotary_dim=_checked_rotary_dim(config, head_dim, partial),
            max_position_embeddings=config.max_position_embeddings,
            max_model_len=max_model_len,
            scaling={**scaling, **_pretrained_length(config)},
            origin=config.origin,
        )

    def number(self, key: str, default: float | None = None) -> float:
        """A number of the scaling.

        Raises:
            UnsupportedModelError: it is not there, and there is no default.
        """
        value = self.scaling.get(key)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnsupportedModelError(
                f"rope scaling {self.rope_type!r} in {self.origin} needs a number {key!r}, but has {value!r}. "
                f"Add it to rope_parameters."
            )
        return value

    def factors(self, key: str) -> torch.Tensor:
        """One number for each pair of features: float32 [rotary_dim / 2], on the CPU.

        Raises:
            UnsupportedModelError: they are not there, or not so many.
        """
        values, count = self.scaling.get(key), self.rotary_dim // 2
        numbers = values if isinstance(values, list) and all(isinstance(one, int | float) for one in values) else None
        if numbers is None or len(numbers) != count:
            raise UnsupportedModelError(
                f"rope scaling {self.rope_type!r} in {self.origin} needs a list of {count} numbers {key!r}, one for "
                f"each pair of rotary features, but has {values if numbers is None else f'a list of {len(numbers)}'}. "
                f"Correct it in rope_parameters."
            )
        return torch.tensor(numbers, dtype=torch.float32, device="cpu")

    @property
    def original_length(self) -> float:
        """Positions that the model was pretrained on, before its context was extended."""
        return self.number("original_max_position_embeddings", self.max_position_embeddings)


def rope_frequencies(parameters: RopeParameters) -> RopeFrequencies:
    """The frequencies that `parameters` ask for.

    Raises:
        UnsupportedModelError: the type is not known (the message lists those that are), or a number lacks.
    """
    compute = _ROPE_TYPES.get(parameters.rope_type)
    if compute is None:
        raise UnsupportedModelError(
            f"{parameters.origin} asks for rope scaling {parameters.rope_type!r}, which is not known; there are: "
            f"{', '.join(sorted(_ROPE_TYPES))}."
        )
    return compute(parameters)


def default(parameters: RopeParameters) -> RopeFrequencies:
    """``theta ** (-2i / dim)``: arXiv:2104.09864, equation 15."""
    return RopeFrequencies(_inv_freq(parameters.theta, parameters.rotary_dim), 1.0)


def linear(parameters: RopeParameters) -> RopeFrequencies:
    """Position interpolation: every position divided by ``factor`` (arXiv:2306.15595, equation 4)."""
    inv_freq = _inv_freq(parameters.theta, parameters.rotary_dim)
    return RopeFrequencies(inv_freq / parameters.number("factor"), 1.0)


def dynamic_ntk(parameters: RopeParameters) -> RopeFrequencies:
    """Dynamic NTK scaling, fixed at the engine's longest request (arXiv:2309.00071, section 3.3).

    The method recomputes the base from the current length whenever that exceeds the trained length.
    With keys kept in a cache it cannot: they were turned by the base of the time when they were written,
    and a block shared between requests would need the base of each. So the base is that of a sequence of
    ``max(max_model_len, max_position_embeddings)`` tokens, for all requests and all of their tokens. With
    ``max_model_len`` up to the trained length nothing is scaled; beyond it, results are those of the
    recomputing method on one whole prompt of ``max_model_len`` tokens.
    """
    factor, dim = parameters.number("factor"), parameters.rotary_dim
    trained = parameters.max_position_embeddings
    length = max(parameters.max_model_len, trained)
    stretch = factor * length / trained - (factor - 1)
    theta = parameters.theta * stretch ** (dim / (dim - 2))
    return RopeFrequencies(_inv_freq(theta, dim), 1.0)


def llama3(parameters: RopeParameters) -> RopeFrequencies:
    """Llama 3.1's: long waves divided by ``factor``, short ones kept, those between blended."""
    inv_freq = _inv_freq(parameters.theta, parameters.rotary_dim)
    low, high = parameters.number("low_freq_factor"), parameters.number("high_freq_factor")
    # How many turns each wave makes over the pretrained length; `low` and `high` are bounds on it.
    turns = parameters.original_length * inv_freq / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return RopeFrequencies((1 - kept) * inv_freq / parameters.number("factor") + kept * inv_freq, 1.0)


def yarn(parameters: RopeParameters) -> RopeFrequencies:
    """YaRN: interpolation by parts, and a correction of the scores (arXiv:2309.00071, section 3)."""
    dim = parameters.rotary_dim
    factor = parameters.number("factor", parameters.max_position_embeddings / parameters.original_length)
    extrapolated = _inv_freq(parameters.theta, dim)
    low, high = _yarn_range(parameters)
    ramp = ((torch.arange(dim // 2, dtype=torch.float32, device="cpu") - low) / (high - low)).clamp(0, 1)
    inv_freq = extrapolated / factor * ramp + extrapolated * (1 - ramp)
    return RopeFrequencies(inv_freq, _yarn_attention_factor(parameters, factor))


def _yarn_range(parameters: RopeParameters) -> tuple[float, float]:
    """The pairs of features between which the ramp rises (section 3.2, equations 17 and 18)."""

    def pair_that_turns(times: float) -> float:
        length = parameters.original_length
        ratio = math.log(length / (times * 2 * math.pi)) / (2 * math.log(parameters.theta))
        return parameters.rotary_dim * ratio

    # Zero, like None, stands for the default in configs that exist.
    low = pair_that_turns(parameters.scaling.get("beta_fast") or 32)
    high = pair_that_turns(parameters.scaling.get("beta_slow") or 1)
    if parameters.scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, parameters.rotary_dim - 1)
    return low, high if high != low else high + 0.001


def _yarn_attention_factor(parameters: RopeParameters, factor: float) -> float:
    """``0.1 ln(factor) + 1`` (section 3.4, equation 22), unless the config has its own or DeepSeek's mscales."""

    def temperature(mscale: float) -> float:
        return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0

    given = parameters.scaling.get("attention_factor")
    if given is not None:
        return float(given)
    mscale, mscale_all = parameters.scaling.get("mscale"), parameters.scaling.get("mscale_all_dim")
    if mscale and mscale_all:
        return temperature(mscale) / temperature(mscale_all)
    return temperature(1.0)


def longrope(parameters: RopeParameters) -> RopeFrequencies:
    """LongRoPE: a factor of its own for each pair of features (arXiv:2402.13753, equation 3).

    There are two sets of factors: for texts up to the pretrained length, and for longer ones. The reference takes
    the one or the other by the length of the moment. With keys kept in a cache an engine cannot: they were turned
    by the factors of the time when they were written. So it is decided once, for all requests and all of their
    tokens: with ``max_model_len`` up to ``original_max_position_embeddings`` the short factors, beyond it the long
    ones. Set `max_model_len` to the pretrained length where no request is longer: that is what gives the best
    results for short texts.

    The scores' correction is section 3's ``sqrt(1 + ln(factor) / ln(original length))``, unless the config has its own.
    """
    original = parameters.original_length
    is_long = parameters.max_model_len > original
    factors = parameters.factors("long_factor" if is_long else "short_factor")
    stretch = parameters.number("factor", parameters.max_position_embeddings / original)
    correction = parameters.scaling.get("attention_factor")
    if correction is None:
        correction = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
    inv_freq = _inv_freq(parameters.theta, parameters.rotary_dim) / factors
    return RopeFrequencies(inv_freq, float(correction))


def _inv_freq(theta: float, rotary_dim: int) -> torch.Tensor:
    exponents = torch.arange(0, rotary_dim, 2, dtype=torch.float32, device="cpu") / rotary_dim
    return 1.0 / theta**exponents  # [rotary_dim / 2]


def _written_parameters(config: HFConfig, layer_type: str | None) -> tuple[Mapping[str, Any], float | None]:
    """What the config says for layers of a type, and the base that holds if that says none."""
    written = config.get("rope_parameters") or {}
    by_type = {key: value for key, value in written.items() if isinstance(value, Mapping)}
    if by_type and layer_type is None:
        raise UnsupportedModelError(
            f"{config.origin} has rope_parameters for each type of layer ({', '.join(by_type)}), but this architecture "
            f"turns all layers alike. The model needs a model plugin of its own."
        )
    theta = config.get("rope_theta")
    local_theta = config.get("rope_local_base_freq")
    is_local = layer_type == "sliding_attention" and local_theta is not None
    if is_local:
        theta = local_theta
    if layer_type in by_type:
        return by_type[layer_type], theta
    if is_local:
        return {}, theta
    return config.get("rope_scaling") or ({} if by_type else written), theta


def _checked_theta(config: HFConfig, theta: object) -> float:
    if isinstance(theta, bool) or not isinstance(theta, int | float) or not theta > 0:
        raise UnsupportedModelError(
            f"{config.origin}: found rope_theta={theta!r:.80}, expected a number above zero. Fetch the file again, or "
            f"correct it."
        )
    return float(theta)


def _checked_rotary_dim(config: HFConfig, head_dim: int, partial: object) -> int:
    rotary_dim = int(head_dim * partial) if isinstance(partial, int | float) and 0 < partial <= 1 else 0
    if not 2 <= rotary_dim <= _MAX_ROTARY_DIM or rotary_dim % 2:
        raise UnsupportedModelError(
            f"{config.origin}: of a head's {head_dim} features the partial_rotary_factor {partial!r:.80} lets "
            f"{rotary_dim} be turned, expected an even number from 2 to {_MAX_ROTARY_DIM}. Correct "
            f"partial_rotary_factor, head_dim, or hidden_size and num_attention_heads, whose quotient stands for it."
        )
    return rotary_dim


def _rope_type(scaling: Mapping[str, Any]) -> str:
    """The scaling's name; the first Phi-3 checkpoints call LongRoPE ``su`` and ``yarn``."""
    written = str(scaling.get("rope_type") or scaling.get("type") or "default")
    return "longrope" if written in ("su", "yarn") and "short_factor" in scaling else written


def _pretrained_length(config: HFConfig) -> dict[str, Any]:
    """Some configs state it beside the scaling; there it has precedence."""
    length = config.get("original_max_position_embeddings")
    return {} if length is None else {"original_max_position_embeddings": length}


_ROPE_TYPES: dict[str, Callable[[RopeParameters], RopeFrequencies]] = {
    "default": default,
    "dynamic": dynamic_ntk,
    "linear": linear,
    "llama3": llama3,
    "longrope": longrope,
    "yarn": yarn,
}
