"""`offline_sampling`: what the fields of requests to a server are to `LLM.generate`, which is to do the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vcore.errors import ConfigError, RequestError
from vcore.sampling_params import SamplingParams

__all__ = ["offline_sampling"]

_OTHERS = frozenset({"n", "logprobs", "prompt_logprobs", "detokenize", "structured_output"})
"""Parameters that requests call otherwise, or that change what is counted as output."""
_APPLIED = frozenset(SamplingParams.model_fields) - _OTHERS
_WITHOUT_EFFECT = frozenset({"model", "stream", "stream_options", "user"})
"""Fields that change nothing of what is computed."""


def offline_sampling(extra_body: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that stand over those of every request.

    Args:
        extra_body: fields of every request to the server; one that is null is left out there.

    Returns:
        Keywords of `SamplingParams`; what is left out of a request is None here, for what the engine does by itself,
        which is what its server does.

    Raises:
        ConfigError: a field is none of these parameters, or its value is wrong.
    """
    wanted = {name: value for name, value in extra_body.items() if name not in _WITHOUT_EFFECT}
    if unknown := [name for name, value in wanted.items() if name not in _APPLIED and value is not None]:
        raise ConfigError(
            f"--extra-body: found {', '.join(map(repr, unknown))}, which --compare-offline cannot ask of LLM.generate, "
            f"so that the two would not do the same; expected some of {', '.join(sorted(_APPLIED))}. Leave the others, "
            "or the comparison, out"
        )
    sampling = {name: value for name, value in wanted.items() if name in _APPLIED}
    try:
        SamplingParams(**{name: value for name, value in sampling.items() if value is not None})
    except RequestError as error:
        raise ConfigError(f"--extra-body: {error}") from error
    return sampling
