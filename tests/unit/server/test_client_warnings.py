"""What clients can make a server log is limited, and what was left out is counted."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from vcore.server.client_warnings import ClientWarnings


class Minutes:
    """An event loop's clock, turned by hand."""

    def __init__(self) -> None:
        self.ends: list[Callable[[], None]] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        assert seconds == 60.0
        self.ends.append(callback)

    def end(self) -> None:
        self.ends.pop()()
        assert not self.ends


@pytest.fixture
def target() -> logging.Logger:
    return logging.getLogger("vcore.tests.client_warnings")


def test_a_few_a_minute_and_then_how_many_more(target: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    minutes = Minutes()
    logger = ClientWarnings(target, minutes.call_later).logger
    for number in range(1000):
        logger.warning("no HTTP: %d", number)
    assert [record.getMessage() for record in caplog.records] == [f"no HTTP: {number}" for number in range(5)]
    assert {record.name for record in caplog.records} == {target.name}
    caplog.clear()
    minutes.end()
    assert caplog.messages == ["995 more like these within 60 s; the last: no HTTP: 999"]
    logger.warning("again")
    assert caplog.messages[1:] == ["again"]
    minutes.end()
    assert len(caplog.messages) == 2, "nothing was left out, so nothing is told"


def test_errors_pass_and_are_not_counted(target: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    minutes = Minutes()
    logger = ClientWarnings(target, minutes.call_later).logger
    for _ in range(20):
        logger.error("a fault")
    assert caplog.messages == ["a fault"] * 20
    assert minutes.ends == []


def test_the_level_is_the_targets(target: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, target.name)
    minutes = Minutes()
    ClientWarnings(target, minutes.call_later).logger.warning("no HTTP")
    assert (caplog.messages, minutes.ends) == ([], [])


def test_one_server_does_not_silence_another(target: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    first, second = (ClientWarnings(target, Minutes().call_later).logger for _ in range(2))
    for _ in range(6):
        first.warning("one")
    second.warning("two")
    assert caplog.messages == ["one"] * 5 + ["two"]
