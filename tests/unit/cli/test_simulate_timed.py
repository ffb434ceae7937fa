"""``vcore simulate`` in time: one scenario, ``compare``, ``sweep``, ``--calibrate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vcore.bench.null_model import write_null_model
from vcore.cli.main import run
from vcore.cli.simulate_fidelity import print_fidelity
from vcore.simulate import read_deployment

ROOT = Path(__file__).resolve().parents[3]
TIMES = ("p50", "p90", "p99", "mean")
OVERLOAD = ["overload", "--trace", "TRACE", "--slo", "ttft=1", "--scheduling", "fcfs", "--scheduling", "priority"]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Forty requests of two tenants, ten a second, whose prompts begin alike."""
    file = tmp_path / "trace.csv"
    lines = ["timestamp_ms,input_length,output_length,tenant,hash_ids"]
    for number in range(40):
        ids = f"0 1 {number + 10}"
        lines.append(f"{100 * number},{40 + number % 8},{1 + number % 5},{'ab'[number % 2]},{ids}")
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    file = tmp_path / "slow.json"
    step_time = {"base_s": 0.01, "token_s": 1e-3}
    file.write_text(json.dumps({"name": "slow", "step_time": step_time, "cache_tokens": 640}), encoding="utf-8")
    return file


def simulate(capfd: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert run(["simulate", *map(str, arguments), "--json"]) == 0
    printed: dict[str, Any] = json.loads(capfd.readouterr().out)
    return printed


def test_json_says_what_came_of_it(trace: Path, deployment: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ("--trace", trace, "--deployment", deployment, "--slo", "ttft=2,itl=0.5", "--replicas", 2)
    told = simulate(capfd, *arguments)
    assert (told["deployment"], told["num_requests"], told["completed"], told["rejected"]) == ("slow", 40, 40, 0)
    assert (told["num_blocks"], told["block_size"], told["replicas"]) == (40, 16, 2)
    # Each replica computes the two shared blocks once; of three or more blocks a prompt has two hit from then on.
    assert told["hit_rate"] == pytest.approx(38 * 2 / (40 * 3))
    assert told["reference_hit_rates"]["optimum"] == pytest.approx(39 * 2 / (40 * 3))
    assert told["reference_hit_rates"]["fifo"] <= told["reference_hit_rates"]["optimum"]
    for key in ("ttft_s", "itl_s", "tpot_s", "e2e_s", "queue_s"):
        assert set(told[key]) == set(TIMES)
    assert told["goodput"]["share"] == 1.0
    assert told["fairness"]["by"] == "tenant"
    assert set(told["fairness"]["tenants"]) == {"a", "b"}
    assert told["preemptions"] == 0
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    known = [*told, *told["fairness"], *told["goodput"], *told["reference_hit_rates"]]
    assert not [key for key in known if f"`{key}`" not in text]


def test_the_table_has_the_figures(trace: Path, deployment: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "--trace", str(trace), "--deployment", str(deployment), "--num-blocks", "3"]) == 0
    printed = capfd.readouterr().out
    assert "time to first token" in printed
    assert "optimum" in printed
    assert "requests were cut to what the cache" in printed


def test_load_and_arrivals_set_the_pace(trace: Path, deployment: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ("--trace", trace, "--deployment", deployment)
    assert simulate(capfd, *arguments, "--load", 2)["rate"] == pytest.approx(20)
    assert simulate(capfd, *arguments, "--rate", 5)["rate"] == pytest.approx(5)
    drawn = simulate(capfd, *arguments, "--rate", 5, "--arrivals", "poisson")
    assert drawn["rate"] != pytest.approx(5)
    assert drawn["rate"] == pytest.approx(5, rel=0.6)
    assert simulate(capfd, *arguments, "--num-requests", 3, "--length-scale", 0.5)["num_requests"] == 3


def test_policies_side_by_side(trace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "out.png"
    arguments = ("--scheduling", "fcfs", "--scheduling", "priority", "--eviction", "lru", "--eviction", "fifo")
    told = simulate(capfd, "compare", "--trace", trace, *arguments, "--plot", picture)
    labels = ["fcfs, lru", "fcfs, fifo", "priority, lru", "priority, fifo"]
    assert [one["label"] for one in told["runs"]] == labels
    assert [f"{one['scheduling']}, {one['eviction']}" for one in told["runs"]] == labels
    assert picture.read_bytes().startswith(b"\x89PNG")


ROUTER = """
from vcore.config import PluginOptions
from vcore.interfaces import RoutingPolicy
from vcore.plugins import RoutingPolicySpec, hookimpl

class Options(PluginOptions):
    replica: int

class Fixed(RoutingPolicy):
    def __init__(self, *, options, context): self._replica = options.replica
    def choose(self, request, replicas): return self._replica

@hookimpl
def vcore_routing_policies():
    return [RoutingPolicySpec(name="fixed", load=":Fixed", options=":Options", api="1.0", summary="test")]
"""


def test_a_routing_policy_of_ones_own(
    trace: Path, deployment: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "fixed.py"
    file.write_text(ROUTER, encoding="utf-8")
    arguments = ["--trace", trace, "--deployment", deployment, "-p", file, "--replicas", 3]
    chosen = ("--set", 'simulation.routing={"name": "fixed", "options": {"replica": 2}}')
    told = simulate(capfd, *arguments, *chosen)
    assert (told["routing"], told["faults"]) == ("fixed", [])
    assert [share > 0 for share in told["utilisation"]] == [False, False, True]
    # Named again on the command line, it keeps the options of the configuration.
    compared = simulate(capfd, "compare", *arguments, *chosen, "--routing", "fixed", "--routing", "least_loaded")
    assert [one["label"] for one in compared["runs"]] == ["fixed", "least_loaded"]
    assert [one["routing"] for one in compared["runs"]] == ["fixed", "least_loaded"]
    assert compared["runs"][0]["utilisation"] == told["utilisation"]
    assert compared["runs"][1]["utilisation"][0] > 0
    wrong = ("--set", 'simulation.routing={"name": "fixed", "options": {"replica": 3}}')
    [fault] = simulate(capfd, *arguments, *wrong)["faults"]
    assert fault.startswith("routing_policy 'fixed' of ")
    assert "choose answered 3; expected the index of one of 3 replicas" in fault
    assert run(["simulate", *map(str, arguments), *wrong, "--set", "plugins.strict=true"]) == 1
    assert "plugins.strict is set" in capfd.readouterr().err


def test_a_routing_policy_as_it_begins(
    trace: Path, deployment: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["plugins", "new", "routing_policy", "acme", "--one-file", "--into", str(tmp_path)]) == 0
    assert "vcore simulate --trace FILE --replicas 4 --routing acme" in capfd.readouterr().out
    arguments = ("--trace", trace, "--deployment", deployment, "-p", tmp_path / "acme.py", "--load", 8)
    told = simulate(capfd, *arguments, "--replicas", 2, "--routing", "acme", "--set", "plugins.strict=true")
    assert (told["routing"], told["completed"]) == ("acme", 40)
    assert all(told["utilisation"])


def test_a_grid(trace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "out.png"
    arguments = ("--load", "0.5,1", "--replicas", "1,2", "--scheduling", "fcfs", "--plot", picture)
    told = simulate(capfd, "sweep", "--trace", trace, *arguments)
    assert told["along"] == "load"
    assert [(one["load"], one["replicas"]) for one in told["runs"]] == [(0.5, 1), (0.5, 2), (1.0, 1), (1.0, 2)]
    assert told["runs"][0]["label"] == "load 0.5, 1 replicas"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run(["simulate", "sweep", "--trace", str(trace), "--num-blocks", "10,20"]) == 0
    assert "20 blocks" in capfd.readouterr().out


def test_an_engine_is_measured(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # A model that the command line can compose: a Llama of one small layer.
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    folder = tmp_path / "model"
    folder.mkdir()
    write_null_model(folder, 64)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "rms_norm_eps": 1e-5, "head_dim": 16}
    config |= {"num_key_value_heads": 1, "rope_theta": 1e4, "tie_word_embeddings": True, **shape}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    file = tmp_path / "here.json"
    sets = ["model.load_format=dummy", "runtime.device=cpu", "runtime.num_threads=1", "cache.num_blocks=40"]
    sets += ["scheduler.max_num_seqs=4"]
    options = [word for one in sets for word in ("--set", one)]
    told = simulate(capfd, "--calibrate", file, "--model", folder, *options)
    assert told["path"] == str(file)
    assert set(told) == {"path", "deployment", "num_points", "error"}
    found = read_deployment(str(file))
    assert found.model_dump() == told["deployment"]
    assert (found.max_num_seqs, found.cache_tokens) == (4, 39 * 16)
    assert found.step_time.decode_seconds(4, 100, 1)[0] > 0


def test_policies_are_compared_under_overload(trace: Path, deployment: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["overload", "--trace", trace, "--deployment", deployment, "--slo", "ttft=0.1", "--share", 0.9]
    arguments += ["--scheduling", "fcfs", "--scheduling", "shortest_job", "--arrivals", "poisson"]
    told = simulate(capfd, *arguments, "--draws", 2, "--seed", 5)
    assert [run["seed"] for run in told["runs"]] == [5, 6]
    assert [one["scheduling"] for one in told["policies"]] == ["fcfs", "shortest_job"]
    assert set(told["policies"][0]) == {"scheduling", "goodput", "share", "ratio"}
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8").partition("## vcore simulate overload")[2]
    known = [*told, *told["runs"][0], *told["policies"][0], *told["policies"][0]["share"]]
    assert not [key for key in known if f"`{key}`" not in text.partition("\n## ")[0]]
    near = told["runs"][0]["sustained_load"]
    assert run(["simulate", *map(str, arguments), "--seed", "5", "--near", str(near)]) == 0
    assert "at 1.2 times the load at which fcfs keeps the SLO for 90%" in capfd.readouterr().out


def test_an_engine_is_compared_with_its_simulation(trace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sets = ["cache.num_blocks=24", "scheduler.max_num_seqs=2", "scheduler.max_num_batched_tokens=64"]
    arguments = ["--num-requests", "4", "--repeats", "1", "--clock", "cpu", "--rate", "20"]
    arguments += [word for one in sets for word in ("--set", one)]
    told = simulate(capfd, "fidelity", "--trace", trace, *arguments)
    assert (told["num_requests"], told["num_cut"]) == (4, 0)
    assert told["rate"] == pytest.approx(20)
    assert told["driven_hit_rate"] == told["engine"]["hit_rate"] > 0
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8").partition("## vcore simulate fidelity")[2]
    assert not [key for key in [*told, *told["engine"]] if f"`{key}`" not in text.partition("\n## ")[0]]


def test_deviations_beyond_the_bounds_are_marked(capfd: pytest.CaptureFixture[str]) -> None:
    times = {"p50": 1.0, "p90": 2.0, "p99": 3.0}
    engine = {"hit_rate": 0.5, "ttft_s": times, "itl_s": times, "e2e_s": times}
    slow = engine | {"hit_rate": 0.52, "e2e_s": times | {"p99": 3.5}}
    told = {"num_requests": 9, "num_cut": 2, "steps": 7, "driven_hit_rate": 0.5}
    print_fidelity("t", {**told, "engine": engine, "simulation": slow, "fitted_to_run": engine})
    lines = capfd.readouterr().out.splitlines()
    marked = [line for line in lines if "*" in line and "marked" not in line]
    assert ["+0.0200*" in marked[0], "+16.7%*" in marked[1]] == [True, True]
    assert len(marked) == 2
    assert any("2 requests were cut" in line for line in lines)


def test_without_a_second_token_there_are_no_times_between_tokens(capfd: pytest.CaptureFixture[str]) -> None:
    times = {"p50": 1.0, "p90": 2.0, "p99": 3.0}
    engine = {"hit_rate": 0.5, "ttft_s": times, "itl_s": None, "e2e_s": times}
    told = {"num_requests": 9, "num_cut": 0, "steps": 7, "driven_hit_rate": 0.5}
    print_fidelity("t", {**told, "engine": engine, "simulation": engine, "fitted_to_run": engine})
    printed = capfd.readouterr().out
    assert "first token, p99" in printed
    assert "between tokens" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "add --trace FILE"),
        (["--trace", "TRACE", "--eviction", "lru", "--eviction", "fifo"], "see vcore simulate compare"),
        (["--trace", "TRACE", "--rate", "1", "--load", "2"], "leave one out"),
        (["--trace", "TRACE", "--rate", "0"], "expected a number above 0"),
        (["--trace", "TRACE", "--deployment", "nowhere"], "expected the path of a file"),
        (["--trace", "TRACE", "--set", "cache.block_size=12"], "multiple of the first"),
        (["--trace", "TRACE", "--plot", "out.nothing"], "--plot"),
        (["--trace", "TRACE", "--calibrate", "x.json"], "leave --trace out"),
        (["--calibrate", "/nowhere/x.json"], "there is no folder"),
        (["compare", "--trace", "TRACE", "--scheduling", "fcfs"], "nothing to compare"),
        (["compare", "--trace", "TRACE", "--routing", "a", "--routing", "b"], "add --replicas N"),
        (["sweep", "--trace", "TRACE", "--load", "1"], "nothing to sweep"),
        (["sweep", "--load", "1,2"], "add --trace FILE"),
        (["overload", "--trace", "TRACE", "--slo", "ttft=1", "--scheduling", "fcfs"], "nothing to compare"),
        (["overload", "--trace", "TRACE", "--scheduling", "fcfs", "--scheduling", "priority"], "add --slo"),
        ([*OVERLOAD, "--draws", "2"], "add --arrivals poisson"),
        ([*OVERLOAD, "--share", "1"], "expected --share between 0 and 1"),
        ([*OVERLOAD, "--near", "0"], "expected --share between 0 and 1"),
        (["fidelity"], "add --trace FILE"),
        (["fidelity", "--trace", "TRACE", "--clock", "sun"], "expected one of wall, cpu"),
        (["sweep", "--trace", "TRACE", "--replicas", "1,1.5"], "whole numbers"),
        (["sweep", "--trace", "TRACE", "--num-blocks", "1,inf"], "whole numbers"),
    ],
)
def test_what_cannot_be_done_is_said(
    trace: Path, arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["simulate", *(str(trace) if word == "TRACE" else word for word in arguments)]) == 2
    assert message in capfd.readouterr().err


def test_an_unknown_policy_is_named(trace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "--trace", str(trace), "--scheduling", "fcfss"]) == 1
    assert "did you mean 'fcfs'" in capfd.readouterr().err
    assert run(["simulate", "--trace", str(trace), "--replicas", "2", "--routing", "random"]) == 1
    assert "there is no routing_policy called 'random'" in capfd.readouterr().err


def test_a_pace_needs_arrivals_that_differ(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("arrival_s,input_length,output_length\n0,4,2\n0,4,2\n", encoding="utf-8")
    for option in (("--load", "2"), ("--arrivals", "poisson")):
        assert run(["simulate", "--trace", str(file), *option]) == 2
        assert "all requests arrive at once" in capfd.readouterr().err
    told = simulate(capfd, "--trace", file)
    assert told["fairness"]["by"] == "request"
    assert told["reference_hit_rates"] == {}


def test_a_deployment_without_a_cache_needs_blocks(
    trace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "d.json"
    file.write_text('{"name": "d", "step_time": {"base_s": 0.01}}', encoding="utf-8")
    assert run(["simulate", "--trace", str(trace), "--deployment", str(file)]) == 2
    assert "add --num-blocks C" in capfd.readouterr().err
    assert simulate(capfd, "--trace", trace, "--deployment", file, "--num-blocks", 50)["num_blocks"] == 50
