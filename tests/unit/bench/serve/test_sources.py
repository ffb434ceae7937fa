"""Requests come from workloads, files and traces as these say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vcore.bench.serve.prompt_file import PromptFile
from vcore.bench.serve.request import LoadRequest
from vcore.bench.serve.source import RandomSource, as_text
from vcore.bench.serve.source_choice import SourceChoice
from vcore.bench.serve.target import TargetInfo
from vcore.bench.serve.trace_source import TraceSource
from vcore.errors import ConfigError
from vcore.traces import Trace, TraceRequest


def trace(*requests: TraceRequest, block_size: int | None = None) -> Trace:
    return Trace("t", "csv", requests, block_size)


def test_a_workload_has_its_lengths_and_fresh_ids_for_every_seed() -> None:
    source = RandomSource("nano", vocab_size=30)
    assert (source.name, source.count, source.num_cut, source.recorded_times(None)) == ("nano", 256, 0, None)
    first, second = (list(source.requests(3, seed)) for seed in (1, 2))
    assert [one.num_output_tokens for one in first] == [one.num_output_tokens for one in second]
    assert first[0].token_ids != second[0].token_ids
    assert max(max(one.token_ids or [99]) for one in first) < 30


def test_words_stand_for_ids() -> None:
    made = as_text(LoadRequest(token_ids=[0, 1, 1000], num_output_tokens=3, priority=1))
    assert made.token_ids is None
    assert len((made.text or "").split()) == 3
    assert (made.num_output_tokens, made.priority) == (3, 1)
    text = LoadRequest(text="as it is", num_output_tokens=1)
    assert as_text(text) is text


def test_prompts_share_what_the_traces_blocks_share() -> None:
    source = TraceSource(
        trace(
            TraceRequest(arrival_s=0.0, input_length=10, output_length=2, block_ids=(4, 5, 6)),
            TraceRequest(arrival_s=1.5, input_length=9, output_length=3, block_ids=(4, 5, 7), priority=3),
            TraceRequest(arrival_s=2.0, input_length=6, output_length=1),
            TraceRequest(arrival_s=4.0, input_length=2, output_length=1, text="said"),
            block_size=4,
        ),
        vocab_size=1000,
    )
    first, second, third, fourth, again = source.requests(5, seed=0)
    assert first.token_ids is not None
    assert second.token_ids is not None
    assert (len(first.token_ids), len(second.token_ids), len(third.token_ids or [])) == (10, 9, 6)
    assert first.token_ids[:8] == second.token_ids[:8]
    assert first.token_ids[8:9] != second.token_ids[8:9]
    assert (second.num_output_tokens, second.priority) == (3, 3)
    assert (fourth.text, fourth.token_ids) == ("said", None)
    assert again.token_ids == first.token_ids
    assert next(source.requests(1, seed=1)).token_ids != first.token_ids
    assert source.recorded_times(None).tolist() == [0.0, 1.5, 2.0, 4.0]
    assert source.recorded_times(1.5).tolist() == pytest.approx([0.0, 0.75, 1.0, 2.0])


def test_files_of_prompts(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "max_tokens": 5},
        {"text": "b", "output_length": 6},
        {"prompt_token_ids": [1, 2]},
        {"messages": [{"role": "user", "content": "c"}]},
        {"turns": ["d", "later"]},
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    source = PromptFile(path, num_output_tokens=7)
    assert (source.name, source.count, source.has_conversations) == ("prompts.jsonl", 5, True)
    made = list(source.requests(6, seed=0))
    assert [one.num_output_tokens for one in made] == [5, 6, 7, 7, 7, 5]
    assert [one.text for one in made] == ["a", "b", None, None, "d", "a"]
    assert made[2].token_ids == [1, 2]
    assert made[3].messages == [{"role": "user", "content": "c"}]
    made[0].num_output_tokens = 1  # as a warm-up does
    assert next(source.requests(1, seed=0)).num_output_tokens == 5
    path.write_text("one\n\ntwo\n", encoding="utf-8")
    assert [one.text for one in PromptFile(path, num_output_tokens=1).requests(2, seed=0)] == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ('{"prompt": "a"}\n{"prompt": \n', "line 2: no JSON"),
        ('{"prompt": "a"}\n[1]\n', "line 2: found list"),
        ('{"question": "a"}\n', "line 1: no prompt, expected a text in 'prompt'.*there is question"),
        ('{"prompt": ""}\n', "no prompt"),
        ('{"prompt_token_ids": ["a"]}\n', "no prompt"),
        ('{"messages": ["a"]}\n', "no prompt"),
        ('{"prompt": "a", "max_tokens": 0}\n', "0 tokens to generate"),
        ('{"prompt": "a", "max_tokens": true}\n', "True tokens to generate"),
    ],
)
def test_wrong_files_of_prompts(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        PromptFile(path, num_output_tokens=1)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        PromptFile("/nowhere/at/all", num_output_tokens=1)


def info(**values: int) -> TargetInfo:
    return TargetInfo(name="t", model="m", **values)


def test_a_trace_is_scaled_and_cut_to_the_target(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_length,output_length\n0,100,10\n1,20,4\n", encoding="utf-8")
    make = SourceChoice(trace=path, length_scale=0.5).prepare()
    assert [len(one.token_ids or []) for one in make(info()).requests(2, 0)] == [50, 10]
    cut = make(info(max_model_len=20))
    assert cut.num_cut == 1
    assert [(len(one.token_ids or []), one.num_output_tokens) for one in cut.requests(2, 0)] == [(15, 5), (10, 2)]


def test_ids_are_below_the_vocabulary_that_is_known_best() -> None:
    make = SourceChoice(workload="single").prepare()
    assert max(next(make(info(vocab_size=5)).requests(1, 0)).token_ids or [9]) == 4
    assert 900 < max(next(make(info()).requests(1, 0)).token_ids or [0]) < 1000
    make = SourceChoice(workload="single", vocab_size=3).prepare()
    assert max(next(make(info(vocab_size=5)).requests(1, 0)).token_ids or [9]) == 2


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (SourceChoice(workload="mega"), "no workload 'mega'; there are nano"),
        (SourceChoice(workload="nano", trace=Path("t")), "--workload and --trace are given"),
        (SourceChoice(output_len=3), "--output-len is for --prompts"),
        (SourceChoice(length_scale=3.0), "are for --trace"),
        (SourceChoice(trace_format="csv"), "are for --trace"),
    ],
)
def test_options_must_go_together(choice: SourceChoice, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choice.prepare()


def test_conversations_need_a_chat(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "c"}]}', encoding="utf-8")
    with pytest.raises(ConfigError, match="need --endpoint chat"):
        SourceChoice(prompts=path).prepare()
    assert SourceChoice(prompts=path, is_chat=True).prepare()(info()).count == 1
