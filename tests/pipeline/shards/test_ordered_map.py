"""Jobs in threads: results come in the jobs' order, and ending at any point waits only for the jobs in progress."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from vlapipe.pipeline.shards.ordered_map import InOrder, Threads, in_order

SECONDS = 60  # that a hang may take before the test says so


_earlier: set[threading.Thread] = set()  # those of another test's pool may still end


def pool_threads() -> list[threading.Thread]:
    """Threads of the pools of this test."""
    return [t for t in threading.enumerate() if t.name.startswith("vlapipe-job") and t not in _earlier]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def in_time(function: Callable[[], Any]) -> None:
    """Call it in a thread of its own, which must end."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert not thread.is_alive()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    _earlier.clear()
    _earlier.update(threading.enumerate())
    yield
    wait_until(lambda: not pool_threads())


class Gate:
    """Jobs that have begun and go on when they are let."""

    def __init__(self) -> None:
        self.num_begun, self._may_go = 0, threading.Event()

    def job(self, number: int) -> int:
        self.num_begun += 1
        assert self._may_go.wait(SECONDS)
        return number

    def open(self) -> None:
        self._may_go.set()


def test_results_come_in_order_and_threads_end_with_them() -> None:
    jobs = (partial(lambda n: time.sleep(0.002 * (n % 3 == 0)) or n, n) for n in range(60))
    assert list(in_order(jobs, 8)) == list(range(60))
    assert not pool_threads()


def test_error_of_a_job_ends_the_threads_before_it_is_raised() -> None:
    def fail(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    results = in_order((partial(fail, n) for n in itertools.count()), 8)
    with pytest.raises(ValueError, match="three"):
        list(results)
    assert not pool_threads()
    assert list(results) == []


def test_error_of_whoever_gives_the_jobs_ends_the_threads() -> None:
    def jobs() -> Iterator[Callable[[], int]]:
        yield lambda: 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(in_order(jobs(), 4))
    assert not pool_threads()


def test_close_while_the_taker_waits_ends_both_as_soon_as_the_job_does() -> None:
    gate = Gate()
    results = in_order((partial(gate.job, n) for n in itertools.count()), 6)
    taken: list[int] = []
    taker = threading.Thread(target=lambda: taken.extend(results), daemon=True)
    taker.start()
    wait_until(lambda: gate.num_begun == 6)
    closer = threading.Thread(target=results.close, daemon=True)
    closer.start()
    threads = results._threads
    assert threads is not None
    wait_until(lambda: threads._is_closed)  # from then on no other job begins
    assert closer.is_alive()  # waits for the jobs in progress
    gate.open()
    closer.join(SECONDS)
    taker.join(SECONDS)
    assert not closer.is_alive()
    assert not taker.is_alive()
    assert taken in ([], [0])  # a result that was waited for when it was closed may still come
    assert gate.num_begun == 6  # nothing else has begun


def test_many_threads_may_close_at_once_and_again() -> None:
    for _ in range(100):
        results = in_order((partial(int, n) for n in itertools.count()), 4)
        next(results)
        closers = [threading.Thread(target=results.close, daemon=True) for _ in range(4)]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(SECONDS)
            assert not closer.is_alive()
        in_time(results.close)
        assert not list(results)


def test_job_that_is_submitted_while_the_pool_closes_is_cancelled_and_not_waited_for() -> None:
    for _ in range(200):
        threads = Threads(2)
        closer = threading.Thread(target=threads.close, daemon=True)
        closer.start()
        future = threads.submit(lambda: 1)
        wait_until(future.done)
        closer.join(SECONDS)
        assert not closer.is_alive()


def test_dropping_waits_for_nothing_and_the_threads_end_by_themselves() -> None:
    gate = Gate()
    results = in_order(itertools.chain([lambda: -1], (partial(gate.job, n) for n in itertools.count())), 4)
    assert next(results) == -1
    wait_until(lambda: gate.num_begun == 4)
    del results
    assert len(pool_threads()) == 4
    gate.open()
    wait_until(lambda: not pool_threads())
    assert gate.num_begun == 4


def test_iterator_that_one_of_its_own_threads_collects_as_garbage_ends() -> None:
    class Holder:
        results: InOrder[int] | None = None
        itself: Holder | None = None

    collect, collected = threading.Event(), threading.Event()

    def job() -> int:
        if collect.wait(SECONDS):
            gc.collect()
            collected.set()
        return 1

    holder = Holder()
    holder.itself = holder
    holder.results = in_order(itertools.chain([lambda: 0], itertools.repeat(job)), 3)
    assert next(holder.results) == 0
    gc.disable()
    try:
        del holder
        collect.set()
        assert collected.wait(SECONDS)
    finally:
        gc.enable()
    wait_until(lambda: not pool_threads())


def test_pool_works_with_as_many_threads_as_the_system_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    start, allowed = threading.Thread.start, 3

    def refuse(thread: threading.Thread) -> None:
        if len(pool_threads()) >= allowed:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    threads = Threads(8)
    assert len(threads) == 3
    threads.remove(8)
    assert len(threads) == 1
    assert threads.submit(lambda: 7).result(SECONDS) == 7
    threads.close()
    allowed = 0
    with pytest.raises(RuntimeError, match="new thread"):
        Threads(2)


def test_process_ends_while_an_iterator_is_held_and_another_thread_waits_for_it(tmp_path: Path) -> None:
    code = f"""
        import itertools, threading, time
        from pathlib import Path
        from vlapipe.pipeline.shards.ordered_map import in_order
        def job():
            time.sleep(0.05)
            Path({str(tmp_path / "done")!r}).touch()
            return 1
        held = in_order(itertools.repeat(job), 12)
        threading.Thread(target=lambda: list(held), daemon=True).start()
        time.sleep(0.1)
        print("ended")
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=600, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ended\n", "")
    assert (tmp_path / "done").exists()
