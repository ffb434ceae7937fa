"""`FairLock`: who waits comes before who asks again."""

from __future__ import annotations

import threading
import time

import pytest

from vcore.engine.fair_lock import FairLock


def test_the_holder_that_asks_again_comes_after_the_one_who_waits() -> None:
    lock = FairLock()
    order = []

    def wait_for_it() -> None:
        with lock:
            order.append("waiting")

    thread = threading.Thread(target=wait_for_it)
    with lock:
        thread.start()
        give_up = time.monotonic() + 30
        while not lock.contended:
            assert time.monotonic() < give_up, "the other thread never came to wait"
    with lock:
        order.append("holder")
    thread.join(30)
    assert order == ["waiting", "holder"]


def test_an_exception_releases_it() -> None:
    lock = FairLock()
    with pytest.raises(RuntimeError, match="inside"), lock:
        raise RuntimeError("inside")
    with lock:
        assert not lock.contended
