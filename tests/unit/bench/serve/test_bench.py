"""A benchmark puts the loads on its target that were asked for, and reports all of them."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fake_target import InstantTarget

from vcore.bench.serve import session
from vcore.bench.serve.arrivals import Arrivals
from vcore.bench.serve.bench import LoadOptions, ServeBench, ServeResult
from vcore.bench.serve.offline import OfflineEngine
from vcore.bench.serve.plot import check_plot, plot_result
from vcore.bench.serve.report import describe, load_label, print_report
from vcore.bench.serve.request import LoadRequest
from vcore.bench.serve.session import Session, measure_serving
from vcore.bench.serve.slo import Slo
from vcore.bench.serve.source import LoadSource, RandomSource
from vcore.bench.serve.trace_source import TraceSource
from vcore.config import EngineConfig
from vcore.errors import ConfigError, EngineError
from vcore.traces import Trace, TraceRequest

FAST = LoadOptions(num_requests=3, warm_up=False)


class FakeOffline:
    """In the place of the offline engine's process; its rates are 1, 2, ..."""

    def __init__(self, *, is_on_cpu: bool = True) -> None:
        self.is_on_cpu = is_on_cpu
        self.asked: list[list[LoadRequest]] = []
        self.of_target: InstantTarget | None = None
        self.after: list[int] = []
        """How many requests the target had had before each call."""
        self.target_left: list[int] = []

    def __call__(self, _: OfflineEngine) -> FakeOffline:
        return self

    def __enter__(self) -> FakeOffline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def rate(self, requests: Sequence[LoadRequest]) -> float:
        assert self.of_target is not None
        self.asked.append([*requests])
        self.after.append(len(self.of_target.asked))
        self.target_left.append(self.of_target.left)
        return float(len(self.asked))


def source(workload: str = "single") -> RandomSource:
    return RandomSource(workload, vocab_size=50)


def recorded(*times: float) -> TraceSource:
    requests = tuple(TraceRequest(arrival_s=time, input_length=3, output_length=2) for time in times)
    return TraceSource(Trace("t", "csv", requests), vocab_size=50)


def run(options: LoadOptions, made: LoadSource | None = None, target: InstantTarget | None = None) -> ServeResult:
    return asyncio.run(ServeBench(target or InstantTarget(), made or source(), options).run())


def dues(result: ServeResult, index: int = 0) -> list[float]:
    run = result.runs[index]
    return [record.due - run.began for record in run.records]


def test_each_rate_is_a_load() -> None:
    result = run(replace(FAST, rates=(2000.0, math.inf), arrivals=Arrivals.FIXED))
    assert [(load["rate"], load["of_offline"]) for load in result.loads] == [(2000.0, None), (None, None)]
    assert [load["completed"] for load in result.loads] == [3, 3]
    assert dues(result, 0) == pytest.approx([0.0, 0.0005, 0.001])
    assert dues(result, 1) == [0.0] * 3
    assert result.offline == []


def test_a_duration_says_how_many_come() -> None:
    options = LoadOptions(rates=(1000.0,), duration_s=0.02, warm_up=False)
    assert run(options).loads[0]["num_requests"] == 20
    assert run(replace(options, rates=(1e-3,))).loads[0]["num_requests"] == 1


def test_without_any_rate_all_requests_of_the_source_come_at_once() -> None:
    result = run(LoadOptions(warm_up=False))
    assert [(load["rate"], load["num_requests"]) for load in result.loads] == [(None, 1)]


def test_fractions_are_of_the_better_offline_run() -> None:
    target = InstantTarget()
    result = run(replace(FAST, fractions=(0.5, 2.0), rates=(5000.0,), arrivals=Arrivals.FIXED), target=target)
    assert len(result.offline) == 2
    best = result.best_offline
    assert best is not None
    assert best["output_tokens_per_s"] == max(one["output_tokens_per_s"] for one in result.offline)
    rates = [load["rate"] for load in result.loads]
    assert rates == pytest.approx([5000.0, 0.5 * best["requests_per_s"], 2.0 * best["requests_per_s"]])
    assert [load["of_offline"] for load in result.loads] == [None, 0.5, 2.0]
    prompts = [tuple(one.token_ids or ()) for one in target.asked]
    assert len(set(prompts)) == len(prompts) == 5 * 3  # no run finds its prompts cached by another
    assert [one.token_ids for one in result.offline_requests[0]] == [list(one) for one in prompts[:3]]


