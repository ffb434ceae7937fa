"""``vcore generate``: prompts from arguments and stdin, what goes to stdout and what to stderr, exit statuses."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from vcore.cli.main import run
from vcore.config import EngineConfig
from vcore.outputs import CompletionOutput, Logprob, RequestMetrics, RequestOutput
from vcore.sampling_params import SamplingParams


class FakeLLM:
    """Answers every prompt with `answer`, a word at a time; remembers what it was asked."""

    answer = "one two three"
    finish_reason = "length"
    interrupt_after: int | None = None

    def __init__(self, config: EngineConfig, base_dir: Any) -> None:
        self.config = config
        self.asked: list[tuple[str, Any, SamplingParams]] = []
        self.closed = False

    def __enter__(self) -> FakeLLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def _output(self, text: str, params: SamplingParams, done: bool) -> RequestOutput:
        reason = self.finish_reason if done else None
        logprobs = None if params.logprobs is None else [{7: Logprob(-0.5, 1, "one")}]
        samples = [
            CompletionOutput(index, text, [7], -0.5, logprobs, reason, "it broke" if reason == "error" else None)
            for index in range(params.n)
        ]
        metrics = RequestMetrics(1.0, first_scheduled_time=1.5, first_token_time=3.0, inter_token_latencies=[0.5])
        return RequestOutput("r", "shown", [1], samples, done, metrics=metrics)

    def generate(self, prompts: list[Any], params: SamplingParams) -> list[RequestOutput]:
        self.asked.append(("generate", prompts, params))
        print("a library prints this")
        return [self._output(self.answer, params, True) for _ in prompts]

    def stream(self, prompt: Any, params: SamplingParams) -> Iterator[RequestOutput]:
        self.asked.append(("stream", prompt, params))
        words = self.answer.split(" ")
        for count in range(1, len(words) + 1):
            if count == self.interrupt_after:
                raise KeyboardInterrupt
            yield self._output(" ".join(words[:count]), params, count == len(words))

    def render_chat(self, messages: list[dict[str, str]]) -> Any:
        return {"prompt_token_ids": [1], "prompt": "|".join(message["content"] for message in messages)}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The `FakeLLM`s that were made."""
    llms: list[FakeLLM] = []

    class Recorded(FakeLLM):
        def __init__(self, *, config: EngineConfig, base_dir: Any) -> None:
            super().__init__(config, base_dir)
            llms.append(self)

    monkeypatch.setattr("vcore.engine.llm.LLM", Recorded)
    return llms


