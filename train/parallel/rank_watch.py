"""Ends all ranks soon after one rank failed, was lost or hangs, also ranks that wait in a collective.

A thread of each rank exchanges a row with the other ranks twice a second, over connections of its own. The row's first
number says: running, finished, or failed with an exit code. If several ranks fail, the failure of the lowest rank
counts. The rest of the row says what the rank's main thread does, so that every rank sees which rank hangs
(``activity.py``). If a process ends without a status, its connections close and the other ranks notice at once. If a
process is stopped, or its machine or the network is gone, its row does not come, and the exchange times out.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch._C._distributed_c10d import AllgatherOptions, PrefixStore, ProcessGroupGloo, Store

from vlapipe.schemas.errors import StoppedError, VlapipeError
from vlapipe.schemas.surroundings import is_from_surroundings
from vlapipe.train.parallel.activity import Activity, hanging_ranks, seconds_kept_waiting

__all__ = ["RankWatch", "exit_code_of"]

_BEAT_S = 0.5
_FOR_EVER = timedelta(days=7)
_GRACE_S = 3.0  # time that a rank has to end by itself after another rank failed
_VERDICT_S = 10.0
_NOTICE_S = 60.0  # after so long, and then twice as long, a rank says that the others wait for it
_ROLL_CALL_S = 1.0
_LATE_S = 5.0  # so much later a rank of a busy machine may answer the roll call
_HEARD_S = 3.0  # so long rank 0 waits until the others know who answered
_STORE_S = 5.0  # time that the store has to answer; on a lost machine it never does
# The smallest status counts. The status of a failed rank is _FAILED * rank + exit code.
_FINISHED, _RUNNING, _FAILED = 2**62, 2**61, 256
_LOST_CURE = "its machine's log may say why, often it was killed for its memory; --resume goes on"
_SILENT_CURE = "check its machine and the network; --resume goes on, --hang-timeout-s sets the seconds"
_HANGS_CURE = "its stack stands above; --resume goes on, --hang-timeout-s sets the seconds, 0 waits for ever"
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Ending:
    """Why all ranks end: ``rank`` failed with ``code``, or ranks were lost or hang (``rank`` is None).

    ``said`` is the message about these ranks. Only one rank has a message; on the others ``said`` is empty.
    """

    code: int
    rank: int | None = None
    said: str = ""
    cure: str = ""

    def as_exception(self) -> BaseException:
        return StoppedError(self.said, self.cure) if self.said else SystemExit(self.code)


class RankWatch:
    """The watching thread of this rank. Call ``close`` at the end."""

    def __init__(
        self, store: Store, rank: int, world_size: int, *, start_within: timedelta, hang_timeout_s: float
    ) -> None:
        """Connect to the other ranks and start the thread; a collective.

        Args:
            store: shared by all ranks.
            rank: number of this rank.
            world_size: number of ranks.
            start_within: time that all ranks have to connect.
            hang_timeout_s: seconds that a rank may hang or be silent before all ranks end; 0 for any time.

        Raises:
            RuntimeError: the other ranks did not connect within ``start_within``.
        """
        self.activity = Activity()
        self._store, self._rank, self._world_size = store, rank, world_size
        self._limit_s = hang_timeout_s or math.inf
        self._patience = timedelta(seconds=hang_timeout_s) if hang_timeout_s else _FOR_EVER
        self._group: ProcessGroupGloo | None = ProcessGroupGloo(
            PrefixStore("vlapipe/watch", store), rank, world_size, start_within
        )
        self._nodes = [node for [node] in self._gather([_own_node(rank)], start_within)]
        self._word = _RUNNING
        self._wake, self._known, self._leaves = threading.Event(), threading.Event(), threading.Event()
        self._ending: _Ending | None = None
        self._notice_s = _NOTICE_S
        self._thread = threading.Thread(target=self._run, name="vlapipe-rank-watch", daemon=True)
        self._thread.start()

    def tell_failure(self, error: BaseException) -> None:
        """Tell the other ranks that this rank ends because of ``error``."""
        if self._word >= _RUNNING:
            self._word = _FAILED * self._rank + exit_code_of(error)
        self._wake.set()

    def leaves_by_itself(self) -> None:
        """Declare that this rank ends by itself, so the thread does not end the process."""
        self._leaves.set()

    def ends_with(self, error: BaseException) -> BaseException:
        """Returns the exception that this rank must end with: its own ``error``, or one for another rank's failure."""
        self.tell_failure(error)
        self._known.wait(_VERDICT_S)
        if self._leaves.is_set() or self._ending is None or self._ending.rank == self._rank:
            return error
        if isinstance(error, VlapipeError) and self._ending.rank is None:
            return error  # this rank's error says more than the message that a rank was lost
        return self._ending.as_exception()

    def finish(self) -> None:
        """Wait until every rank has finished.

        Raises:
            SystemExit: another rank failed.
            StoppedError: a rank was lost.
        """
        self._word = _FINISHED
        self._wake.set()
        self._known.wait()
        if self._ending is not None:
            raise self._ending.as_exception()

    def close(self) -> None:
        """Disconnect from the other ranks. This rank no longer ends when another rank fails."""
        self._leaves.set()
        if self._known.wait(_VERDICT_S):
            self._thread.join()

    def _run(self) -> None:
        word, hanging, broken, began = _RUNNING, list[int](), False, time.monotonic()
        while word == _RUNNING and not hanging and not broken:
            began = time.monotonic()
            if self._word == _RUNNING:
                self._wake.wait(_BEAT_S)
                self._wake.clear()
            try:
                rows = self._gather([self._word, *self.activity.row()], self._patience)
            except RuntimeError:
                broken = True
            else:
                word = min(row[0] for row in rows)
                hanging = hanging_ranks([row[1:] for row in rows], self._limit_s)
                self._say_that_others_wait(seconds_kept_waiting([row[1:] for row in rows], self._rank))
        if hanging and word == _RUNNING and self._rank in hanging:
            self._end_hanging_process(hanging)
        # Dropping the group closes the connections, so every rank that waits for this rank notices the end.
        self._group = None
        if broken:
            self._ending = self._roll_call(waited_s=time.monotonic() - began)
        elif word < _RUNNING:
            rank, code = divmod(word, _FAILED)
            self._ending = _Ending(code, rank)
        elif word == _RUNNING:
            self._ending = _Ending(StoppedError.exit_code)
        self._known.set()
        if self._ending is not None and self._ending.rank != self._rank:
            self._end_process_unless_it_ends(self._ending)

    def _gather(self, row: list[int], patience: timedelta) -> list[list[int]]:
        """Returns the rows of all ranks; a collective."""
        assert self._group is not None
        options = AllgatherOptions()
        options.timeout = patience
        mine = torch.tensor(row)
        rows = [torch.empty_like(mine) for _ in range(self._world_size)]
        self._group.allgather([rows], [mine], options).wait()  # type: ignore[attr-defined]
        return [other.tolist() for other in rows]

    def _say_that_others_wait(self, seconds: float) -> None:
        if not seconds:
            self._notice_s = _NOTICE_S
        elif seconds >= self._notice_s:
            self._notice_s *= 2
            place = self.activity.place()
            sys.stderr.write(
                f"the other ranks have waited for rank {self._rank} for {seconds:.0f} s: it is at {place}\n"
            )
            sys.stderr.flush()

    def _roll_call(self, waited_s: float) -> _Ending:
        """Find the lost ranks after the exchange broke. Only the lowest living rank, or that of a node, speaks."""
        silent = waited_s > self._limit_s / 2  # else a connection was closed, by the end of a process
        if waited_s > self._limit_s + _STORE_S:
            return self._lost([self._rank], silent)  # this process was stopped, and the others have ended
        try:
            self._ask(self._answer_roll_call)
        except RuntimeError:  # the store is on rank 0's node
            own, first = self._nodes[self._rank], self._nodes[0]
            speaks = self._rank == self._nodes.index(own)
            return self._lost([rank for rank, node in enumerate(self._nodes) if node == first], silent, speaks)
        began, present = time.monotonic(), list[int]()
        while len(present) < self._world_size - 1 and time.monotonic() - began < _LATE_S:
            time.sleep(_ROLL_CALL_S)
            try:
                present = self._ask(lambda: [r for r in range(self._world_size) if self._store.check([_here(r)])])
            except RuntimeError:  # rank 0, which hosts the store, has printed its message and ended
                return _Ending(StoppedError.exit_code)
        self._let_all_hear(present)
        absent = [rank for rank in range(self._world_size) if rank not in present]
        return self._lost(absent, silent, speaks=self._rank == present[0])

    def _let_all_hear(self, present: list[int]) -> None:
        """Say that this rank knows who is present. Rank 0 waits for the others, because the store ends with it."""
        began = time.monotonic()
        with contextlib.suppress(RuntimeError):  # a rank that is later still finds the store gone
            if self._rank:
                self._ask(lambda: self._store.set(_heard(self._rank), ""))
                return
            others = [_heard(rank) for rank in present if rank]
            while others and time.monotonic() - began < _HEARD_S and not self._ask(lambda: self._store.check(others)):
                time.sleep(0.05)

    def _answer_roll_call(self) -> None:
        self._store.set(_here(self._rank), "")
        self._store.check([_here(self._rank)])

    def _ask(self, question: Callable[[], _T]) -> _T:
        """Returns the store's answer.

        Raises:
            RuntimeError: the store is gone, or does not answer.
        """
        answers: queue.SimpleQueue[_T | RuntimeError] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put(question())
            except RuntimeError as error:
                answers.put(error)

        threading.Thread(target=ask, name="vlapipe-roll-call", daemon=True).start()
        try:
            answer = answers.get(timeout=_STORE_S)
        except queue.Empty:
            raise RuntimeError("no answer") from None
        if isinstance(answer, RuntimeError):
            raise answer
        return answer

    def _lost(self, ranks: list[int], silent: bool, speaks: bool = True) -> _Ending:
        if not speaks:
            return _Ending(StoppedError.exit_code)
        if not ranks:
            return _Ending(StoppedError.exit_code, None, "the connections between the ranks broke", _SILENT_CURE)
        were = f"{_named(ranks)} {'was' if len(ranks) == 1 else 'were'} lost"
        if silent:
            why = f"no sign of life for {self._limit_s:g} s (stopped, or the machine or its network is gone)"
        else:
            why = f"{'its process' if len(ranks) == 1 else 'their processes'} ended without a word"
        return _Ending(StoppedError.exit_code, None, f"{were}: {why}", _SILENT_CURE if silent else _LOST_CURE)

    def _end_hanging_process(self, hanging: list[int]) -> None:
        """End this process, whose main thread nothing else can interrupt. The lowest rank that hangs speaks for all."""
        sys.stderr.write(f"rank {self._rank} hangs here:\n{self.activity.stack()}")
        if self._rank == hanging[0]:
            verb = "hangs" if len(hanging) == 1 else "hang"
            said = f"{_named(hanging)} {verb}: {self.activity.phase}, at {self.activity.place()}"
            sys.stderr.write(f"vlapipe: {StoppedError(said, _HANGS_CURE)}\n")
        sys.stderr.flush()
        os._exit(StoppedError.exit_code)

    def _end_process_unless_it_ends(self, ending: _Ending) -> None:
        """End the process if the main thread does not. It may wait in a collective that nothing else can interrupt."""
        if self._leaves.wait(_GRACE_S):
            return
        if ending.said:
            sys.stderr.write(f"vlapipe: {ending.as_exception()}\n")
            sys.stderr.flush()
        os._exit(ending.code)


def _own_node(rank: int) -> int:
    """Returns the number of this machine among those that torchrun joined, or else a number of this rank alone."""
    return int(os.environ.get("GROUP_RANK", -1 - rank))


def _here(rank: int) -> str:
    return f"vlapipe/here/{rank}"


def _heard(rank: int) -> str:
    return f"vlapipe/heard/{rank}"


def _named(ranks: list[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"


def exit_code_of(error: BaseException) -> int:
    """Returns the exit code of a process that ends because of ``error``. The code is never 0 (success)."""
    if isinstance(error, VlapipeError):
        return error.exit_code
    if is_from_surroundings(error):
        return StoppedError.exit_code
    if isinstance(error, SystemExit):
        return (error.code % 256 or 1) if isinstance(error.code, int) else 1
    return 130 if isinstance(error, KeyboardInterrupt) else 1
