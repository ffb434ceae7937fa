"""From a request of ``/v1/responses`` to the chat request that it amounts to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from vcore.errors import RequestError
from vcore.server.protocol.chat import ChatCompletionRequest
from vcore.server.protocol.common import SamplingFields
from vcore.server.protocol.responses import ResponsesRequest
from vcore.server.validation_errors import validation_error

__all__ = ["as_chat_request"]

_LOGPROBS = "message.output_text.logprobs"
_STATELESS = "this server stores no responses: send the conversation so far as input"
_TEXT_PARTS = ("input_text", "output_text", "text")
_SAMPLING = set(SamplingFields.model_fields) - {"stream_options"}


def as_chat_request(body: ResponsesRequest) -> ChatCompletionRequest:
    """The chat request.

    Raises:
        RequestError: something is wrong, or asks for what is not served.
        ApiError: a message or a tool is malformed; it is named as the chat request has it.
    """
    _refuse_unserved(body)
    values: dict[str, Any] = body.model_dump(include=_SAMPLING, exclude_none=True)
    values |= {
        "model": body.model,
        "messages": _messages(body),
        "max_completion_tokens": body.max_output_tokens,
        "tools": [_tool(tool, position) for position, tool in enumerate(body.tools or ())] or None,
        "tool_choice": _tool_choice(body.tool_choice),
        "parallel_tool_calls": body.parallel_tool_calls,
        "chat_template_kwargs": body.chat_template_kwargs,
        "reasoning_effort": None if body.reasoning is None else body.reasoning.effort,
    }
    if body.text is not None and body.text.format is not None:
        values["response_format"] = _response_format(body.text.format)
    if body.top_logprobs or _LOGPROBS in (body.include or ()):
        values |= {"logprobs": True, "top_logprobs": body.top_logprobs}
    try:
        return ChatCompletionRequest.model_validate(values)
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise validation_error(found, values) from None


def _refuse_unserved(body: ResponsesRequest) -> None:
    for field in ("previous_response_id", "conversation"):
        if getattr(body, field):
            raise RequestError(f"{field} is not served: {_STATELESS}", param=field)
    if body.background:
        raise RequestError("background is not served: read the answer, or a stream of it", param="background")
    if body.prompt is not None:
        raise RequestError("prompt is not served: there are no stored templates; use input", param="prompt")
    if body.truncation not in (None, "disabled"):
        raise RequestError(
            f"truncation={body.truncation!r:.80} is not served, only 'disabled': shorten the input", param="truncation"
        )
    if (body.n or 1) > 1:
        raise RequestError(f"n={body.n} is not served here: a response has one sample", param="n")


def _messages(body: ResponsesRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if body.instructions:
        messages.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        return [*messages, {"role": "user", "content": body.input}]
    for position, item in enumerate(body.input):
        _add_item(messages, item, f"input[{position}]")
    return messages


def _add_item(messages: list[dict[str, Any]], item: Mapping[str, Any], name: str) -> None:
    kind = item.get("type", "message")
    if kind == "message":
        messages.append({"role": item.get("role"), "content": _text(item.get("content"), f"{name}.content")})
    elif kind == "function_call":
        call = {"name": item.get("name"), "arguments": item.get("arguments")}
        calls = [{"id": item.get("call_id"), "type": "function", "function": call}]
        if messages and messages[-1]["role"] == "assistant":  # it called with what it said, or beside other calls
            messages[-1]["tool_calls"] = messages[-1].get("tool_calls", []) + calls
        else:
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
    elif kind == "function_call_output":
        content = _text(item.get("output"), f"{name}.output")
        messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
    elif kind != "reasoning":  # which templates leave out of what was said earlier
        raise RequestError(
            f"{name} is of type {kind!r:.80}; served are message, function_call, function_call_output and reasoning",
            param=name,
        )


def _text(content: Any, name: str) -> str:  # whatever JSON holds
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RequestError(f"{name} must be a text or a list of parts, got {type(content).__name__}", param=name)
    return "".join(_part(part, f"{name}[{position}]") for position, part in enumerate(content))


def _part(part: Any, name: str) -> str:  # whatever JSON holds
    if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise RequestError(f"{name} is of type {kind!r:.80}; only {', '.join(_TEXT_PARTS)} are served", param=name)


def _tool(tool: Mapping[str, Any], position: int) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise RequestError(
            f"tools[{position}] is of type {tool.get('type')!r:.80}; only functions are served, which you run",
            param=f"tools[{position}]",
        )
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}


def _tool_choice(choice: str | Mapping[str, Any] | None) -> Any:  # as the chat request has it
    if isinstance(choice, Mapping) and "name" in choice:
        return {"type": choice.get("type"), "function": {"name": choice["name"]}}
    return choice


def _response_format(form: Mapping[str, Any]) -> dict[str, Any]:
    if form.get("type") != "json_schema":
        return dict(form)
    return {"type": "json_schema", "json_schema": {key: value for key, value in form.items() if key != "type"}}
