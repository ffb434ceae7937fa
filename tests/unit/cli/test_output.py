"""One JSON object on stdout and everything else on stderr; tables of plain columns."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from vcore.cli.output import print_error, print_table, reserved_stdout

SCRIPT = """
import os, subprocess, sys
from vcore.cli.output import reserved_stdout
with reserved_stdout(True) as emit:
    print("from Python")
    sys.stdout.flush()
    os.write(1, b"from C\\n")
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    emit({"answer": 42})
print("afterwards")
"""


def test_only_the_object_reaches_stdout() -> None:
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    first, second = result.stdout.splitlines()
    assert json.loads(first) == {"answer": 42}
    assert second == "afterwards"
    assert sorted(result.stderr.splitlines()) == ["from C", "from Python", "from a child"]


def test_without_json_stdout_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with reserved_stdout(False):
        print("for people")
    assert capsys.readouterr() == ("for people\n", "")


def test_streams_without_a_descriptor_work_too(capsys: pytest.CaptureFixture[str]) -> None:
    with reserved_stdout(True) as emit:
        print("chatter")
        emit({"a": 1})
    assert capsys.readouterr() == ('{"a": 1}\n', "chatter\n")


def test_stdout_comes_back_after_an_exception(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError), reserved_stdout(True):
        raise ValueError
    os.write(1, b"back\n")
    assert capfd.readouterr().out == "back\n"


def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "WHY"), [("a", "one\n  two"), ("longer", "")])
    assert capsys.readouterr().out == "NAME    WHY\na       one two\nlonger\n"


def test_an_error_with_its_notes(capsys: pytest.CaptureFixture[str]) -> None:
    error = ValueError("wrong")
    error.add_note("raised by acme")
    print_error(error)
    assert capsys.readouterr().err == "error: wrong\n  (raised by acme)\n"
