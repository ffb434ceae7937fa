"""``vcore serve``: a server for clients of the OpenAI API."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vcore.cli.shared_options import Config, Model, Plugins, Set

__all__ = ["command"]


def _switch(name: str, text: str) -> Any:  # as typer has it
    """An option that switches on, and with ``no-`` off what the configuration file switches on."""
    return typer.Option(f"--{name}/--no-{name}", help=text)


def command(
    model: Model = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="8000; 0 takes any free one.")] = None,
    model_names: Annotated[
        list[str] | None, typer.Option("--model-name", help="What clients call the model; may be given again.")
    ] = None,
    api_keys: Annotated[
        list[str] | None,
        typer.Option("--api-key", metavar="KEY", help="Demand it; '${env:NAME}' reads a variable. May be given again."),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="PEM file: certificates.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="PEM file: private key.")] = None,
    cors_origins: Annotated[
        list[str] | None, typer.Option("--cors-origin", help="Let pages of this origin call; may be given again.")
    ] = None,
    max_connections: Annotated[int | None, typer.Option("--max-connections", help="8192; idle ones make room.")] = None,
    head_timeout_s: Annotated[
        float | None, typer.Option("--head-timeout", help="Seconds that a request's headers may take; 20.")
    ] = None,
    keep_alive_s: Annotated[
        int | None, typer.Option("--keep-alive", help="Seconds to keep an idle connection; 65.")
    ] = None,
    max_body_bytes: Annotated[int | None, typer.Option("--max-body-bytes", help="Refuse larger requests.")] = None,
    max_queue: Annotated[int | None, typer.Option("--max-queue", help="Refuse more waiting samples.")] = None,
    request_timeout_s: Annotated[
        float | None, typer.Option("--request-timeout", help="Seconds after which a request is ended.")
    ] = None,
    drain_s: Annotated[float | None, typer.Option("--drain", help="Seconds to finish requests in at the end.")] = None,
    exit_when_dead: Annotated[
        bool | None, typer.Option("--exit-when-dead/--stay-when-dead", help="If the engine cannot be started again.")
    ] = None,
    chat_template: Annotated[Path | None, typer.Option("--chat-template", help="Jinja file to use instead.")] = None,
    tool_parser: Annotated[
        str | None, typer.Option("--tool-parser", help="As --set chat.tool_parser: a format of tool calls, or none.")
    ] = None,
    reasoning_parser: Annotated[
        str | None, typer.Option("--reasoning-parser", help="As --set chat.reasoning_parser.")
    ] = None,
    enable_logits_processors: Annotated[
        bool | None, _switch("enable-logits-processors", "Let requests name logits processors.")
    ] = None,
    enable_profile: Annotated[bool | None, _switch("enable-profile", "/start_profile without a key.")] = None,
    enable_reset: Annotated[bool | None, _switch("enable-reset", "/reset_prefix_cache without a key.")] = None,
    enable_trace: Annotated[bool | None, _switch("enable-trace", "/trace without a key.")] = None,
    log_requests: Annotated[bool | None, _switch("log-requests", "A line of JSON a request.")] = None,
    log_prompts: Annotated[bool | None, _switch("log-prompts", "With prompts in these lines.")] = None,
    otlp_traces_endpoint: Annotated[
        str | None, typer.Option("--otlp-traces-endpoint", help="Where OpenTelemetry spans go.")
    ] = None,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Run the engine in this process, for debugging.")
    ] = False,
    config: Config = None,
    set_: Set = None,
    plugins: Plugins = None,
) -> None:
    """Serve a model to clients of the OpenAI API, until Ctrl-C or SIGTERM. Options win over the section `server` of the
    configuration file."""
    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "model_names": model_names,
        "api_keys": api_keys,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "cors_origins": cors_origins,
        "max_connections": max_connections,
        "head_timeout_s": head_timeout_s,
        "keep_alive_s": keep_alive_s,
        "max_body_bytes": max_body_bytes,
        "max_queue": max_queue,
        "request_timeout_s": request_timeout_s,
        "drain_s": drain_s,
        "exit_when_dead": exit_when_dead,
        "chat_template": chat_template,
        "enable_logits_processors": enable_logits_processors,
        "enable_profile": enable_profile,
        "enable_reset": enable_reset,
        "enable_trace": enable_trace,
        "log_requests": log_requests,
        "log_prompts": log_prompts,
        "otlp_traces_endpoint": otlp_traces_endpoint,
    }
    options = {f"server.{name}": value for name, value in given.items()}
    options |= {"chat.tool_parser": tool_parser, "chat.reasoning_parser": reasoning_parser}

    from vcore.config.cli_options import config_from_cli

    tree, base_dir = config_from_cli(config, set_ or [], plugins or [], model, options)

    from vcore.engine.async_llm import AsyncLLM, RestartPolicy
    from vcore.server.lifecycle import run_server
    from vcore.server.preflight import check_parsers

    check_parsers(tree, base_dir)
    restart = RestartPolicy(max_failures=tree.server.max_engine_failures)
    engine = AsyncLLM(config=tree, base_dir=base_dir, in_process=in_process, restart=restart)
    names = ", ".join(tree.server.model_names) or tree.model.path

    def announce(address: str) -> None:
        with contextlib.suppress(OSError):  # a log that has no room, or no reader, keeps nobody from being served
            print(f"serving {names} at {address}; the API is at /v1, the page at /", file=sys.stderr, flush=True)

    run_server(engine, tree.server, announce)