def test_the_offline_throughput_alone() -> None:
    result = run(replace(FAST, offline=True, offline_runs=1))
    assert len(result.offline) == 1
    assert result.loads == []


def test_a_reference_takes_its_turn_at_all_that_the_target_does() -> None:
    target, reference = InstantTarget(), FakeOffline()
    reference.of_target = target
    options = replace(FAST, offline=True, offline_runs=2, warm_up=True)
    result = asyncio.run(ServeBench(target, source(), options, reference=reference.rate).run())
    assert reference.asked == [result.warm_up_requests, *result.offline_requests]
    assert result.reference_rates == [2.0, 3.0], "the warm-up does not count"
    warm_up, number = len(result.warm_up_requests), len(result.offline_requests[0])
    assert reference.after == [warm_up, warm_up + number, warm_up + number], "second, then first"


def test_without_any_throughput_there_are_no_fractions() -> None:
    with pytest.raises(EngineError, match=r"no request came to its end.*http_503"):
        run(replace(FAST, fractions=(0.5,)), target=InstantTarget(failing=256))


def test_a_warm_up_is_short_and_not_counted() -> None:
    target = InstantTarget()
    result = run(replace(FAST, warm_up=True), target=target)
    assert len(result.warm_up_requests) == 3
    assert [one.num_output_tokens for one in target.asked] == [8] * 3 + [256] * 3
    assert len(result.loads) == 1


def test_the_seed_fixes_prompts_and_arrivals() -> None:
    options = replace(FAST, rates=(3000.0,), seed=4)
    targets = [InstantTarget() for _ in range(3)]
    results = [
        run(one, target=target)
        for one, target in zip([options, options, replace(options, seed=5)], targets, strict=True)
    ]
    asked = [[one.token_ids for one in target.asked] for target in targets]
    assert asked[0] == asked[1] != asked[2]
    assert dues(results[0]) == pytest.approx(dues(results[1]), abs=1e-9)
    assert dues(results[0]) != pytest.approx(dues(results[2]), abs=1e-9)


def test_a_trace_is_replayed_at_its_pace_or_another() -> None:
    made = recorded(0.0, 0.01, 0.04)
    options = LoadOptions(arrivals=Arrivals.TRACE, warm_up=False)
    assert dues(run(options, made)) == pytest.approx([0.0, 0.01, 0.04])
    assert dues(run(replace(options, rates=(100.0,)), made)) == pytest.approx([0.0, 0.005, 0.02])
    assert dues(run(replace(options, duration_s=0.02), made)) == pytest.approx([0.0, 0.01])
    assert dues(run(replace(options, num_requests=2), made)) == pytest.approx([0.0, 0.01])
    drawn = run(replace(options, arrivals=Arrivals.FIXED, rates=(1000.0,), num_requests=4), made)
    assert dues(drawn) == pytest.approx([0.0, 0.001, 0.002, 0.003])
    with pytest.raises(ConfigError, match="all requests arrive at once"):
        run(replace(options, rates=(1.0,)), recorded(0.0, 0.0))


def test_words_in_place_of_ids() -> None:
    target = InstantTarget()
    run(replace(FAST, as_text=True), target=target)
    assert all(one.token_ids is None and len((one.text or "").split()) == 128 for one in target.asked)


def measured(target: InstantTarget, options: LoadOptions) -> Session:
    return measure_serving(lambda: target, lambda _: source(), options)


def test_a_session_enters_and_leaves_its_target() -> None:
    target = InstantTarget()
    made = measured(target, FAST)
    assert (target.entered, target.left) == (1, 1)
    assert made.info.name == "instant"
    assert made.result.reference_rates == []
    broken = InstantTarget(failing=256)
    with pytest.raises(EngineError):
        measured(broken, replace(FAST, offline=True))
    assert broken.left == 1


