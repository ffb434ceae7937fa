"""From what a client asks for to `SamplingParams`; refuses what is not served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vcore.errors import RequestError
from vcore.sampling_params import SamplingParams

if TYPE_CHECKING:
    from vcore.config import ServerSettings
    from vcore.server.protocol.chat import ChatCompletionRequest
    from vcore.server.protocol.common import SamplingFields
    from vcore.server.protocol.completions import CompletionRequest

__all__ = ["chat_params", "completion_params"]


def completion_params(body: CompletionRequest, settings: ServerSettings) -> SamplingParams:
    """The parameters of a completion.

    Raises:
        RequestError: a value is wrong, or asks for what is not served; `param` names the field.
    """
    if body.suffix:
        raise RequestError("suffix is not served: put it into the prompt as the model's format has it", param="suffix")
    if body.best_of not in (None, 0, body.n or 1):
        raise RequestError(
            f"best_of={body.best_of} is not served beside n={body.n or 1}: ask for n={body.best_of} with logprobs, and "
            "take the best",
            param="best_of",
        )
    values = _common_values(body, settings)
    if body.max_tokens is not None:
        values["max_tokens"] = max(body.max_tokens, 1)
    if body.logprobs is not None:
        values["logprobs"] = body.logprobs
        if body.echo:
            values["prompt_logprobs"] = body.logprobs
            if body.stream and values.get("n", 1) > 1:
                raise RequestError("a stream with echo and logprobs is served for n=1 alone", param="n")
    return SamplingParams(**values)


def chat_params(body: ChatCompletionRequest, settings: ServerSettings) -> SamplingParams:
    """The parameters of a chat completion. Raises as `completion_params`."""
    _refuse_unserved(body)
    values = _common_values(body, settings)
    values["max_tokens"] = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    if body.top_logprobs and not body.logprobs:
        raise RequestError("top_logprobs needs logprobs=true", param="top_logprobs")
    if body.logprobs:
        values["logprobs"] = body.top_logprobs or 0
    return SamplingParams(**values)


def _common_values(body: SamplingFields, settings: ServerSettings) -> dict[str, Any]:
    values = body.sampling_values()
    if values.get("logits_processors") and not settings.enable_logits_processors:
        raise RequestError(
            "logits_processors is off on this server; its operator may start it with --enable-logits-processors",
            param="logits_processors",
        )
    return values


def _refuse_unserved(body: ChatCompletionRequest) -> None:
    if body.audio is not None or set(body.modalities or ()) - {"text"}:
        raise RequestError("only text is served, no audio", param="modalities" if body.modalities else "audio")
    for old, new in (("functions", "tools"), ("function_call", "tool_choice")):
        if getattr(body, old):
            raise RequestError(f"{old} is not served: use {new}", param=old)
    if body.web_search_options is not None:
        raise RequestError(
            "web_search_options is not served: the model reads its prompt alone", param="web_search_options"
        )
