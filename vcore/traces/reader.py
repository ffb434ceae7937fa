"""`read_trace`: a file of any known format, gzipped or not, as a `Trace`."""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from vcore.errors import ConfigError
from vcore.suggestions import did_you_mean
from vcore.traces.block_size import infer_block_size
from vcore.traces.formats import FORMATS, TraceFormat
from vcore.traces.row import Row
from vcore.traces.trace import Trace, TraceRequest

__all__ = ["TRACE_FORMATS", "read_trace"]

TRACE_FORMATS = tuple(one.name for one in FORMATS)
"""The names that `read_trace` takes, beside ``auto``."""


def read_trace(path: str | Path, format: str = "auto", *, max_requests: int | None = None) -> Trace:
    """Read a trace.

    Args:
        path: the file; one whose name ends with ``.gz`` is unpacked.
        format: one of `TRACE_FORMATS`, or ``auto`` to tell by the first row.
        max_requests: of the requests, only the first so many, by arrival.

    Returns:
        The requests by arrival, the first at 0.

    Raises:
        ConfigError: the file cannot be read, is of no known format, is empty, or a row of it is wrong.
    """
    file = Path(os.path.expanduser(path))
    if format != "auto" and format not in TRACE_FORMATS:
        hint = did_you_mean(format, TRACE_FORMATS)
        raise ConfigError(f"no trace format {format!r}{hint}; there are auto, {', '.join(TRACE_FORMATS)}")
    try:
        chosen, requests = _read(file, format)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"the trace {file} cannot be read: {error}") from None
    except UnicodeDecodeError as error:
        hint = "" if file.name.endswith(".gz") else "; a gzipped file must be named .gz"
        raise ConfigError(f"the trace {file} is no text: {error}{hint}") from None
    requests.sort(key=lambda request: request.arrival_s)
    began = requests[0].arrival_s
    if math.isinf(requests[-1].arrival_s - began):
        raise ConfigError(f"{file.name}: from {began:g} s to {requests[-1].arrival_s:g} s is too long to count")
    kept = tuple(replace(request, arrival_s=request.arrival_s - began) for request in requests[:max_requests])
    return Trace(file.name, chosen.name, kept, infer_block_size(requests, file.name))


def _read(file: Path, format: str) -> tuple[TraceFormat, list[TraceRequest]]:
    opened = gzip.open if file.name.endswith(".gz") else open
    with opened(file, "rt", encoding="utf-8-sig", newline="") as stream:
        assert not isinstance(stream, gzip.GzipFile)
        start = stream.read(1)
        while start.isspace():
            start = stream.read(1)
        stream.seek(0)
        if start == "[":
            raise ConfigError(f"{file.name}: found a JSON array, expected JSON lines: an object a line, without commas")
        rows = _json_rows(stream, file.name) if start in ("{", "") else _csv_rows(stream, file.name)
        first = next(rows, None)
        if first is None:
            raise ConfigError(f"the trace {file} has no requests")
        chosen = _recognise(first, is_json=start == "{") if format == "auto" else _named(format, first, start == "{")
        requests = chosen.parse(first)
        for row in rows:
            requests += chosen.parse(row)
    return chosen, requests


def _recognise(first: Row, *, is_json: bool) -> TraceFormat:
    for one in FORMATS:
        if one.is_json == is_json and one.recognises(first.fields):
            return one
    known = "\n".join(f"  {one.name}: {one.summary}" for one in FORMATS)
    raise ConfigError(f"{first.where}: of no known format; its fields are {', '.join(first.fields)}. Known:\n{known}")


def _named(name: str, first: Row, is_json: bool) -> TraceFormat:
    [chosen] = (one for one in FORMATS if one.name == name)
    if chosen.is_json != is_json:
        found, expected = ("CSV", "JSON lines") if chosen.is_json else ("JSON lines", "CSV")
        raise ConfigError(f"{first.where}: found {found}, but the format {name} is {expected}")
    return chosen


def _json_rows(stream: TextIO, name: str) -> Iterator[Row]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{where}: no JSON: {error}") from None
        if not isinstance(fields, dict):
            raise ConfigError(f"{where}: found {type(fields).__name__}, expected a JSON object")
        yield Row(where, fields)


def _csv_rows(stream: TextIO, name: str) -> Iterator[Row]:
    reader = csv.DictReader(stream, skipinitialspace=True)
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        for fields in reader:
            where = f"{name}, line {reader.line_num}"
            if None in fields:
                raise ConfigError(f"{where}: more values than the header has columns")
            yield Row(where, fields)
    except csv.Error as error:
        raise ConfigError(f"{name}, line {reader.line_num}: no CSV: {error}") from None
