# ruff: noqa: RUF001  # the markers are written with full-width bars, as the model writes them
"""Registers the parsers of tool calls and of reasoning."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins import ReasoningParserSpec, ToolParserSpec, hookimpl

__all__ = ["vcore_reasoning_parsers", "vcore_tool_parsers"]

_HERE = "vcore_model_zoo.chat_formats"


@hookimpl
def vcore_tool_parsers() -> Sequence[ToolParserSpec]:
    """The formats of calls."""
    return [
        ToolParserSpec(
            name="hermes",
            load=f"{_HERE}.hermes:HermesToolParser",
            api="1.0",
            summary="<tool_call>{JSON}</tool_call>: Hermes 2 Pro, Qwen 2.5 and 3, and others",
            # In the template of models that write calls as XML, <function= follows the tag.
            templates=(r"<tool_call>(?!\s*(?:\\n)?\s*<function)",),
            rank=20,
        ),
        ToolParserSpec(
            name="llama3_json",
            load=f"{_HERE}.llama3_json:Llama3JsonToolParser",
            api="1.0",
            summary='{"name": ..., "parameters": {...}}: Llama 3.1 and 3.2',
            templates=(r'<\|start_header_id\|>[\s\S]*"parameters": ',),
            rank=10,
        ),
        ToolParserSpec(
            name="deepseek",
            load=f"{_HERE}.deepseek:DeepSeekToolParser",
            api="1.0",
            summary="calls between markers of their own: DeepSeek V3, R1 and V3.1",
            templates=("<｜tool▁calls▁begin｜>",),
            rank=30,
        ),
    ]


@hookimpl
def vcore_reasoning_parsers() -> Sequence[ReasoningParserSpec]:
    """The formats of reasoning."""
    return [
        ReasoningParserSpec(
            name="qwen3",
            load=f"{_HERE}.think:Qwen3ReasoningParser",
            api="1.0",
            summary="<think>...</think>, if the prompt or the answer begins it: Qwen3 and others",
            templates=(r"</think>",),
            rank=10,
        ),
        ReasoningParserSpec(
            name="deepseek_r1",
            load=f"{_HERE}.think:DeepSeekR1ReasoningParser",
            api="1.0",
            summary="<think>...</think>, unless the prompt ends it: DeepSeek R1 and its distillates",
            templates=(r"<｜Assistant｜>[\s\S]*</think>", r"</think>[\s\S]*<｜Assistant｜>"),
            rank=20,
        ),
    ]
