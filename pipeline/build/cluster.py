"""Runs shard tasks on a Dask cluster, one future a shard, in worker processes of our own or of a named scheduler.

A cluster that this module starts listens on loopback only and has no dashboard. If no worker can take the tasks, the
user is told at once, and the run stops after a timeout. Shards that are finished by then are kept for the next run.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import distributed

import vlapipe
from vlapipe.pipeline.build.build import ShardTask, build_shard
from vlapipe.pipeline.build.record import Record
from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.schemas.errors import StoppedError, UsageError

__all__ = ["run_on_dask"]

_IDLE_S = 2.0  # seconds without a finished shard before the workers are checked
_ASK_S = 1.0  # seconds between two checks while the run waits for the first worker
_ANSWER_S = 5.0  # seconds that workers may take to import vlapipe and answer
# The version is asked through a built-in function, so that a worker without vlapipe can answer too.
_VERSION = "__import__('vlapipe.pipeline.build.build').__version__"
_GO_ON = "the same command then goes on"


def run_on_dask(
    tasks: list[ShardTask], progress: Progress, *, num_workers: int, scheduler: str | None, timeout_s: float
) -> Iterator[Record]:
    """Yield each task's record as it finishes, in any order.

    Args:
        tasks: one task a shard.
        progress: counts the episodes of finished tasks, and shows what the run waits for.
        num_workers: number of processes to start if ``scheduler`` is ``None``.
        scheduler: the address of a running Dask scheduler.
        timeout_s: how long the cluster may have no worker that can take the tasks.

    Raises:
        UsageError: the scheduler cannot be reached.
        StoppedError: no worker could take the tasks for ``timeout_s``, workers died repeatedly over one shard, or the
            scheduler was lost.
    """
    with _client(min(num_workers, len(tasks)), scheduler) as client:
        watch = _Watch(client, scheduler, progress.say, timeout_s)
        watch.wait_for_worker()
        finished: queue.SimpleQueue[distributed.Future] = queue.SimpleQueue()
        only = {"workers": sorted(watch.fitting), "allow_other_workers": False} if watch.has_unfit else {}
        futures = {client.submit(build_shard, task, pure=False, **only): task for task in tasks}
        for future in futures:
            future.add_done_callback(finished.put)
        for _ in tasks:
            future = _next(finished, watch)
            task = futures.pop(future)
            record = _result(future, task, scheduler)
            progress.advance(len(task.shard.episodes))
            future.release()
            yield record


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
        self._unfit: dict[str, str] = {}  # by the worker's address, why the worker cannot take tasks
        self._idle_since: float | None = None
        self._said = ""
        self.fitting: set[str] = set()

    @property
    def has_unfit(self) -> bool:
        """True if some workers cannot take the tasks, so that tasks must be kept from them."""
        return bool(self._unfit)

    def wait_for_worker(self) -> None:
        """Return once a worker can take the tasks.

        Raises:
            StoppedError: no worker could take the tasks for the timeout, or the scheduler cannot.
        """
        self._require_scheduler()
        while not self.look():
            time.sleep(_ASK_S)

    def look(self) -> bool:
        """Return True if a worker can take the tasks. If none can, tell the user the reason once.

        Raises:
            StoppedError: no worker could take the tasks for the timeout, or the scheduler was lost.
        """
        try:
            present = set(self._client.nthreads())
        except (OSError, TimeoutError, ValueError) as error:  # the client is closed, or is about to be closed
            raise _lost(self._place, error) from None
        self.fitting &= present
        self._unfit = {address: why for address, why in self._unfit.items() if address in present}
        self._ask(present - self.fitting)
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

    def _why_idle(self) -> tuple[str, str]:
        if not self._unfit:
            return "no worker", "free some memory" if self._address is None else f"dask worker {self._address}"
        address, why = next(iter(self._unfit.items()))
        count = len(self._unfit)
        more = f" (one of {count} that cannot be used)" if count > 1 else ""
        return f"worker {address} {why}{more}", f"install vlapipe {vlapipe.__version__} where workers run"

    def _ask(self, addresses: set[str]) -> None:
        """Sort workers into those that can take tasks and those that cannot. Workers of our own cluster always can."""
        if self._address is None:
            self.fitting |= addresses
            return
        if not addresses:
            return
        answers = _within(
            _ANSWER_S, lambda: self._client.run(eval, _VERSION, workers=sorted(addresses), on_error="return")
        )
        for address in addresses:
            why = _why_unfit((answers or {}).get(address))
            if why:
                self._unfit[address] = why
            else:
                self._unfit.pop(address, None)
                self.fitting.add(address)

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
            raise StoppedError(f"{self._place}: the scheduler {why}", f"{cure}; {_GO_ON}")


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
    if answer is None:
        return "does not answer"
    if isinstance(answer, Exception):
        return f"has no vlapipe: {answer}"
    return f"has vlapipe {answer}, this is {vlapipe.__version__}"


def _next(finished: queue.SimpleQueue[distributed.Future], watch: _Watch) -> distributed.Future:
    while True:
        try:
            return finished.get(timeout=_IDLE_S)
        except queue.Empty:
            watch.look()


def _result(future: distributed.Future, task: ShardTask, scheduler: str | None) -> Record:
    number = task.shard.index
    try:
        record: Record = future.result()
    except distributed.KilledWorker:
        cure = "it may need more memory: use fewer --workers or a smaller --shard-size"
        raise StoppedError(f"a worker died again and again over shard {number}", f"{cure}; {_GO_ON}") from None
    except distributed.CancelledError as error:
        raise _lost(f"--scheduler {scheduler}" if scheduler is not None else "this machine", error) from None
    except ImportError as error:
        cure = f"install vlapipe {vlapipe.__version__} where workers run"
        raise StoppedError(f"a worker cannot read shard {number}: {error}", f"{cure}; {_GO_ON}") from None
    return record


def _lost(place: str, error: BaseException) -> StoppedError:
    said = (str(error).splitlines() or [type(error).__name__])[-1]
    return StoppedError(f"{place}: the scheduler was lost: {said}", f"start it again; {_GO_ON}")
