"""`ChatPlan`: a conversation ready to run: its prompt, its parameters, and what reads its answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vcore.engine.prompts import TokensPrompt
from vcore.interfaces.chat_format import ReasoningDelta, TextDelta, Tool
from vcore.outputs import CompletionOutput
from vcore.sampling_params import SamplingParams
from vcore.server.chat_parser import ChatDelta, ChatParser
from vcore.server.chat_prompt import render_prompt
from vcore.server.logprob_format import chat_logprobs
from vcore.server.protocol.chat import ChatLogprobs
from vcore.server.request_params import chat_params
from vcore.server.tool_calls import ToolChoice, parse_tool_choice, parse_tools

if TYPE_CHECKING:
    from vcore.server.context import ServerContext
    from vcore.server.protocol.chat import ChatCompletionRequest

__all__ = ["ChatPlan", "plan_chat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatPlan:
    """What comes of a request before anything runs."""

    context: ServerContext
    model: str
    """The name that the client used, or the default one."""
    prompt: TokensPrompt
    params: SamplingParams
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()  # noqa: RUF009  # frozen
    tells_reasoning: bool = True
    form_field: str | None = None
    """Which field asks for the form that the answer must have."""

    def new_parser(self) -> ChatParser:
        """What reads one choice of the answer."""
        return self.context.chat_format.new_parser(self.prompt.get("prompt", ""), self.tools, self.tool_choice)

    def told(self, deltas: Iterable[ChatDelta]) -> list[ChatDelta]:
        """Those of the pieces of an answer that the client wants."""
        return [delta for delta in deltas if self._is_told(delta)]

    def _is_told(self, delta: ChatDelta) -> bool:
        if isinstance(delta, TextDelta):
            return True
        if isinstance(delta, ReasoningDelta):
            return self.tells_reasoning
        return delta.index == 0 or not self.tool_choice.single

    def logprobs(self, sample: CompletionOutput) -> ChatLogprobs | None:
        """Of the tokens of `sample`, if they were asked for."""
        if self.params.logprobs is None or sample.logprobs is None:
            return None
        token_bytes = self.context.engine.get_tokenizer().id_to_bytes
        return chat_logprobs(sample.token_ids, sample.logprobs, self.params.logprobs, token_bytes)


async def plan_chat(context: ServerContext, body: ChatCompletionRequest) -> ChatPlan:
    """Check a request, and render its prompt.

    Raises:
        ApiError: there is no such model, or the engine does not serve.
        RequestError: something of it is wrong, or not served.
    """
    model = context.models.check(body.model)
    context.admission.check_engine()
    params = chat_params(body, context.settings)
    tools = parse_tools([tool.model_dump(exclude_none=True) for tool in body.tools or ()])
    raw = body.tool_choice
    choice = parse_tool_choice(
        raw if raw is None or isinstance(raw, str) else raw.model_dump(), tools, parallel=body.parallel_tool_calls
    )
    prompt = await render_prompt(context, body)
    return ChatPlan(
        context=context,
        model=model,
        prompt=prompt,
        params=context.chat_format.sampling_params(params, prompt.get("prompt", ""), tools, choice),
        tools=tools,
        tool_choice=choice,
        tells_reasoning=body.include_reasoning is not False,
        form_field=body.form_field or ("tools" if tools else None),
    )
