"""``vcore serve``: a server for clients of the OpenAI API."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vcore.cli.shared_options import Config, Model, Plugins, Set

__all__ = ["command"]


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
    max_body_bytes: Annotated[int | None, typer.Option("--max-body-bytes", help="Refuse larger requests.")] = None,
    max_queue: Annotated[int | None, typer.Option("--max-queue", help="Refuse more waiting samples.")] = None,
    request_timeout_s: Annotated[
        float | None, typer.Option("--request-timeout", help="Seconds after which a request is ended.")
    ] = None,
    drain_s: Annotated[float | None, typer.Option("--drain", help="Seconds to finish requests in at the end.")] = None,
    chat_template: Annotated[Path | None, typer.Option("--chat-template", help="Jinja file to use instead.")] = None,
    tool_parser: Annotated[
        str | None, typer.Option("--tool-parser", help="As --set chat.tool_parser: a format of tool calls, or none.")
    ] = None,
    reasoning_parser: Annotated[
        str | None, typer.Option("--reasoning-parser", help="As --set chat.reasoning_parser.")
    ] = None,
    enable_logits_processors: Annotated[
        bool, typer.Option("--enable-logits-processors", help="Let requests name logits processors.")
    ] = False,
    enable_profile: Annotated[bool, typer.Option("--enable-profile", help="/start_profile without a key.")] = False,
    enable_reset: Annotated[bool, typer.Option("--enable-reset", help="/reset_prefix_cache without a key.")] = False,
    enable_trace: Annotated[bool, typer.Option("--enable-trace", help="/trace without a key.")] = False,
    log_requests: Annotated[bool, typer.Option("--log-requests", help="A line of JSON a request.")] = False,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="With prompts in these lines.")] = False,
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
    """Serve a model to clients of the OpenAI API, until Ctrl-C or SIGTERM."""
    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "model_names": tuple(model_names or ()),
        "api_keys": tuple(api_keys or ()),
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "cors_origins": tuple(cors_origins or ()),
        "max_body_bytes": max_body_bytes,
        "max_queue": max_queue,
        "request_timeout_s": request_timeout_s,
        "drain_s": drain_s,
        "chat_template": chat_template,
        "enable_logits_processors": enable_logits_processors,
        "enable_profile": enable_profile,
        "enable_reset": enable_reset,
        "enable_trace": enable_trace,
        "log_requests": log_requests,
        "log_prompts": log_prompts,
        "otlp_traces_endpoint": otlp_traces_endpoint,
    }
    from vcore.config.cli_options import config_from_cli
    from vcore.server.settings import settings_from

    settings = settings_from({name: value for name, value in given.items() if value is not None})
    parsers = {"chat.tool_parser": tool_parser, "chat.reasoning_parser": reasoning_parser}
    pairs = [*(set_ or []), *(f"{key}={value}" for key, value in parsers.items() if value is not None)]
    tree, base_dir = config_from_cli(config, pairs, plugins or [], model)

    from vcore.engine.async_llm import AsyncLLM
    from vcore.server.lifecycle import run_server

    engine = AsyncLLM(config=tree, base_dir=base_dir, in_process=in_process)
    names = ", ".join(settings.model_names) or tree.model.path

    def announce(address: str) -> None:
        print(f"serving {names} at {address}; the API is at /v1, the page at /", file=sys.stderr, flush=True)

    run_server(engine, settings, announce)
