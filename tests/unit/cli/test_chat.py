"""``vcore chat`` from a pipe and from a terminal: turns, slash commands, Ctrl-C, Ctrl-D, errors."""

from __future__ import annotations

import io
import sys
from collections.abc import Generator, Iterable
from typing import Any

import pytest

from vcore.cli.main import run
from vcore.config import EngineConfig
from vcore.errors import RequestError
from vcore.outputs import CompletionOutput, RequestOutput
from vcore.sampling_params import SamplingParams


class FakeLLM:
    """Answers with the number of messages in the prompt; does what the last message says."""

    def __init__(self, *, config: EngineConfig, base_dir: Any) -> None:
        self.config = config
        self.prompts: list[list[str]] = []
        self.params: SamplingParams | None = None
        self.num_closed = 0

    def __enter__(self) -> FakeLLM:
        return self

    def __exit__(self, *_: object) -> None: ...

    def render_chat(self, messages: list[dict[str, str]]) -> Any:
        prompt = [f"{message['role'][0]}:{message['content']}" for message in messages]
        if messages[-1]["content"] == "too long":
            raise RequestError("the prompt has 99 tokens, and at most 63 fit")
        self.prompts.append(prompt)
        return prompt

    def stream(self, prompt: list[str], params: SamplingParams) -> Generator[RequestOutput]:
        self.params = params
        what = prompt[-1].removeprefix("u:")
        try:
            for text in ("answer", f"answer {len(self.prompts)}"):
                if what == "interrupt at once" or (what == "interrupt" and text != "answer"):
                    raise KeyboardInterrupt
                yield self._output(text, None)
            yield self._output(text, {"fail": "error", "ramble": "length"}.get(what, "stop"))
        finally:
            self.num_closed += 1

    @staticmethod
    def _output(text: str, reason: str | None) -> RequestOutput:
        stop = "it broke" if reason == "error" else None
        return RequestOutput(
            "r", "", [], [CompletionOutput(0, text, [1, 2], finish_reason=reason, stop_reason=stop)], False
        )


class Chat:
    """Runs the command over lines of input; what it printed, and its `FakeLLM`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys
        self.llms: list[FakeLLM] = []
        monkeypatch.setattr("vcore.engine.llm.LLM", self._make)
        self.out = self.err = ""

    def _make(self, **given: Any) -> FakeLLM:
        self.llms.append(FakeLLM(**given))
        return self.llms[-1]

    def piped(self, *lines: str, options: Iterable[str] = ()) -> FakeLLM:
        self.monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return self._run(options)

    def typed(self, *events: str | type[BaseException]) -> FakeLLM:
        """At a terminal: lines and exceptions, in order; then Ctrl-D."""
        stdin = io.StringIO()
        self.monkeypatch.setattr(stdin, "isatty", lambda: True, raising=False)
        self.monkeypatch.setattr(sys, "stdin", stdin)
        left = [*events, EOFError]

        def read(prompt: str) -> str:
            event = left.pop(0)
            if isinstance(event, str):
                return event
            raise event

        self.monkeypatch.setattr("builtins.input", read)
        llm = self._run(())
        assert left == [], "it left before the end"
        return llm

    def _run(self, options: Iterable[str]) -> FakeLLM:
        assert run(["chat", *options]) == 0
        self.out, self.err = self.capsys.readouterr()
        return self.llms[-1]


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Chat:
    return Chat(monkeypatch, capsys)


def test_each_turn_has_all_before_it(chat: Chat) -> None:
    llm = chat.piped("hello", "", "  again  ")
    assert llm.prompts == [["u:hello"], ["u:hello", "a:answer 1", "u:again"]]
    assert chat.out == "answer 1\nanswer 2\n", "answers alone go to stdout"
    assert chat.err == ""


def test_options_and_a_last_line_without_newline(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--system", "be brief", "--temperature", "0.5", "--max-tokens", "9", "-m", "other"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello"))
    llm = chat._run(options)
    assert llm.prompts == [["s:be brief", "u:hello"]]
    assert llm.params == SamplingParams(temperature=0.5, max_tokens=9)
    assert llm.config.model.path == "other"


def test_slash_commands(chat: Chat) -> None:
    llm = chat.piped(
        "one",
        "/reset",
        "two",
        "/system be kind",
        "three",
        "/system",
        "/nonsense",
        "/help",
        " /etc is what?",
        "/exit",
        "not read",
    )
    assert llm.prompts == [
        ["u:one"],
        ["u:two"],
        ["s:be kind", "u:three"],
        ["s:be kind", "u:three", "a:answer 3", "u:/etc is what?"],
    ]
    assert "system message: be kind" in chat.err
    assert "there is no command /nonsense" in chat.err
    assert chat.err.count("/reset          forget the conversation") == 2


def test_ctrl_c_stops_the_answer_and_keeps_what_there_is(chat: Chat) -> None:
    llm = chat.typed("interrupt", "go on", "interrupt at once", "and now")
    assert llm.prompts[1] == ["u:interrupt", "a:answer", "u:go on"]
    assert llm.prompts[3] == ["u:interrupt", "a:answer", "u:go on", "a:answer 2", "u:and now"]
    assert chat.out == "answer\nanswer 2\n\nanswer 4\n"
    assert chat.err.count("[stopped]") == 2
    assert llm.num_closed == 4, "no stream is left open"


def test_ctrl_c_while_typing_says_how_to_leave(chat: Chat) -> None:
    llm = chat.typed("half a line", KeyboardInterrupt, "hello")
    assert len(llm.prompts) == 2
    assert "Ctrl-D leaves" in chat.err


def test_a_question_that_is_refused_or_fails_is_as_if_not_asked(chat: Chat) -> None:
    llm = chat.piped("hello", "too long", "fail", "then")
    assert llm.prompts[-1] == ["u:hello", "a:answer 1", "u:then"]
    assert "error: the prompt has 99 tokens" in chat.err
    assert "/reset forgets" in chat.err
    assert "error: it broke" in chat.err


def test_an_answer_that_was_cut_off_says_so(chat: Chat) -> None:
    chat.piped("ramble")
    assert "[cut off after 2 tokens]" in chat.err
