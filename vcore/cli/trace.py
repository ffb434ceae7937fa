"""``vcore trace``: fetch the last steps and requests of a server, as a file that Perfetto opens."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import typer

from vcore.cli.output import reserved_stdout
from vcore.cli.shared_options import Json
from vcore.errors import ConfigError, VcoreError

__all__ = ["command"]

_TIMEOUT_S = 60.0


def command(
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Of the server.")] = "http://127.0.0.1:8000",
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.001, max=86_400.0, help="How far the trace goes back.")
    ] = 10.0,
    wait: Annotated[bool, typer.Option("--wait", help="Record the next seconds, not the last.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write it.")] = Path(
        "trace.json"
    ),
    api_key: Annotated[
        str | None, typer.Option("--api-key", metavar="KEY", envvar="OPENAI_API_KEY", help="Of the server.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a timeline of a server's steps and requests, to be opened at ui.perfetto.dev.

    The server must have been started with --enable-trace, or with an API key.
    """
    with reserved_stdout(as_json) as emit:
        if wait:
            _fetch(url, 0.001, api_key)  # so that what is wrong is told before, not after, the wait
            print(f"recording {seconds:g} s", file=sys.stderr)
            time.sleep(seconds)
        trace = _fetch(url, seconds, api_key)
        output.write_text(json.dumps(trace), encoding="utf-8")
        told = {"path": str(output), **_counts(trace["traceEvents"])}
        if as_json:
            emit(told)
        else:
            counts = f"{told['num_steps']} steps, {told['num_requests']} requests"
            print(f"wrote {output}: {counts}; open it at ui.perfetto.dev")


def _counts(events: list[dict[str, Any]]) -> dict[str, int]:
    return {
        "num_events": len(events),
        "num_steps": sum(event["ph"] == "X" and "index" in event["args"] for event in events),
        "num_requests": sum(event["ph"] == "X" and event["name"] == "request" for event in events),
    }


def _fetch(url: str, seconds: float, api_key: str | None) -> dict[str, Any]:
    """The trace of the last `seconds`.

    Raises:
        ConfigError: `url` is none.
        VcoreError: there is no such server, it refuses, or it answers something else.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(f"--url is {url!r}; expected the address of a server, such as http://127.0.0.1:8000")
    request = urllib.request.Request(f"{url.rstrip('/')}/trace?seconds={seconds:g}")
    if api_key:
        request.add_header("Authorization", f"Bearer {api_key}")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            trace = json.load(response)
    except urllib.error.HTTPError as error:
        raise VcoreError(f"{url} answers {error.code}: {_message(error)}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise VcoreError(f"no trace from {url}: {reason}; is it a vcore server, and is it running?") from error
    if not isinstance(trace, dict) or not isinstance(trace.get("traceEvents"), list):
        raise VcoreError(f"{url}/trace answers, but not with a trace; is it a vcore server?")
    return trace


def _message(error: urllib.error.HTTPError) -> str:
    """What the server says of an error."""
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return error.reason
