"""A signal asks the run to stop after the step. A second signal much later is not ignored."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from vlapipe.train import stopping
from vlapipe.train.stopping import StopSignal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_is_noted_and_handlers_are_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert stop.requested == ""
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert stop.requested == number.name
    assert signal.getsignal(number) is before


def test_second_signal_at_once_is_the_same_wish() -> None:
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert stop.requested in ("SIGINT", "SIGTERM")


def test_second_signal_later_ends_the_process_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_ONE_WISH_S", 0.0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

    try:
        with StopSignal(), pytest.raises(KeyboardInterrupt):
            twice()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_set_no_handlers() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def enter() -> None:
        with StopSignal():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
