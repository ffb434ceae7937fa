"""``vcore bench serve``: load on a server, and what its users would see."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vcore.cli.option_values import json_object, one_of, positive, positive_numbers
from vcore.cli.output import reserved_stdout
from vcore.cli.shared_options import Config, Json, Model, Plugins, Set
from vcore.errors import ConfigError

if TYPE_CHECKING:
    from vcore.bench.serve.arrivals import Arrivals
    from vcore.bench.serve.bench import LoadOptions
    from vcore.bench.serve.source_choice import SourceChoice
    from vcore.bench.serve.target_choice import TargetChoice

__all__ = ["serve"]


def serve(
    url: Annotated[str | None, typer.Option("--url", help="A server that runs; without it one is started.")] = None,
    in_process: Annotated[bool, typer.Option("--in-process", help="AsyncLLM instead of a server.")] = False,
    engine_thread: Annotated[
        bool, typer.Option("--engine-thread", help="Start the engine as a thread, not as a process.")
    ] = False,
    endpoint: Annotated[str, typer.Option("--endpoint", help="completions or chat.")] = "completions",
    served_model: Annotated[str | None, typer.Option("--served-model", help="As the server calls it.")] = None,
    api_key: Annotated[str | None, typer.Option("--api-key", envvar="OPENAI_API_KEY", help="Of the server.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Accept any TLS certificate.")] = False,
    workload: Annotated[
        str | None, typer.Option("--workload", "-w", help="nano, single, shared_prefix or long_prefill; nano.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", help="A file of prompts, one a line.")] = None,
    output_len: Annotated[int | None, typer.Option("--output-len", min=1, help="For --prompts; 128.")] = None,
    trace: Annotated[Path | None, typer.Option("--trace", help="A file of recorded requests.")] = None,
    trace_format: Annotated[
        str | None, typer.Option("--trace-format", help="auto, mooncake, azure, aiperf or csv; auto.")
    ] = None,
    length_scale: Annotated[
        float | None, typer.Option("--length-scale", help="Multiplies the lengths of a trace.")
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option("--vocab-size", min=1, help="Random ids are below it; of a server, 1000.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option("--rate", metavar="R[,R...]", help="Requests a second, a load each; inf: at once.")
    ] = None,
    rate_of_offline: Annotated[
        str | None, typer.Option("--rate-of-offline", metavar="F[,F...]", help="Such as 0.5,0.8,0.95.")
    ] = None,
    arrivals: Annotated[
        str | None, typer.Option("--arrivals", help="poisson, fixed, burst or trace; poisson, with --trace trace.")
    ] = None,
    burst_size: Annotated[int, typer.Option("--burst-size", min=1, help="Requests of a burst.")] = 8,
    num_requests: Annotated[int | None, typer.Option("--num-requests", min=1, help="Of each load.")] = None,
    duration: Annotated[float, typer.Option("--duration", help="Seconds of arrivals of each load.")] = 30.0,
    max_concurrency: Annotated[
        int | None, typer.Option("--max-concurrency", min=1, help="Requests at the server at a time.")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds after which a request has failed.")] = 600.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of prompts and arrivals.")] = 0,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 is greedy.")] = 0.6,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos/--no-ignore-eos", help="Ask for it.")] = True,
    extra_body: Annotated[
        str | None, typer.Option("--extra-body", metavar="JSON", help="Fields of every request to a server.")
    ] = None,
    slo: Annotated[str | None, typer.Option("--slo", metavar="KEY=SECONDS,...", help="Such as ttft=2,itl=0.1.")] = None,
    compare_offline: Annotated[
        bool, typer.Option("--compare-offline", help="The same requests through LLM.generate, too.")
    ] = False,
    offline_runs: Annotated[int, typer.Option("--offline-runs", min=1, help="All at once; the better counts.")] = 2,
    warm_up: Annotated[bool, typer.Option("--warm-up/--no-warm-up", help="A short load first.")] = True,
    moe_routing: Annotated[str | None, typer.Option("--moe-routing", help="model or uniform.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the latencies there, such as out.png.")] = None,
    model: Model = None,
    config: Config = None,
    set_: Set = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Latencies and throughput under load, as arrivals over time make them. Exit status 1 if a request failed."""
    from vcore.bench.serve.bench import LoadOptions
    from vcore.bench.serve.http_options import Endpoint, HTTPOptions
    from vcore.bench.serve.slo import parse_slo
    from vcore.bench.serve.source_choice import SourceChoice
    from vcore.bench.serve.target_choice import EngineChoice, TargetChoice

    http = HTTPOptions(
        endpoint=one_of(Endpoint, "--endpoint", endpoint),
        model=served_model,
        api_key=api_key,
        verify=not insecure,
        temperature=temperature,
        ignore_eos=ignore_eos,
        extra_body=json_object("--extra-body", extra_body),
    )
    routing = [] if moe_routing is None else [f"model.moe_routing={moe_routing}"]
    target = TargetChoice(
        url=url,
        in_process=in_process,
        engine_thread=engine_thread,
        http=http,
        engine=EngineChoice(config=config, set_=[*(set_ or []), *routing], plugins=plugins or [], model=model),
        compare_offline=compare_offline,
    )
    source = SourceChoice(
        workload=workload,
        prompts=prompts,
        output_len=output_len,
        trace=trace,
        trace_format=trace_format,
        length_scale=None if length_scale is None else positive("--length-scale", length_scale),
        vocab_size=vocab_size,
        is_chat=http.is_chat,
    )
    options = LoadOptions(
        rates=positive_numbers("--rate", rate),
        fractions=positive_numbers("--rate-of-offline", rate_of_offline),
        offline=compare_offline,
        offline_runs=offline_runs,
        arrivals=_law(arrivals, trace),
        burst_size=burst_size,
        num_requests=num_requests,
        duration_s=positive("--duration", duration),
        max_concurrency=max_concurrency,
        timeout_s=positive("--timeout", timeout),
        seed=seed,
        slo=None if slo is None else parse_slo(slo),
        as_text=http.is_chat,
        warm_up=warm_up,
    )
    _run(target, source, options, plot=plot, as_json=as_json)


def _law(arrivals: str | None, trace: Path | None) -> Arrivals:
    from vcore.bench.serve.arrivals import Arrivals

    law = one_of(Arrivals, "--arrivals", arrivals or ("trace" if trace else "poisson"))
    if law is Arrivals.TRACE and trace is None:
        raise ConfigError("--arrivals trace: expected --trace FILE with it, whose times are to be kept")
    return law


def _run(target: TargetChoice, source: SourceChoice, options: LoadOptions, *, plot: Path | None, as_json: bool) -> None:
    from vcore.bench.serve.plot import check_plot, plot_result
    from vcore.bench.serve.report import describe, load_label, print_report
    from vcore.bench.serve.session import measure_serving

    target.check()
    make_source = source.prepare()
    if plot is not None:
        check_plot(plot)
    with reserved_stdout(as_json) as emit:
        session = measure_serving(target.make, make_source, options, offline=target.offline(), report=_progress)
        answer = describe(session, options)
        if as_json:
            emit(answer)
        else:
            print_report(answer)
    if plot is not None:
        labels = [load_label(load) for load in session.result.loads]
        plot_result(plot, f"{answer['workload']} on {answer['model']}", labels, session.result.runs)
    if any(load["errors"] for load in [*session.result.loads, *session.result.offline]):
        raise typer.Exit(1)


def _progress(line: str) -> None:
    typer.echo(line, err=True)
