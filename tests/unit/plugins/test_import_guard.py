"""What a plugin does while it registers stays its own affair."""

from __future__ import annotations

import logging
import os
import sys
import time

import pytest

from vcore.plugins.import_guard import describe_exception, run_guarded


def test_the_value_comes_back() -> None:
    run = run_guarded(lambda: 7)
    assert run.value == 7
    assert run.error is None
    assert run.notes == ()


@pytest.mark.parametrize("error", [SystemExit(3), ImportError("no"), GeneratorExit()])
def test_exceptions_become_data(error: BaseException) -> None:
    def fail() -> None:
        raise error

    assert run_guarded(fail).error is error


def test_an_interrupt_is_the_users_and_passes() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    stdout = sys.stdout
    with pytest.raises(KeyboardInterrupt):
        run_guarded(interrupt)
    assert sys.stdout is stdout


def test_output_becomes_data(capsys: pytest.CaptureFixture[str]) -> None:
    def chatter() -> None:
        print("hello")
        print("world", file=sys.stderr)

    run = run_guarded(chatter)
    assert run.output == "hello\nworld\n"
    assert "wrote 12 characters at import: 'hello'" in run.notes[0]
    assert capsys.readouterr() == ("", "")


def test_a_log_handler_made_at_import_still_works_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    handler = run_guarded(lambda: logging.StreamHandler()).value
    assert handler is not None
    handler.emit(logging.LogRecord("acme", logging.INFO, "", 0, "later", None, None))
    handler.flush()
    assert capsys.readouterr().err == "later\n"


def test_streams_behave_like_streams_meanwhile() -> None:
    def ask() -> tuple[bool, bool, str]:
        sys.stdout.flush()
        return sys.stdout.writable(), sys.stdout.isatty(), sys.stdout.encoding

    assert run_guarded(ask).value == (True, False, sys.stdout.encoding)


def test_the_descriptor_is_the_real_one(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(lambda: os.fstat(sys.stderr.fileno())).error is None


def test_a_slow_import_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.perf_counter

    def jump() -> None:
        monkeypatch.setattr(time, "perf_counter", lambda: real() + 5.0)

    assert "took 5.0 s" in run_guarded(jump).notes[0]


def test_importing_torch_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)

    def load() -> None:
        monkeypatch.setitem(sys.modules, "torch", sys)

    assert "imports torch" in run_guarded(load).notes[0]


def test_an_exception_in_one_line() -> None:
    assert describe_exception(ValueError("a\n  b")) == "ValueError: a b"
    assert describe_exception(SystemExit()) == "SystemExit"
