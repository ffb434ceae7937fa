"""The arithmetic: latencies, throughput and goodput of given events."""

from __future__ import annotations

import pytest

from vcore.bench.percentiles import percentiles
from vcore.bench.serve.measurements import summarise
from vcore.bench.serve.record import RequestRecord
from vcore.bench.serve.runner import LoadRun
from vcore.bench.serve.slo import Slo, parse_slo
from vcore.errors import ConfigError


def record(
    due: float, *events: tuple[float, int], lag: float = 0.0, held: float = 0.0, error: str | None = None
) -> RequestRecord:
    made = RequestRecord(due=due, issued=due + lag, started=due + lag + held, num_wanted_tokens=4, error=error)
    for time, count in events:
        made.add(time, count)
    made.num_output_tokens = made.num_counted
    made.num_prompt_tokens = 10
    made.ended = events[-1][0] if events else made.started
    if error:
        made.message = f"{error} happened"
    return made


def test_latencies_count_from_when_a_request_was_due_without_the_wait_for_a_place() -> None:
    one = record(10.0, (12.0, 1), (12.5, 2), (14.0, 1), lag=0.25, held=0.5)
    assert one.lag == 0.25
    assert one.held == 0.5
    assert one.ttft == pytest.approx(1.5)  # the generator's lag is in it
    assert one.e2e == pytest.approx(3.5)
    assert one.gaps == pytest.approx([0.5, 1.5])
    assert one.tpot == pytest.approx(2.0 / 3)


def test_percentiles_interpolate_between_ranks() -> None:
    assert percentiles([3.0, 1.0, 2.0, 4.0, 5.0]) == pytest.approx({"p50": 3.0, "p90": 4.6, "p99": 4.96, "mean": 3.0})
    assert percentiles([]) is None


def test_a_run_is_summed_up() -> None:
    good = record(0.0, (1.0, 1), (1.5, 1), (2.0, 2))
    good.queue_s = 0.25
    good.num_cached_tokens = 6
    slow = record(1.0, (4.0, 1), (6.0, 1), lag=0.5)
    slow.usage_stated = False
    refused = record(1.5, error="http_503")
    cut = record(2.0, (3.0, 1), error="cut")
    also_cut = record(2.5, error="cut")
    run = LoadRun([good, slow, refused, cut, also_cut], 100.0, 110.0, 3)
    found = summarise(run, Slo(ttft=2.0, itl=0.6))
    assert (found["num_requests"], found["completed"]) == (5, 2)
    assert found["errors"] == {"http_503": 1, "cut": 2}
    assert found["error_messages"] == {"http_503": "http_503 happened", "cut": "cut happened"}
    assert found["elapsed_s"] == 10.0
    assert found["requests_per_s"] == pytest.approx(0.2)
    assert found["output_tokens"] == 6  # the cut request's token is not served
    assert found["output_tokens_per_s"] == pytest.approx(0.6)
    assert (found["input_tokens"], found["input_tokens_per_s"], found["cached_tokens"]) == (20, 2.0, 6)
    assert (found["short_outputs"], found["unstated_usage"], found["peak_in_flight"]) == (1, 1, 3)
    assert found["tokens_per_piece"] == pytest.approx(6 / 5)
    assert found["ttft_s"]["p50"] == pytest.approx(2.0)
    assert found["itl_s"]["mean"] == pytest.approx(1.0)
    assert found["tpot_s"]["mean"] == pytest.approx((1 / 3 + 2) / 2)
    assert found["e2e_s"]["mean"] == pytest.approx(3.5)
    assert found["queue_s"] == {"p50": 0.25, "p90": 0.25, "p99": 0.25, "mean": 0.25}
    assert found["lag_s"]["mean"] == pytest.approx(0.1)
    assert found["goodput"] == pytest.approx({"requests_per_s": 0.1, "share": 0.2})


def test_a_run_without_any_success_has_counts_and_no_latencies() -> None:
    found = summarise(LoadRun([record(0.0, error="connect")], 0.0, 2.0, 1))
    assert found["errors"] == {"connect": 1}
    assert found["ttft_s"] is None
    assert found["tokens_per_piece"] is None
    assert found["output_tokens_per_s"] == 0
    assert found["goodput"] is None


@pytest.mark.parametrize(
    ("slo", "met"),
    [
        (Slo(), True),
        (Slo(ttft=1.0), True),
        (Slo(ttft=0.99), False),
        (Slo(itl=0.5), True),
        (Slo(itl=0.49), False),
        (Slo(e2e=2.0), True),
        (Slo(e2e=1.9), False),
        (Slo(ttft=1.0, itl=0.1), False),
    ],
)
def test_every_bound_counts(slo: Slo, met: bool) -> None:
    assert slo.met_by(record(0.0, (1.0, 1), (1.5, 1), (2.0, 1))) is met


def test_one_token_keeps_any_time_between_tokens_and_failures_keep_nothing() -> None:
    assert Slo(itl=0.001).met_by(record(0.0, (1.0, 1)))
    assert not Slo().met_by(record(0.0, (1.0, 1), error="cut"))


def test_an_slo_is_read() -> None:
    assert parse_slo("ttft=2, itl=0.1") == Slo(ttft=2.0, itl=0.1)
    assert parse_slo("e2e=10").describe() == {"e2e": 10.0}


@pytest.mark.parametrize(
    "text", ["", "ttft", "ttft=", "ttft=0", "ttft=-1", "ttft=inf", "ttft=nan", "x=1", "itl=1,itl=2"]
)
def test_a_wrong_slo_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--slo: found .*, expected KEY=SECONDS"):
        parse_slo(text)