def pipe(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.StringIO("")
    monkeypatch.setattr(stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", stdin)


def test_one_prompt_streams_to_stdout_alone(made: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", "The capital of France is"]) == 0
    assert capsys.readouterr() == ("one two three\n", "")
    [(how, prompt, params)] = made[0].asked
    assert (how, prompt) == ("stream", "The capital of France is")
    assert params == SamplingParams(temperature=0.0, repetition_penalty=1.1, max_tokens=64)
    assert made[0].closed


def test_every_option_reaches_the_parameters(made: list[Any]) -> None:
    options = "--max-tokens 5 --temperature 0.7 --top-p 0.9 --top-k 4 --min-p 0.1 --seed 3 --n 2 --ignore-eos"
    arguments = ["generate", "p", *options.split(), "--stop", "A", "--stop", "B b", "--repetition-penalty", "1.5"]
    assert run(arguments) == 0
    assert made[0].asked[0][2] == SamplingParams(
        max_tokens=5,
        temperature=0.7,
        top_p=0.9,
        top_k=4,
        min_p=0.1,
        seed=3,
        n=2,
        ignore_eos=True,
        stop=("A", "B b"),
        repetition_penalty=1.5,
    )


@pytest.mark.parametrize(
    ("arguments", "temperature", "penalty"),
    [
        ([], 0.0, 1.1),
        (["--temperature", "0"], 0.0, 1.0),
        (["--temperature", "0.5", "--top-p", "0.9"], 0.5, 1.0),
        (["--top-k", "5"], 1.0, 1.0),
        (["--repetition-penalty", "1.3"], 0.0, 1.3),
        (["--seed", "3"], 0.0, 1.1),
    ],
)
def test_defaults_hold_until_a_sampling_option_is_given(
    made: list[Any], arguments: list[str], temperature: float, penalty: float
) -> None:
    assert run(["generate", "p", *arguments]) == 0
    params = made[0].asked[0][2]
    assert (params.temperature, params.repetition_penalty) == (temperature, penalty)


def test_the_engine_is_configured(made: list[Any]) -> None:
    assert run(["generate", "p", "-m", "other", "--set", "cache.block_size=8", "--device", "cpu"]) == 0
    config = made[0].config
    assert (config.model.path, config.cache.block_size, config.runtime.device) == ("other", 8, "cpu")


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_a_piped_prompt_loses_one_newline(
    made: list[Any], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    pipe(monkeypatch, "two\nlines\n\n")
    assert run(["generate", *arguments]) == 0
    assert made[0].asked[0][1] == "two\nlines\n"


def test_several_prompts_or_samples_are_one_batch(
    made: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe(monkeypatch, "from\nstdin")
    assert run(["generate", "a", "-", "--n", "2"]) == 0
    assert [(how, prompts) for how, prompts, _ in made[0].asked] == [("generate", ["a", "from\nstdin"])]
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("==>")] == ["==> a <=="] * 2 + ["==> from stdin <=="] * 2
    assert lines.count("one two three") == 4


def test_json_is_one_object_and_all_that_stdout_gets(made: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", "p", "--json", "--logprobs", "1"]) == 0
    out, err = capsys.readouterr()
    assert "a library prints this" in err
    result = json.loads(out)
    assert result["model"] == "smollm2-135m"
    [output] = result["outputs"]
    assert output["prompt_token_ids"] == [1]
    assert output["metrics"]["ttft"] == 2.0
    assert (output["metrics"]["queue_time"], output["metrics"]["mean_itl"]) == (0.5, 0.5)
    [sample] = output["outputs"]
    assert (sample["text"], sample["token_ids"], sample["finish_reason"]) == ("one two three", [7], "length")
    assert sample["logprobs"] == [{"7": {"logprob": -0.5, "rank": 1, "decoded_token": "one"}}]


def test_chat_puts_the_prompt_as_a_question(made: list[Any]) -> None:
    assert run(["generate", "why?", "--chat", "--system", "be brief"]) == 0
    assert made[0].asked[0][1] == {"prompt_token_ids": [1], "prompt": "be brief|why?"}


@pytest.mark.parametrize("arguments", [["p"], ["p", "q"], ["p", "--json"]])
def test_a_failed_output_is_told_and_is_exit_status_1(
    made: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.setattr(FakeLLM, "finish_reason", "error")
    assert run(["generate", *arguments]) == 1
    out, err = capsys.readouterr()
    assert "it broke" in (out if "--json" in arguments else err)


def test_an_interrupted_output_ends_its_line(
    made: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FakeLLM, "interrupt_after", 3)
    assert run(["generate", "p"]) == 130
    assert capsys.readouterr().out == "one two\n"
    assert made[0].closed


WRONG: list[tuple[list[str], int, str]] = [
    (["p", "--logprobs", "2"], 2, "add --json"),
    (["p", "--system", "s"], 2, "needs --chat"),
    (["-", "-"], 2, "may be given once"),
    (["p", "--max-tokens", "0"], 2, "--max-tokens"),
    (["p", "--temprature", "0"], 2, "--temprature"),
    (["p", "--set", "cache.blok_size=3"], 2, "blok_size"),
    (["p", "--top-p", "7"], 1, "SamplingParams.top_p"),
    (["p", "--stop", ""], 1, "empty string"),
    ([""], 1, "the prompt is empty"),
    (["a\udc80"], 1, "lone surrogate"),
]


@pytest.mark.parametrize(("arguments", "status", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    made: list[Any], capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    assert run(["generate", *arguments]) == status
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""
    assert made == []


def test_without_a_prompt_on_a_terminal(
    made: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal(monkeypatch)
    assert run(["generate"]) == 2
    assert "give a prompt, or pipe one in" in capsys.readouterr().err
    assert made == []


def test_stdin_that_is_no_text(
    made: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), encoding="utf-8"))
    assert run(["generate", "-"]) == 2
    assert "stdin is not utf-8 text" in capsys.readouterr().err


def test_wrong_options_are_told_without_torch() -> None:
    script = (
        "import sys; from vcore.cli.main import run\n"
        "for wrong in (['--temprature', '1'], ['--top-p', '9'], ['--set', 'a=b'], ['--help']):\n"
        "    for command in (['generate', 'p'], ['chat']):\n"
        "        run([*command, *wrong])\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stderr.splitlines()[-1] == "[]"
