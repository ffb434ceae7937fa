"""Every format of traces becomes the same requests, and a wrong line is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from vcore.errors import ConfigError
from vcore.traces import TRACE_FORMATS, Trace, TraceRequest, read_trace


def written(tmp_path: Path, text: str, name: str = "trace.jsonl") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def read(tmp_path: Path, *rows: object, format: str = "auto") -> Trace:
    return read_trace(written(tmp_path, lines(*rows)), format)


def test_mooncake(tmp_path: Path) -> None:
    trace = read(
        tmp_path,
        {"timestamp": 27000, "input_length": 1030, "output_length": 50, "hash_ids": [0, 1, 2], "session_id": 7},
        {
            "timestamp": 24500,
            "input_length": 600,
            "output_length": 0,
            "hash_ids": [0, 9],
            "tenant": "a",
            "priority": -1,
        },
    )
    assert (trace.name, trace.format, trace.block_size) == ("trace.jsonl", "mooncake", 512)
    assert trace.requests == (
        TraceRequest(arrival_s=0.0, input_length=600, output_length=1, block_ids=(0, 9), tenant="a", priority=-1),
        TraceRequest(arrival_s=2.5, input_length=1030, output_length=50, block_ids=(0, 1, 2), session_id="7"),
    )
    assert (trace.duration_s, trace.rate) == (2.5, 0.4)


def test_azure(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 23:59:59.9799600,4808,10\n"
        "2023-11-17 00:00:01.4799600,3180,8\n"
    )
    trace = read_trace(written(tmp_path, text, "azure.csv"))
    assert (trace.format, trace.block_size) == ("azure", None)
    assert [one.arrival_s for one in trace.requests] == pytest.approx([0.0, 1.5])
    assert [(one.input_length, one.output_length) for one in trace.requests] == [(4808, 10), (3180, 8)]


def test_azure_with_a_zone(tmp_path: Path) -> None:
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.5+00:00,1,1\n2024-05-10 02:00:01.5+02:00,1,1\n"
    assert read_trace(written(tmp_path, text)).duration_s == pytest.approx(1.0)


def test_aiperf_single_prompts_and_turns(tmp_path: Path) -> None:
    trace = read(
        tmp_path,
        {"timestamp": 0, "text_input": "What is this?", "output_length": 20, "priority": 2},
        {"session_id": "s", "turns": [{"timestamp": 1000, "text": "Hi"}, {"timestamp": 3000, "text": "And?"}]},
        {"timestamp": 2000, "text": "stated", "input_length": 9},
    )
    assert trace.format == "aiperf"
    assert [(one.arrival_s, one.text, one.input_length, one.output_length) for one in trace.requests] == [
        (0.0, "What is this?", 4, 20),
        (1.0, "Hi", 1, 128),
        (2.0, "stated", 9, 128),
        (3.0, "And?", 1, 128),
    ]
    assert [one.session_id for one in trace.requests] == [None, "s", None, "s"]
    assert trace.requests[0].priority == 2


@pytest.mark.parametrize(
    ("header", "row"),
    [("arrival_s", "2.5"), ("timestamp_ms", "2500"), ("timestamp", "2500")],
)
def test_csv_columns_of_the_arrival(tmp_path: Path, header: str, row: str) -> None:
    text = (
        f"{header},client_id,input_length,output_length,hash_ids,priority,session_id,cache_ttl\n"
        "0,2,20,236,5 6,,,\n"
        f"{row},14,27,3,5 7,3,x,7.5\n"
    )
    trace = read_trace(written(tmp_path, text, "plain.csv"))
    assert (trace.format, trace.block_size) == ("csv", 16)
    assert trace.requests[1] == TraceRequest(
        arrival_s=2.5,
        input_length=27,
        output_length=3,
        block_ids=(5, 7),
        tenant="14",
        priority=3,
        session_id="x",
        cache_ttl=7.5,
    )
    assert trace.requests[0].cache_ttl is None


def test_a_time_to_live_is_above_zero(tmp_path: Path) -> None:
    text = "arrival_s,input_length,output_length,cache_ttl\n0,2,20,0\n"
    with pytest.raises(ConfigError, match="line 2: cache_ttl is '0', expected seconds above 0"):
        read_trace(written(tmp_path, text, "plain.csv"))


def test_a_gzipped_file_and_the_first_so_many(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    rows = [{"timestamp": 1000 * i, "input_length": 1, "output_length": 1} for i in (3, 1, 2)]
    path.write_bytes(gzip.compress(lines(*rows).encode()))
    assert [one.arrival_s for one in read_trace(path).requests] == [0.0, 1.0, 2.0]
    assert [one.arrival_s for one in read_trace(path, max_requests=2).requests] == [0.0, 1.0]


def test_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = "\n\n" + lines({"timestamp": 0, "input_length": 1, "output_length": 1}) + "\n"
    assert len(read_trace(written(tmp_path, text)).requests) == 1
    bom = "\ufeffarrival_s,input_length,output_length\n0,1,1\n"
    assert len(read_trace(written(tmp_path, bom)).requests) == 1


def test_milliseconds_are_the_same_seconds_in_every_format(tmp_path: Path) -> None:
    stamps = [0, 1, 57, 1003, 16_777_219, 1_700_000_000_123]
    rows = [{"timestamp": stamp, "input_length": 1, "output_length": 1} for stamp in stamps]
    table = "timestamp_ms,input_length,output_length\n" + "".join(f"{stamp},1,1\n" for stamp in stamps)
    found = [read_trace(written(tmp_path, text)).requests for text in (lines(*rows), table)]
    assert found[0] == found[1]


def test_spaces_around_the_names_of_columns(tmp_path: Path) -> None:
    text = "arrival_s , input_length , output_length\n0 , 5 , 3\n"
    assert read_trace(written(tmp_path, text)).requests[0].input_length == 5


def test_a_trace_whose_requests_come_at_once_has_no_rate(tmp_path: Path) -> None:
    assert read(tmp_path, {"timestamp": 5, "input_length": 1, "output_length": 1}).rate is None


GOOD = {"timestamp": 0, "input_length": 10, "output_length": 1}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"timestamp": 1, "output_length": 1}, "line 2: no 'input_length', expected a whole number from 1"),
        (GOOD | {"input_length": 0}, "input_length is 0, expected a whole number from 1"),
        (GOOD | {"input_length": 1.5}, "input_length is 1.5"),
        (GOOD | {"input_length": True}, "input_length is True"),
        (GOOD | {"output_length": -1}, "output_length is -1, expected a whole number from 0"),
        (GOOD | {"timestamp": "soon"}, "timestamp is 'soon', expected a number"),
        (GOOD | {"timestamp": 10**400}, "expected a number"),
        (GOOD | {"hash_ids": 3}, "hash_ids is 3, expected a list of whole numbers"),
        (GOOD | {"hash_ids": ["x"]}, "expected a list of whole numbers"),
        (GOOD | {"priority": "high"}, "priority is 'high'"),
        ([1], "line 2: found list, expected a JSON object"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(ConfigError, match=r"trace\.jsonl, line 2") as caught:
        read(tmp_path, GOOD, row)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a", "delay": 5}, "a delay after an answer has no fixed time of arrival"),
        ({"session_id": "s", "turns": []}, "expected a list of objects"),
        ({"turns": [{"text": "a"}]}, "line 1, turn 0: no 'timestamp'"),
    ],
)
def test_wrong_rows_of_aiperf(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, row)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no requests"),
        ("\n \n\n", "has no requests"),
        ('[{"timestamp": 0}]', "found a JSON array, expected JSON lines"),
        ("arrival_s,input_length,output_length\n-1.7e308,1,1\n1.7e308,1,1\n", "is too long to count"),
        ("arrival_s,input_length,output_length,tenant\n0,1,1," + "x" * 257, "line 2: tenant has 257 characters"),
        ("arrival_s,input_length,output_length\n", "has no requests"),
        ('{"a": 1}\n', "of no known format; its fields are a. Known:"),
        ("a,b\n1,2\n", "of no known format; its fields are a, b"),
        ('{"timestamp": 0,\n', "line 1: no JSON"),
        ("arrival_s,input_length,output_length\n1,2,3,4\n", "line 2: more values than the header has columns"),
        ("arrival_s,input_length,output_length\n1,2\n", "line 2: no 'output_length'"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nnow,2,3\n", "TIMESTAMP is 'now', expected a date and time"),
        ("input_length,output_length\n2,3\n", "no 'arrival_s', expected the arrival in seconds"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_trace(written(tmp_path, text))
    assert message in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: .*No such file"):
        read_trace(tmp_path / "none.jsonl")
    packed = tmp_path / "t.jsonl"
    packed.write_bytes(gzip.compress(b"x" * 1000))
    with pytest.raises(ConfigError, match=r"is no text: .* must be named \.gz"):
        read_trace(packed)
    cut = tmp_path / "t.jsonl.gz"
    cut.write_bytes(gzip.compress(b"x" * 10_000)[:20])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_trace(cut)
    cut.write_bytes(b"plain text")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_trace(cut)


def test_a_format_that_is_named_must_fit(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD, format="mooncake").format == "mooncake"
    with pytest.raises(ConfigError, match="found JSON lines, but the format azure is CSV"):
        read(tmp_path, GOOD, format="azure")
    with pytest.raises(ConfigError, match="no trace format 'mooncak'; did you mean 'mooncake'"):
        read(tmp_path, GOOD, format="mooncak")
    assert set(TRACE_FORMATS) == {"mooncake", "azure", "aiperf", "csv"}


@pytest.mark.parametrize(
    ("rows", "size"),
    [
        ([(512, 1), (513, 2)], 512),
        ([(100, 7), (96, 6)], 16),  # 15 and 16 would do
        ([(7, 1), (60, 1)], 512),
        ([(600, 1)], 1024),
        ([(3, 1), (4, 2)], 3),
        ([(30, 10)], 3),
    ],
)
def test_block_sizes_are_inferred(tmp_path: Path, rows: list[tuple[int, int]], size: int) -> None:
    made = [GOOD | {"input_length": length, "hash_ids": list(range(count))} for length, count in rows]
    assert read(tmp_path, *made).block_size == size


def test_ids_that_fit_no_block_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fits no block size"):
        read(tmp_path, GOOD | {"hash_ids": [1]}, GOOD | {"input_length": 12, "hash_ids": [1, 2, 3]})