@pytest.mark.parametrize("is_on_cpu", [True, False])
def test_the_offline_engine_follows_a_target_whose_memory_it_needs(
    monkeypatch: pytest.MonkeyPatch, is_on_cpu: bool
) -> None:
    target, process = InstantTarget(), FakeOffline(is_on_cpu=is_on_cpu)
    process.of_target = target
    monkeypatch.setattr(session, "OfflineProcess", process)
    engine = OfflineEngine(config=EngineConfig(), base_dir=None, temperature=0.0, detokenize=True)
    options = replace(FAST, offline=True, warm_up=True)
    result = measure_serving(lambda: target, lambda _: source(), options, offline=engine).result
    assert process.asked == [result.warm_up_requests, *result.offline_requests]
    assert result.reference_rates == [2.0, 3.0]
    assert process.target_left == ([0, 0, 0] if is_on_cpu else [1, 1, 1])


def test_the_answer_is_plain_data_and_a_table_shows_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    options = replace(FAST, fractions=(0.5,), offline_runs=1, slo=Slo(ttft=1.0))
    made = measured(InstantTarget(), options)
    made.result.reference_rates.append(100.0)
    answer = json.loads(json.dumps(describe(made, options)))
    assert answer["offline"]["runs"][0]["output_tokens"] == 3 * 256
    assert answer["comparison"]["ratio"] == pytest.approx(answer["comparison"]["served"] / 100)
    assert answer["slo"] == {"ttft": 1.0}
    assert answer["loads"][0]["goodput"]["share"] == 1.0
    print_report(answer)
    printed = capsys.readouterr().out
    assert "(50%)" in printed
    assert "LLM.generate 100" in printed
    assert "time to first token" in printed


def test_what_went_wrong_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    made = measured(InstantTarget(failing=256), FAST)
    answer = describe(made, FAST)
    assert answer["loads"][0]["errors"] == {"http_503": 3}
    answer["cut_requests"] = 2
    answer["loads"][0] |= {"short_outputs": 1, "unstated_usage": 1}
    print_report(answer)
    printed = capsys.readouterr().out
    assert "3 x http_503: full [of brackets]" in printed
    assert "1 answers are shorter" in printed
    assert "1 answers without usage" in printed
    assert "2 requests of the trace were cut" in printed


def test_a_generator_that_is_late_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    answer = describe(measured(InstantTarget(), FAST), FAST)
    answer["loads"][0] |= {"lag_s": {"p50": 0.0, "p99": 0.5}, "ttft_s": {"p50": 0.1, "p99": 0.7}}
    print_report(answer)
    assert "the load generator itself was late, 500.0 ms at p99" in capsys.readouterr().out


def test_a_picture_of_loads_even_of_failed_ones(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "out.png"
    check_plot(path)
    runs = [
        *measured(InstantTarget(), FAST).result.runs,
        *measured(InstantTarget(failing=256), FAST).result.runs,
    ]
    plot_result(path, "title", ["good", "failed"], runs)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("name", "message"), [("out.txt", r"ends with .*\.png"), ("no/out.png", "there is no folder")])
def test_a_picture_that_cannot_be_is_refused_at_once(tmp_path: Path, name: str, message: str) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ConfigError, match=message):
        check_plot(tmp_path / name)


def test_labels() -> None:
    assert load_label({"rate": None, "of_offline": None}) == "as it comes"
    assert load_label({"rate": 12.345, "of_offline": 0.95}) == "12.35/s (95%)"


def test_every_key_of_the_answer_is_described() -> None:
    options = replace(FAST, fractions=(0.5,), offline_runs=1, slo=Slo(ttft=1.0))
    made = measured(InstantTarget(), options)
    made.result.reference_rates.append(1.0)
    answer = describe(made, options)
    page = Path(__file__).resolve().parents[4] / "docs" / "cli.md"
    section = page.read_text(encoding="utf-8").partition("## vcore bench serve\n")[2].partition("\n## ")[0]
    [load] = answer["loads"]
    keys = {*answer, *load, *answer["comparison"], *load["ttft_s"], *load["goodput"], "runs"}
    assert not [key for key in keys if f"`{key}`" not in section]
