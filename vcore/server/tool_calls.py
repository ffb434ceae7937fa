"""`ChatFormat`: which parsers serve a model's conversations, and what tools and their choice ask of sampling.

    format = choose_chat_format(engine.config.chat, catalog, tokenizer)      once a server
    tools, choice = parse_tools(...), parse_tool_choice(...)                 once a request
    params = format.sampling_params(params, prompt, tools, choice)
    parser = format.new_parser(prompt, tools, choice)                        once a choice of its answer

Parsers are plugins; `auto` takes the one whose regular expressions know the model's chat template.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vcore.config.models import ChatConfig, PluginChoice
from vcore.errors import ConfigError, PluginError, RequestError
from vcore.interfaces.chat_format import ChatFormatContext, ReasoningParser, Tool, ToolParser
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import PluginKind, ReasoningParserSpec, ToolParserSpec
from vcore.sampling_params import SamplingParams
from vcore.server.chat_parser import ChatParser
from vcore.structured_output import StructuredOutput

if TYPE_CHECKING:
    from vcore.config.models import PluginOptions
    from vcore.tokenizer import Tokenizer

__all__ = ["ChatFormat", "ToolChoice", "choose_chat_format", "parse_tool_choice", "parse_tools"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether the answer must call a tool: ``mode`` is ``none``, ``auto``, ``required`` or ``named``."""

    mode: str = "auto"
    name: str | None = None
    """The one function to call, if `mode` is ``named``."""
    single: bool = False
    """At most one call (``parallel_tool_calls: false``, or a named function)."""

    @property
    def forces(self) -> bool:
        """Whether the answer is calls alone."""
        return self.mode in ("required", "named")


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A parser plugin, with its options."""

    entry: CatalogEntry
    options: PluginOptions | None


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """The parsers of a model's conversations; `choose_chat_format` makes it."""

    catalog: Catalog
    tool_parser: _Chosen | None
    reasoning_parser: _Chosen | None
    chat_template: str | None
    tokenizer: Tokenizer | None

    @property
    def names(self) -> tuple[str | None, str | None]:
        """What the tool parser and the reasoning parser are called."""
        tool, reasoning = self.tool_parser, self.reasoning_parser
        return None if tool is None else tool.entry.name, None if reasoning is None else reasoning.entry.name

    def new_parser(
        self, prompt: str = "", tools: Sequence[Tool] = (), choice: ToolChoice | None = None, *, reasoning: bool = True
    ) -> ChatParser:
        """The parser of one choice of one answer.

        Args:
            prompt: the text that the chat template made.
            tools: those of the request; without any, calls stay text.
            choice: with ``none``, calls stay text.
            reasoning: whether to look for reasoning.
        """
        calls = bool(tools) and (choice is None or choice.mode != "none")
        return ChatParser(
            self._reasoning_parser(tools) if reasoning else None, self._tool_parser(tools) if calls else None,
            prompt=prompt,
        )  # fmt: skip

    def sampling_params(
        self, params: SamplingParams, prompt: str = "", tools: Sequence[Tool] = (), choice: ToolChoice | None = None
    ) -> SamplingParams:
        """`params`, with what the format needs: the form that `choice` demands, and markers kept in the text.

        Raises:
            RequestError: tools are given and no parser is there, the format cannot be enforced, or `params` demands
                a form of its own.
        """
        choice = choice or ToolChoice()
        calls = bool(tools) and choice.mode != "none"
        tool_parser = self._tool_parser(tools) if calls else None
        reasoning_parser = self._reasoning_parser(tools)
        if calls and tool_parser is None:
            raise self._no_tool_parser()
        updates: dict[str, Any] = {}
        if any(parser is not None and parser.keeps_special_tokens for parser in (tool_parser, reasoning_parser)):
            updates["skip_special_tokens"] = False
        form = params.structured_output
        if tool_parser is not None and (demanded := self._constraint(tool_parser, tools, choice)) is not None:
            if form is not None and choice.forces:
                raise RequestError(
                    "response_format and tool_choice contradict each other: the answer cannot be a tool call and "
                    "have a form of its own; leave one out",
                    param="tool_choice",
                )
            form = form or demanded
        if form is not None and reasoning_parser is not None and not form.after:
            form = _after_reasoning(form, reasoning_parser, prompt)
        if form is not params.structured_output:
            updates["structured_output"] = form
        return params.model_copy(update=updates) if updates else params

    def _constraint(self, parser: ToolParser, tools: Sequence[Tool], choice: ToolChoice) -> StructuredOutput | None:
        if not choice.forces and not any(tool.strict for tool in tools):
            return None
        callable_tools = [tool for tool in tools if choice.name in (None, tool.name)]
        form = parser.constraint(callable_tools, single=choice.single, required=choice.forces)
        if form is None and choice.forces:
            raise RequestError(
                f"tool_choice {choice.name or choice.mode!r}: the tool parser {self.names[0]!r} cannot enforce calls; "
                "use tool_choice 'auto'",
                param="tool_choice",
            )
        return form

    def _tool_parser(self, tools: Sequence[Tool]) -> ToolParser | None:
        return cast("ToolParser | None", self._create(self.tool_parser, tools))

    def _reasoning_parser(self, tools: Sequence[Tool]) -> ReasoningParser | None:
        return cast("ReasoningParser | None", self._create(self.reasoning_parser, tools))

    def _create(self, chosen: _Chosen | None, tools: Sequence[Tool]) -> object:
        if chosen is None:
            return None
        context = ChatFormatContext(tools=tuple(tools), chat_template=self.chat_template, tokenizer=self.tokenizer)
        return self.catalog.create(chosen.entry, options=chosen.options, context=context)

    def _no_tool_parser(self) -> RequestError:
        known = ", ".join(entry.name for entry in self.catalog.entries if _usable(entry, PluginKind.TOOL_PARSER))
        return RequestError(
            "tools were given, but this server has no tool parser: the model's chat template shows no known format of "
            f"calls. Leave tools out, or serve with chat.tool_parser set to one of: {known or 'none is installed'}",
            param="tools",
        )


