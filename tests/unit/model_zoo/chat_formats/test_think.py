"""Reasoning between ``<think>`` and ``</think>``: who begins it, and what of the text it is."""

from __future__ import annotations

import pytest
from vcore_model_zoo.chat_formats.think import DeepSeekR1ReasoningParser, Qwen3ReasoningParser

from vcore.interfaces.chat_format import ChatFormatContext, TextDelta
from vcore.server.chat_parser import ChatParser, parse_answer

OPEN, CLOSED, PLAIN = "assistant\n<think>\n", "assistant\n<think>\n\n</think>\n\n", "assistant\n"


def parse(kind: type[Qwen3ReasoningParser], prompt: str, text: str) -> tuple[str | None, str | None]:
    parser = kind(options=None, context=ChatFormatContext())
    answer = parse_answer(ChatParser(parser, None, prompt=prompt), text)
    return answer.reasoning, answer.content


@pytest.mark.parametrize("kind", [Qwen3ReasoningParser, DeepSeekR1ReasoningParser])
@pytest.mark.parametrize(
    ("prompt", "text", "reasoning", "content"),
    [
        (OPEN, "hm\n</think>\n\nFour.", "hm", "Four."),
        (OPEN, "<think>\nhm</think>Four.\n", "hm", "Four.\n"),
        (OPEN, "cut off </thi", "cut off </thi", None),
        (OPEN, "</think>Four.", None, "Four."),
        (PLAIN, "<think>hm</think> Four.", "hm", "Four."),
        (PLAIN, "\n<think>\n a < b\n\nc </think>\nFour </think>.", "a < b\n\nc", "Four </think>."),
        (CLOSED, "Four.", None, "Four."),
        (CLOSED, " a </think> b", None, " a </think> b"),
        (PLAIN + "<think> was said by the user", "<think>so</think>x", "so", "x"),
        (OPEN, "", None, None),
    ],
)
def test_reasoning_and_answer(
    kind: type[Qwen3ReasoningParser], prompt: str, text: str, reasoning: str | None, content: str | None
) -> None:
    assert parse(kind, prompt, text) == (reasoning, content)


def test_without_a_beginning_qwen_answers_and_deepseek_reasons() -> None:
    assert parse(Qwen3ReasoningParser, PLAIN, "Four.") == (None, "Four.")
    assert parse(DeepSeekR1ReasoningParser, PLAIN, "hm</think>Four.") == ("hm", "Four.")
    assert parse(Qwen3ReasoningParser, PLAIN, " <thi") == (None, " <thi")


def test_an_answer_passes_at_once() -> None:
    parser = Qwen3ReasoningParser(options=None, context=ChatFormatContext())
    assert parser.feed("Fo") == [TextDelta("Fo")]
    assert parser.feed("ur </th") == [TextDelta("ur </th")]
