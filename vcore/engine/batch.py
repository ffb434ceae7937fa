"""What a call with several prompts needs: parameters for each, errors that say which prompt, warnings of failures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from vcore.errors import RequestError
from vcore.outputs import RequestOutput
from vcore.sampling_params import SamplingParams

__all__ = ["Params", "about_prompt", "each", "params_for", "warn_of_errors"]

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

Params = SamplingParams | Sequence[SamplingParams] | None
"""One for all prompts, one a prompt, or None for the defaults."""


def about_prompt(error: RequestError, index: int, num_prompts: int) -> RequestError:
    """`error`, saying which of several prompts it is about; its cause is for the caller to chain."""
    return type(error)(f"prompt {index} of {num_prompts} (counted from 0): {error}", param=error.param)


def each(items: Sequence[Item], convert: Callable[[Item, int], Result]) -> list[Result]:
    """`convert` of each item and its index; a `RequestError` over one of several says which it was."""
    results: list[Result] = []
    for index, item in enumerate(items):
        try:
            results.append(convert(item, index))
        except RequestError as error:
            if len(items) == 1:
                raise
            raise about_prompt(error, index, len(items)) from error
    return results


def params_for(params: Params, num_prompts: int) -> Sequence[SamplingParams]:
    """One `SamplingParams` a prompt.

    Raises:
        RequestError: there are more or fewer than prompts, or one is something else.
    """
    if params is None:
        params = SamplingParams()
    if isinstance(params, SamplingParams):
        return [params] * num_prompts
    if not isinstance(params, list | tuple):
        raise RequestError(
            f"sampling_params must be a SamplingParams or a list of them, got {type(params).__name__}",
            param="sampling_params",
        )
    if len(params) != num_prompts:
        raise RequestError(
            f"{num_prompts} prompts came with {len(params)} sampling_params: give one for each prompt, or one for all",
            param="sampling_params",
        )
    for index, one in enumerate(params):
        if not isinstance(one, SamplingParams):
            raise RequestError(
                f"sampling_params[{index}] must be a SamplingParams, got {type(one).__name__}", param="sampling_params"
            )
    return params


def warn_of_errors(outputs: Sequence[RequestOutput]) -> None:
    """Log each sample that failed while it ran."""
    for index, output in enumerate(outputs):
        for sample in output.outputs:
            if sample.finish_reason == "error":
                logger.warning("prompt %d (sample %d) failed: %s", index, sample.index, sample.stop_reason)
