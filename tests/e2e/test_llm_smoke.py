"""The real model through everything that users touch: `LLM`, streams, stop strings, samples, the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vcore import LLM, RequestError, SamplingParams

PARIS = "The capital of France is"
GREEDY = SamplingParams(temperature=0.0, max_tokens=16, ignore_eos=True)

PROGRAM = """
from vcore import LLM, SamplingParams

llm = LLM(model={model!r}, tensor_parallel_size=1, device="cpu")
llm.start_profile()
outputs = llm.generate(
    ["Hello, my name is", "The capital of France is"], SamplingParams(temperature=0.8, top_p=0.95)
)
llm.stop_profile()
for output in outputs:
    print(output.prompt, output.outputs[0].text)
"""


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(smollm2: LLM) -> Iterator[None]:
    yield
    stats = smollm2.stats()
    assert (stats.running, stats.waiting, stats.used_blocks) == (0, 0, 0)
    assert smollm2.health().alive


def run(*command: str, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], input=stdin, capture_output=True, text=True, env=environment, cwd=cwd, timeout=300
    )


def vcore(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return run("-c", "from vcore.cli.main import main; main()", *arguments, stdin=stdin)


def test_the_program_that_people_come_with(smollm2_path: Path, tmp_path: Path) -> None:
    """As a script without a ``__main__`` guard."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(model=str(smollm2_path)), encoding="utf-8")
    result = run(str(script), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Hello, my name is" in result.stdout
    assert PARIS in result.stdout
    traces = list((tmp_path / "vcore_profile").rglob("*.json*"))
    assert traces
    if traces[0].suffix == ".json":
        assert json.loads(traces[0].read_text(encoding="utf-8"))["traceEvents"]


def test_it_knows_paris_and_streams_what_it_generates(smollm2: LLM) -> None:
    [whole] = smollm2.generate(PARIS, GREEDY)
    assert whole.outputs[0].text.startswith(" Paris")
    assert whole.outputs[0].finish_reason == "length"
    assert whole.prompt_token_ids == smollm2.encode(PARIS)
    texts = [output.outputs[0].text for output in smollm2.stream(PARIS, GREEDY)]
    assert texts[-1] == whole.outputs[0].text == smollm2.decode(whole.outputs[0].token_ids)
    assert len(texts) == 16
    metrics = whole.metrics
    assert metrics is not None
    assert metrics.queue_time is not None
    assert metrics.ttft is not None
    assert metrics.finished_time is not None
    assert metrics.finished_time - metrics.arrival_time >= metrics.ttft >= metrics.queue_time >= 0
    assert len(metrics.inter_token_latencies) == 15


def test_stop_strings_cut_the_text_wherever_tokens_begin(smollm2: LLM) -> None:
    """Every piece of three characters of the real output, as a stop string, all in one batch."""
    [whole] = smollm2.generate(PARIS, GREEDY)
    text = whole.outputs[0].text
    stops = sorted({text[i : i + 3] for i in range(len(text) - 2)})
    params = [GREEDY.model_copy(update={"stop": (stop,)}) for stop in stops]
    for stop, output in zip(stops, smollm2.generate([PARIS] * len(stops), params), strict=True):
        sample = output.outputs[0]
        assert sample.text == text[: text.index(stop)]
        assert (sample.finish_reason, sample.stop_reason) == ("stop", stop)
        shown = smollm2.decode(sample.token_ids)
        assert stop in shown
        assert stop not in smollm2.decode(sample.token_ids[:-1])


def test_a_seeded_sample_is_the_same_alone_and_in_company(smollm2: LLM) -> None:
    params = SamplingParams(temperature=0.9, seed=11, n=3, max_tokens=12)
    [alone] = smollm2.generate(PARIS, params)
    company = smollm2.generate(["Hello", PARIS, "Water boils at"], [SamplingParams(max_tokens=20), params, GREEDY])
    texts = [sample.text for sample in alone.outputs]
    assert [sample.text for sample in company[1].outputs] == texts
    assert len(set(texts)) == 3, "the samples of a request differ"


def test_words_that_must_not_come_do_not(smollm2: LLM) -> None:
    params = GREEDY.model_copy(update={"bad_words": ("Paris", "The")})
    [output] = smollm2.generate(PARIS, params)
    assert "Paris" not in output.outputs[0].text
    [digits] = smollm2.generate(PARIS, GREEDY.model_copy(update={"allowed_token_ids": tuple(smollm2.encode("0123"))}))
    assert set(digits.outputs[0].text) <= set("0123")


def test_logprobs_and_cached_tokens(smollm2: LLM) -> None:
    prompt = "A prompt of more than a block of tokens, so that its beginning can be found in the cache. " * 2
    params = GREEDY.model_copy(update={"logprobs": 2, "prompt_logprobs": 1})
    [first] = smollm2.generate(prompt, params)
    [second] = smollm2.generate(prompt, GREEDY)
    assert first.outputs[0].token_ids == second.outputs[0].token_ids
    assert 0 < second.num_cached_tokens < len(second.prompt_token_ids)
    assert first.prompt_logprobs is not None
    assert len(first.prompt_logprobs) == len(first.prompt_token_ids)
    logprobs = first.outputs[0].logprobs
    assert logprobs is not None
    for token, position in zip(first.outputs[0].token_ids, logprobs, strict=True):
        assert position[token].rank == 1
        assert position[token].decoded_token == smollm2.get_tokenizer().id_to_text(token)
    total = sum(position[token].logprob for token, position in zip(first.outputs[0].token_ids, logprobs, strict=True))
    assert first.outputs[0].cumulative_logprob == pytest.approx(total)


def test_one_bad_prompt_of_many_and_a_stream_left_halfway(smollm2: LLM) -> None:
    with pytest.raises(RequestError, match=r"prompt 1 of 2 .*outside the vocabulary"):
        smollm2.generate([PARIS, [10**6]], GREEDY)
    for _ in smollm2.stream(PARIS, GREEDY):
        break


def test_chat_answers_in_english(smollm2: LLM) -> None:
    question = [{"role": "user", "content": "What is the capital of France?"}]
    [answer] = smollm2.chat(question, SamplingParams(temperature=0.0, max_tokens=32))
    assert answer.outputs[0].text == "The capital of France is Paris."
    assert answer.outputs[0].finish_reason == "stop"


def test_the_command_line_prints_text_alone(smollm2_path: Path) -> None:
    result = vcore("generate", PARIS, "-m", str(smollm2_path), "--max-tokens", "8")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(" Paris")
    assert result.stdout.endswith("\n")
    assert result.stderr == ""


def test_a_conversation_through_a_pipe(smollm2_path: Path) -> None:
    lines = "What is the capital of France?\n/reset\nHi!\n"
    result = vcore("chat", "-m", str(smollm2_path), "--max-tokens", "32", stdin=lines)
    assert result.returncode == 0, result.stderr
    assert "Paris" in result.stdout.splitlines()[0]
    assert len(result.stdout.splitlines()) == 2
