"""Runs shard tasks on a Dask cluster, one future a shard, in worker processes of our own or of a named scheduler.

A few tasks are submitted for each thread of the cluster, and the next one when one is finished. So neither the
scheduler nor this process ever holds the tasks of the whole dataset.

A cluster that this module starts listens on loopback only. If no worker takes the tasks, the user is told at once, and
the run stops after a timeout. Shards that are finished by then are kept for the next run.

Dask gives the shard of a worker that died to another one. A shard over which several workers died is read an episode at
a time in a process of its own; an episode that ends this process, too, is set aside.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import queue
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import dask
import distributed
from distributed.comm import CommClosedError

import vlapipe
from vlapipe.pipeline.build.alone import Limits, find_harmful
from vlapipe.pipeline.build.build import ShardTask, build_shard
from vlapipe.pipeline.build.hangs import ends_if_hung
from vlapipe.pipeline.build.record import Record
from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.schemas.errors import OutOfMemoryError, StoppedError, UsageError

__all__ = ["run_on_dask"]

# Tasks at the cluster for each of its threads: one at work, one that the worker has at hand, and one that the scheduler
# hands on at once. This process submits the next one only when it has dealt with a record.
_TASKS_A_THREAD = 3
_MOST_FETCHES = 8  # records under way to this process; one after another, each would wait for the way there and back
_COUNT_S = 1.0  # seconds for which a count of the threads holds
_IDLE_S = 2.0  # seconds without a finished shard before the workers are checked
_ASK_S = 1.0  # seconds between two checks while the run waits for the first worker
_ANSWER_S = 20.0  # seconds that workers may take to import vlapipe and answer
# The version is asked through a built-in function, so that a worker without vlapipe can answer too.
_VERSION = "__import__('vlapipe.pipeline.build.build').__version__"
_HAS_DASHBOARD = "'distributed.dashboard.scheduler' in __import__('sys').modules"  # only then has it pages
_GO_ON = "the same command then goes on"
_MOST_DEATHS = 1  # of workers of our own over one shard, before its episodes are read alone; Dask itself allows 3
_SHARE_OF_MEMORY = 0.8  # of a worker's limit, for one episode; Dask ends a worker at 0.95, and Python needs some


def run_on_dask(
    tasks: Iterable[ShardTask],
    progress: Progress,
    *,
    num_workers: int,
    scheduler: str | None,
    timeout_s: float,
    episode_timeout_s: float,
) -> Iterator[Record]:
    """Yield each task's record as it finishes, in any order.

    Args:
        tasks: one task a shard. They are taken as threads of the cluster become free, a few ahead.
        progress: counts the episodes of finished tasks, and shows what the run waits for.
        num_workers: number of processes to start if ``scheduler`` is ``None``.
        scheduler: the address of a running Dask scheduler.
        timeout_s: how long the cluster may have no worker that can take the tasks.
        episode_timeout_s: a worker that takes longer over an episode is ended.

    Raises:
        UsageError: the scheduler cannot be reached, or scheduler or a worker have no vlapipe or another one.
        StoppedError: no worker could take the tasks for ``timeout_s``, workers died over a shard none of whose episodes
            is the cause, or the scheduler was lost.
    """
    with _client(num_workers, scheduler) as client:
        watch = _Watch(client, scheduler, progress.say, timeout_s)
        watch.wait_for_worker()
        futures: dict[distributed.Future, tuple[ShardTask, bool]] = {}
        finished: deque[distributed.Future] = deque()
        # Futures that a worker has finished, and then again with the record that has arrived.
        events: queue.SimpleQueue[tuple[distributed.Future, Future[Record] | None]] = queue.SimpleQueue()
        num_fetches = 0

        def submit(task: ShardTask, *, alone: bool) -> None:
            future = client.submit(
                _build, task, alone=alone, timeout_s=episode_timeout_s, version=vlapipe.__version__, pure=False
            )
            futures[future] = task, alone
            future.add_done_callback(lambda future: events.put((future, None)))

        def fetch(future: distributed.Future) -> None:
            record = asyncio.run_coroutine_threadsafe(
                client.gather(future, asynchronous=True), client.loop.asyncio_loop
            )
            record.add_done_callback(lambda record: events.put((future, record)))

        if scheduler is not None and client.run_on_scheduler(eval, _HAS_DASHBOARD):
            progress.say(f"dashboard: {client.dashboard_link}")
        waiting = iter(tasks)
        while True:
            room = _TASKS_A_THREAD * max(watch.num_threads(), 1) - len(futures)
            for task in itertools.islice(waiting, max(room, 0)):
                submit(task, alone=False)
            if not futures:
                return
            while finished and num_fetches < _MOST_FETCHES:
                num_fetches += 1
                fetch(finished.popleft())
            try:
                future, fetched = events.get(timeout=_IDLE_S)
            except queue.Empty:
                watch.look()
                continue
            if fetched is None:
                finished.append(future)
                continue
            num_fetches -= 1
            task, alone = futures.pop(future)
            record = _result(fetched, task, scheduler, alone=alone)
            future.release()
            if record is None:
                progress.say(f"workers died over shard {task.shard.index}: its episodes are read one at a time")
                submit(task, alone=True)
                continue
            progress.advance(len(task.shard.episodes))
            yield record


def _build(task: ShardTask, *, alone: bool, timeout_s: float, version: str) -> Record:
    """Build a shard in a worker; with ``alone``, first find the episodes over which workers die.

    Raises:
        UsageError: the worker has another vlapipe.
    """
    if version != vlapipe.__version__:
        raise UsageError(*_other_version(distributed.get_worker().address, f"has vlapipe {vlapipe.__version__}"))
    if alone:
        limit = distributed.get_worker().memory_manager.memory_limit or distributed.system.MEMORY_LIMIT
        limits = Limits(seconds=timeout_s, num_bytes=int(_SHARE_OF_MEMORY * limit))
        task = replace(task, harmful=find_harmful(task, limits))
    with ends_if_hung(timeout_s) as go_on:
        return build_shard(task, go_on)


def _other_version(worker: str, why: str) -> tuple[str, str]:
    return f"worker {worker} {why}", f"install vlapipe {vlapipe.__version__} where workers run"


@contextlib.contextmanager
def _client(num_workers: int, scheduler: str | None) -> Iterator[distributed.Client]:
    with contextlib.ExitStack() as stack:
        if scheduler is not None:
            try:
                client = distributed.Client(scheduler, timeout="10s")
            except (OSError, TimeoutError, ValueError) as error:
                raise UsageError(f"--scheduler {scheduler}: no answer: {error}", "is it running?") from None
        else:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="vlapipe-dask-"))
            stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": _MOST_DEATHS}))
            cluster = distributed.LocalCluster(
                n_workers=num_workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                local_directory=scratch,
                silence_logs=logging.CRITICAL,
            )
            stack.callback(cluster.close)
            client = distributed.Client(cluster)
        stack.callback(client.close)
        yield client


class _Watch:
    """Looks for workers that can take the tasks. ``fitting`` holds the addresses of these workers."""

    def __init__(
        self, client: distributed.Client, scheduler: str | None, say: Callable[[str], None], timeout_s: float
    ) -> None:
        self._client, self._say, self._timeout_s = client, say, timeout_s
        self._place = f"--scheduler {scheduler}" if scheduler is not None else "this machine"
        self._address = scheduler
        self._idle_since: float | None = None
        self._said = ""
        self._silent: set[str] = set()
        self._num_threads, self._counted_at = 0, -math.inf
        self.fitting: set[str] = set()

    def wait_for_worker(self) -> None:
        """Return once a worker can take the tasks.

        Raises:
            UsageError: the scheduler or a worker has no vlapipe, or another one.
            StoppedError: no worker could take the tasks for the timeout.
        """
        self._require_scheduler()
        while not self.look():
            time.sleep(_ASK_S)

    def look(self) -> bool:
        """Return True if a worker can take the tasks. If none can, tell the user the reason once.

        Raises:
            UsageError: a worker has no vlapipe, or another one.
            StoppedError: no worker could take the tasks for the timeout, or the scheduler was lost.
        """
        present = self._count()
        self.fitting &= present
        self._silent &= present
        # To wait for an answer again and again would leave the others without tasks.
        self._silent |= self._ask(present - self.fitting - (self._silent if self.fitting else set()))
        if self.fitting:
            self._idle_since = None
            return True
        now = time.monotonic()
        self._idle_since = now if self._idle_since is None else self._idle_since
        problem, cure = self._why_idle()
        left = self._timeout_s - (now - self._idle_since)
        if left <= 0:
            raise StoppedError(f"{self._place}: {problem}", f"{cure}; {_GO_ON}")
        if problem != self._said:
            self._said = problem
            self._say(f"{self._place}: {problem}; waiting {left:.0f} s for one ({cure})")
        return False

    def num_threads(self) -> int:
        """Return how many threads the cluster's workers have, as it was at most a second ago.

        Raises:
            StoppedError: the scheduler was lost.
        """
        if time.monotonic() - self._counted_at > _COUNT_S:
            self._count()
        return self._num_threads

    def _count(self) -> set[str]:
        """Count the threads. Returns the addresses of all workers."""
        try:
            threads = self._client.nthreads()
        except (OSError, TimeoutError, ValueError) as error:  # the client is closed, or is about to be closed
            raise _lost(self._place, error) from None
        self._num_threads, self._counted_at = sum(threads.values()), time.monotonic()
        return set(threads)

    def _why_idle(self) -> tuple[str, str]:
        if self._silent:
            return f"worker {min(self._silent)} does not answer", "see its log"
        return "no worker", "free some memory" if self._address is None else f"dask worker {self._address}"

    def _ask(self, addresses: set[str]) -> set[str]:
        """Find the workers that can take tasks. Workers of our own cluster always can. Returns those without an answer.

        Raises:
            UsageError: a worker has no vlapipe, or another one.
        """
        if self._address is None:
            self.fitting |= addresses
            return set()
        if not addresses:
            return set()
        answers = _within(
            _IDLE_S if self.fitting else _ANSWER_S,
            lambda: self._client.run(eval, _VERSION, workers=sorted(addresses), on_error="return"),
        )
        silent = set()
        for address in sorted(addresses):
            answer = (answers or {}).get(address)
            why = _why_unfit(answer)
            if answer is None or isinstance(answer, OSError):
                silent.add(address)
            elif why:
                problem, cure = _other_version(address, why)
                raise UsageError(f"{self._place}: {problem}", cure)
            else:
                self.fitting.add(address)
                self._silent.discard(address)
        return silent

    def _require_scheduler(self) -> None:
        """Raise an error if the scheduler lacks this version of vlapipe: the scheduler unpickles tasks too."""
        if self._address is None:
            return
        try:
            version = self._client.run_on_scheduler(eval, _VERSION)
        except ImportError as error:
            version = error
        why = _why_unfit(version)
        if why:
            cure = f"install vlapipe {vlapipe.__version__} where it runs, and start it again"
            raise UsageError(f"{self._place}: the scheduler {why}", cure)


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """Return the result of ``call``, or ``None`` if the call takes longer (for example because a worker is stopped)."""
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError, RuntimeError):
            answer.put(call())

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.get(timeout=seconds)
    except queue.Empty:
        return None


def _why_unfit(answer: object) -> str:
    """Return why a process cannot take tasks, judged by its answer to the version question; empty if it can."""
    if answer == vlapipe.__version__:
        return ""
    if isinstance(answer, Exception):
        return f"has no vlapipe: {answer}"
    return f"has vlapipe {answer}, this is {vlapipe.__version__}"


def _result(fetched: Future[Record], task: ShardTask, scheduler: str | None, *, alone: bool) -> Record | None:
    """Return a shard's record, or ``None`` if workers died over it and its episodes were not yet read alone."""
    number = task.shard.index
    try:
        return fetched.result()
    except (distributed.KilledWorker, MemoryError, OutOfMemoryError) as error:
        if not alone:
            return None
        cure = "it may need more memory: use fewer --workers or a smaller --shard-size"
        died = isinstance(error, distributed.KilledWorker)
        problem = "a worker died again and again" if died else "a worker has too little memory"
        raise StoppedError(f"{problem} over shard {number}", f"{cure}; {_GO_ON}") from None
    except (distributed.CancelledError, CommClosedError) as error:
        raise _lost(f"--scheduler {scheduler}" if scheduler is not None else "this machine", error) from None
    except ImportError as error:
        cure = f"install vlapipe {vlapipe.__version__} where workers run"
        raise UsageError(f"a worker cannot read shard {number}: {error}", cure) from None


def _lost(place: str, error: BaseException) -> StoppedError:
    said = (str(error).splitlines() or [type(error).__name__])[-1]
    return StoppedError(f"{place}: the scheduler was lost: {said}", f"start it again; {_GO_ON}")
