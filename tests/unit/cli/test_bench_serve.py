"""``vcore bench serve``: wrong command lines are refused before anything is started."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from vcore.bench.serve.http_options import Endpoint, HTTPOptions
from vcore.bench.serve.in_process import InProcessTarget
from vcore.bench.serve.server_process import SpawnedServer
from vcore.bench.serve.target_choice import EngineChoice, TargetChoice
from vcore.cli.main import run
from vcore.cli.option_values import json_object, positive_numbers
from vcore.errors import ConfigError

NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--url http://x --in-process", "leave out --in-process"),
        ("--url http://x --engine-thread", "leave out --in-process and --engine-thread"),
        ("--url http://x --model m", "name the server's model with --served-model"),
        ("--url http://x --set cache.block_size=16", "with --url none is"),
        ("--url http://x --moe-routing uniform", "with --url none is"),
        ("--url x", "--url: found 'x', expected http://HOST"),
        ("--in-process --endpoint chat", "--endpoint chat is of a server"),
        ("--endpoint talk", "--endpoint: found 'talk', expected one of completions, chat"),
        ("--rate 1,x", "--rate: found 'x', expected numbers above 0"),
        ("--rate-of-offline 0", "--rate-of-offline: found '0'"),
        ("--arrivals never", "expected one of poisson, fixed, burst, trace"),
        ("--arrivals trace", "expected --trace FILE"),
        ("--duration 0", "--duration: found 0, expected a number above 0"),
        ("--timeout -1", "--timeout: found -1"),
        ("--slo ttft", "--slo: found 'ttft'"),
        ("--extra-body [1]", "--extra-body: found '[1]', expected a JSON object"),
        ("--extra-body {", "--extra-body: no JSON"),
        ('--extra-body {"top_k":3} --in-process', "--extra-body is of requests to a server"),
        ('--extra-body {"echo":true,"top_k":3} --compare-offline', "found 'echo', which --compare-offline cannot ask"),
        ('--extra-body {"top_p":7} --compare-offline', "--extra-body: SamplingParams.top_p"),
        ("-w mega", "no workload 'mega'"),
        ("--trace none.csv", "the trace none.csv cannot be read"),
        ("--trace x --trace-format y", "no trace format 'y'"),
        ("--trace x --length-scale 0", "--length-scale: found 0"),
        ("--prompts none.txt", "the prompts none.txt cannot be read"),
        ("--plot out.nothing", "--plot"),
        ("--set model.max_len=3", "max_len"),
    ],
)
def test_wrong_command_lines(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "serve", *arguments.split()]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


def test_a_server_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "serve", "--url", NOBODY, "--json"]) == 1
    assert re.search(r"error: http://127.0.0.1:9 cannot be reached", capfd.readouterr().err)


def test_numbers_and_objects() -> None:
    assert positive_numbers("--rate", "0.5, 2,inf") == (0.5, 2.0, float("inf"))
    assert positive_numbers("--rate", None) == ()
    assert json_object("--extra-body", '{"a": null}') == {"a": None}
    assert json_object("--extra-body", None) == {}


def test_the_engine_goes_to_what_is_started(tmp_path: Path) -> None:
    engine = EngineChoice(set_=["model.skip_tokenizer=true"], plugins=["no:x"], model="m")
    assert engine.arguments() == ["--set", "model.skip_tokenizer=true", "-p", "no:x", "--model", "m"]
    file = tmp_path / "engine.json"
    file.write_text(json.dumps({"model": {"path": "m"}}), encoding="utf-8")
    assert EngineChoice(config=file).arguments() == ["--config", str(file)]
    assert isinstance(TargetChoice(engine=engine).make(), SpawnedServer)
    assert isinstance(TargetChoice(engine=engine, in_process=True).make(), InProcessTarget)


def test_a_comparison_makes_text_where_the_server_does() -> None:
    with_text = EngineChoice(model="m")
    without = EngineChoice(model="m", set_=["model.skip_tokenizer=true"])
    assert TargetChoice(engine=with_text).offline() is None
    wanted = [(with_text, False, True), (with_text, True, False), (without, False, False)]
    for engine, in_process, detokenize in wanted:
        offline = TargetChoice(engine=engine, in_process=in_process, compare_offline=True).offline()
        assert offline is not None
        assert offline.detokenize is detokenize
        assert offline.config.model.path == "m"
    chat = TargetChoice(
        engine=with_text, http=HTTPOptions(endpoint=Endpoint.CHAT, ignore_eos=False), compare_offline=True
    )
    asked = chat.offline()
    assert asked is not None
    assert (asked.is_chat, asked.ignore_eos) == (True, False)
    TargetChoice(url=NOBODY, engine=with_text, compare_offline=True).check()
    http = HTTPOptions(extra_body={"top_k": 3})
    asked = TargetChoice(engine=with_text, http=http, compare_offline=True).offline()
    assert asked is not None
    assert asked.sampling == {"top_k": 3}
    with pytest.raises(ConfigError, match="--served-model"):
        TargetChoice(url=NOBODY, engine=with_text).check()