def choose_chat_format(
    chat: ChatConfig, catalog: Catalog, tokenizer: Tokenizer | None, *, chat_template: str | None = None
) -> ChatFormat:
    """The parsers that `chat` names, or that know the model's chat template.

    Args:
        chat: what is configured.
        catalog: where parsers are looked up.
        tokenizer: has the model's chat templates.
        chat_template: the one in use, if it is not the model's own.

    Raises:
        PluginError: a parser that is named is missing, broken or ambiguous, or its options do not fit.
    """
    template = chat_template
    if template is None and tokenizer is not None:
        template = "\n".join(tokenizer.chat_templates.values()) or None
    return ChatFormat(
        catalog,
        _choose(chat.tool_parser, PluginKind.TOOL_PARSER, catalog, template),
        _choose(chat.reasoning_parser, PluginKind.REASONING_PARSER, catalog, template),
        template,
        tokenizer,
    )


def _choose(choice: PluginChoice | None, kind: PluginKind, catalog: Catalog, template: str | None) -> _Chosen | None:
    if choice is None:
        return None
    if not choice.is_auto:
        entry = catalog.find(kind, choice.name)
        catalog.load(entry)
        return _Chosen(entry, catalog.parse_options(entry, choice.options))
    fitting = [entry for entry in catalog.candidates(kind) if template and _knows(entry, template)]
    if not fitting:
        return None
    entry = catalog.best(kind, fitting)
    try:
        catalog.load(entry)
        return _Chosen(entry, catalog.parse_options(entry, {}))
    except PluginError as error:
        raise ConfigError(f"chat.{kind.value}: auto takes {entry.title}, which cannot be used: {error}") from error


def _knows(entry: CatalogEntry, template: str) -> bool:
    spec = cast("ToolParserSpec | ReasoningParserSpec", entry.spec)
    return any(re.search(pattern, template) for pattern in spec.templates)


def _usable(entry: CatalogEntry, kind: PluginKind) -> bool:
    return entry.kind is kind and entry.ok


def _after_reasoning(form: StructuredOutput, parser: ReasoningParser, prompt: str) -> StructuredOutput:
    """The form begins where the reasoning ends, if the answer begins with reasoning."""
    if parser.end_marker is None or not parser.starts_in_reasoning(prompt):
        return form
    return form.model_copy(update={"after": parser.end_marker})


def parse_tools(raw: Sequence[Mapping[str, Any]] | None) -> tuple[Tool, ...]:
    """The tools of a request, as OpenAI's API has them.

    Raises:
        RequestError: one is malformed, or two have the same name; `param` says which.
    """
    tools: dict[str, Tool] = {}
    for index, one in enumerate(raw or ()):
        param = f"tools[{index}]"
        function = one.get("function") if isinstance(one, Mapping) else None
        if not isinstance(function, Mapping) or one.get("type", "function") != "function":
            raise RequestError(
                f'{param}: expected {{"type": "function", "function": {{"name": ...}}}}, got {one!r:.120}', param=param
            )
        name, parameters = function.get("name"), function.get("parameters")
        if not isinstance(name, str) or not name:
            raise RequestError(
                f"{param}.function.name must be a text, got {name!r:.80}", param=f"{param}.function.name"
            )
        if not isinstance(parameters, Mapping | bool | None):
            raise RequestError(
                f"{param}.function.parameters must be a JSON schema, an object, got {type(parameters).__name__}",
                param=f"{param}.function.parameters",
            )
        if name in tools:
            raise RequestError(f"{param}: two tools are called {name!r}", param=f"{param}.function.name")
        tools[name] = Tool(
            name=name,
            description=str(function.get("description") or ""),
            parameters=True if parameters is None else parameters,
            strict=bool(function.get("strict")),
        )
    return tuple(tools.values())


def parse_tool_choice(
    raw: str | Mapping[str, Any] | None, tools: Sequence[Tool], *, parallel: bool | None = None
) -> ToolChoice:
    """What ``tool_choice`` and ``parallel_tool_calls`` ask for; ``auto`` by default, ``none`` without tools.

    Raises:
        RequestError: it is malformed, names no tool of the request, or demands a call without tools.
    """
    single = parallel is False
    if raw is None:
        return ToolChoice("auto" if tools else "none", single=single)
    if isinstance(raw, str):
        if raw not in ("none", "auto", "required"):
            raise RequestError(
                f"tool_choice is {raw!r:.80}; expected none, auto, required, or an object that names a function",
                param="tool_choice",
            )
        if raw == "required" and not tools:
            raise RequestError("tool_choice is 'required', but the request has no tools", param="tool_choice")
        return ToolChoice(raw if tools else "none", single=single)
    function = raw.get("function") if isinstance(raw, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise RequestError(
            f'tool_choice: expected {{"type": "function", "function": {{"name": ...}}}}, got {raw!r:.120}',
            param="tool_choice",
        )
    known = [tool.name for tool in tools]
    if name not in known:
        raise RequestError(
            f"tool_choice names {name!r}, which is no tool of the request ({', '.join(known) or 'it has none'})",
            param="tool_choice",
        )
    return ToolChoice("named", name, single=True)
