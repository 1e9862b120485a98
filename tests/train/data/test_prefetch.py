"""LoaderThreads work ahead in order, within a limit, and end on every path; also how their number is chosen."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from vlapipe.train.data.prefetch import LoaderThreads, Pace, ahead

NewThreads = Callable[[str], list[threading.Thread]]


def test_results_come_in_order_whoever_is_done_first(new_threads: NewThreads) -> None:
    def slow_if_even(number: int) -> int:
        time.sleep(0.01 * (number % 2 == 0))
        return number

    assert list(ahead(iter(range(30)), slow_if_even, num_threads=4, depth=8)) == list(range(30))
    assert not new_threads("vlapipe-loader")


def test_no_more_than_depth_are_made_ahead_of_the_taker(new_threads: NewThreads) -> None:
    begun: list[int] = []
    results = ahead(itertools.count(), lambda number: begun.append(number) or number, num_threads=2, depth=3)
    for taken in range(5):
        assert next(results) == taken
        time.sleep(0.02)
        assert len(begun) <= taken + 1 + 3
    results.close()
    assert not new_threads("vlapipe-loader")


def test_error_comes_where_its_result_was_to_come_and_ends_the_threads(new_threads: NewThreads) -> None:
    def fail_at_three(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    results = ahead(itertools.count(), fail_at_three, num_threads=2, depth=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert not new_threads("vlapipe-loader")


def test_threads_compute_on_one_core_each_and_leave_the_others_number_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        threads = LoaderThreads(2)
        found = [threads.submit(torch.get_num_threads).result() for _ in range(4)]
        assert torch.get_num_threads() == 3
        threads.close()
    finally:
        torch.set_num_threads(before)
    assert found == [1, 1, 1, 1]


@pytest.mark.parametrize("how", ["exhausted", "abandoned", "interrupted"])
def test_process_ends_by_itself_however_its_loop_did(how: str) -> None:
    code = f"""
        import itertools, os, signal, sys, time
        from vlapipe.train.data.prefetch import ahead
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        results = ahead(itertools.count(), lambda n: time.sleep(0.01) or n, num_threads=2, depth=4)
        for n in results:
            if n == 3 and {how!r} == "exhausted":
                results.close()
            if n == 5 and {how!r} == "abandoned":
                break
            if n == 5 and {how!r} == "interrupted":
                os.kill(os.getpid(), signal.SIGINT)
        print("ended")
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=600, check=False
    )
    if how == "interrupted":
        assert "KeyboardInterrupt" in ended.stderr
    else:
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ended\n", "")


@pytest.mark.slow
def test_thousands_of_closes_at_any_moment_never_hang() -> None:
    code = """
        import faulthandler, itertools, random, sys, time
        from vlapipe.train.data.prefetch import ahead
        faulthandler.dump_traceback_later(500, exit=True)
        sys.setswitchinterval(1e-6)  # the threads take turns as often as they can
        rng = random.Random(0)
        for trial in range(2000):
            results = ahead(
                itertools.count(), lambda n: n, num_threads=rng.choice([2, 4, 12]), depth=rng.choice([4, 30, 60])
            )
            for expected in range(rng.choice([0, 1, 2, 9])):
                assert next(results) == expected
            results.close()
        print("ended")
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=600, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ended\n", "")


class Clock:
    """A taker and its threads in made-up time: a batch takes ``work_s`` on one thread, its taker ``own_s``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, work_s: float, own_s: float, cores: int) -> None:
        self.now = 0.0
        self._work_s, self._own_s, self._cores = work_s, own_s, cores
        monkeypatch.setattr("vlapipe.train.data.prefetch.time.perf_counter", lambda: self.now)

    def run(self, pace: Pace, *, batches: int = 400) -> int:
        """How many threads there are in the end."""
        threads = 1
        for _ in range(batches):
            waited = max(0.0, self._work_s / min(threads, self._cores) - self._own_s)
            self.now += self._own_s + waited
            threads += pace.step(waited, threads)
            assert threads >= 1
        return threads


@pytest.mark.parametrize(
    ("work_s", "own_s", "cores", "most", "chosen"),
    [
        (0.01, 0.02, 8, 8, 1),  # nobody waits
        (0.04, 0.02, 8, 8, 2),
        (0.10, 0.02, 8, 8, 8),
        (0.10, 0.02, 8, 6, 6),
        (0.10, 0.02, 2, 8, 2),  # more than two do not help: they are let go again
        (0.10, 0.00, 1, 8, 1),
    ],
)
def test_as_many_threads_as_help_are_chosen(
    monkeypatch: pytest.MonkeyPatch, work_s: float, own_s: float, cores: int, most: int, chosen: int
) -> None:
    said: list[str] = []
    assert Clock(monkeypatch, work_s, own_s, cores).run(Pace(most, said.append)) == chosen
    assert len(said) == 1
    assert said[0].startswith(f"{chosen} thread")


def test_slow_beginning_does_not_decide_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    clock, pace = Clock(monkeypatch, 0.04, 1.0, 8), Pace(8, said.append)
    assert clock.run(pace, batches=100) == 1
    clock._own_s = 0.01
    assert clock.run(pace) == 4
    assert [text.split()[0] for text in said] == ["1", "4"]


def test_threads_come_and_go_while_results_stay_in_order(new_threads: NewThreads) -> None:
    class Restless(Pace):
        def __init__(self) -> None:
            super().__init__(4)
            self._changes: Iterator[int] = itertools.cycle([1, 2, -1, -2])

        def step(self, waited_s: float, num_threads: int) -> int:  # noqa: ARG002 - in turns, whatever happens
            return next(self._changes)

    results = ahead(iter(range(200)), lambda number: number, num_threads=1, depth=5, pace=Restless())
    assert list(results) == list(range(200))
    assert not new_threads("vlapipe-loader")
