"""Ends every rank within seconds of one that failed or was lost, whatever it waits for and whoever started it.

A thread of each rank meets the others twice a second, over connections that nothing else uses. Each brings a word:
it runs, it has finished, or it failed and with which exit code; the failure of the lowest rank counts. If a process
ends without a word, its connections close, and the others notice at once. No time-out decides: a busy rank is waited
for, however long it takes.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch._C._distributed_c10d import AllreduceOptions, PrefixStore, ProcessGroupGloo, ReduceOp, Store

from vlapipe.schemas.errors import StoppedError, VlapipeError
from vlapipe.schemas.surroundings import is_from_surroundings

__all__ = ["RankWatch", "exit_code_of"]

_BEAT_S = 0.5
_WAITS = timedelta(days=7)  # for a busy rank's thread
_GRACE_S = 3.0  # that a rank has to end by itself after another one failed
_VERDICT_S = 10.0
_ROLL_CALL_S = 1.0
_FINISHED, _RUNNING, _FAILED = 2**62, 2**61, 256  # failed: _FAILED * rank + exit code, which is smaller
_LOST_CURE = "its machine's log may say why, often it was killed for its memory; --resume goes on"


@dataclass(frozen=True)
class _Ending:
    """Why all ranks end: ``rank`` failed with ``code``, or some were lost, and this one says so if ``lost`` is text."""

    code: int
    rank: int | None = None
    lost: str = ""

    def as_exception(self) -> BaseException:
        return StoppedError(self.lost, _LOST_CURE) if self.lost else SystemExit(self.code)


class RankWatch:
    """The thread of this rank; ``close`` it in the end."""

    def __init__(self, store: Store, rank: int, world_size: int, *, start_within: timedelta) -> None:
        """Meet the other ranks; a collective.

        Raises:
            RuntimeError: they did not come.
        """
        self._store, self._rank, self._world_size = store, rank, world_size
        self._group: ProcessGroupGloo | None = ProcessGroupGloo(
            PrefixStore("vlapipe/watch", store), rank, world_size, start_within
        )
        self._word = _RUNNING
        self._wake, self._known, self._leaves = threading.Event(), threading.Event(), threading.Event()
        self._ending: _Ending | None = None
        self._thread = threading.Thread(target=self._run, name="vlapipe-rank-watch", daemon=True)
        self._thread.start()

    def tell_failure(self, error: BaseException) -> None:
        """Let the other ranks know that this one ends by ``error``."""
        if self._word >= _RUNNING:
            self._word = _FAILED * self._rank + exit_code_of(error)
        self._wake.set()

    def leaves_by_itself(self) -> None:
        """Say that this rank knows how to end, and needs no help to."""
        self._leaves.set()

    def ends_with(self, error: BaseException) -> BaseException:
        """What this rank, which ``error`` has stopped, is to end with: its own error, or that of another rank."""
        self.tell_failure(error)
        self._known.wait(_VERDICT_S)
        if self._leaves.is_set() or self._ending is None or self._ending.rank == self._rank:
            return error
        if isinstance(error, VlapipeError) and self._ending.rank is None:
            return error  # it knows better than that some rank was lost
        return self._ending.as_exception()

    def finish(self) -> None:
        """Wait until every rank has finished.

        Raises:
            SystemExit: another rank failed instead.
            StoppedError: a rank was lost.
        """
        self._word = _FINISHED
        self._wake.set()
        self._known.wait()
        if self._ending is not None:
            raise self._ending.as_exception()

    def close(self) -> None:
        """Let go of the other ranks."""
        self._leaves.set()
        if self._known.wait(_VERDICT_S):
            self._thread.join()

    def _run(self) -> None:
        word, broken = _RUNNING, False
        while word == _RUNNING and not broken:
            if self._word == _RUNNING:
                self._wake.wait(_BEAT_S)
                self._wake.clear()
            try:
                word = self._meet()
            except RuntimeError:
                broken = True
        # This closes the connections: a rank that waits for this one notices then, and so on.
        self._group = None
        if broken:
            self._ending = self._roll_call()
        elif word < _RUNNING:
            rank, code = divmod(word, _FAILED)
            self._ending = _Ending(code, rank)
        self._known.set()
        if self._ending is not None and self._ending.rank != self._rank:
            self._end_process_unless_it_ends(self._ending)

    def _meet(self) -> int:
        assert self._group is not None
        options = AllreduceOptions()
        options.reduceOp, options.timeout = ReduceOp(ReduceOp.MIN), _WAITS
        word = torch.tensor([self._word])
        self._group.allreduce([word], options).wait()  # type: ignore[attr-defined]
        return int(word)

    def _roll_call(self) -> _Ending:
        """Who is still there, after some rank ended without a word; the first of them speaks."""
        here = [f"vlapipe/here/{rank}" for rank in range(self._world_size)]
        try:
            self._store.set(here[self._rank], "")
            self._store.check([here[self._rank]])
        except RuntimeError:
            return _Ending(StoppedError.exit_code, lost="rank 0 was lost: its process ended without a word")
        time.sleep(_ROLL_CALL_S)
        try:
            present = [rank for rank in range(self._world_size) if self._store.check([here[rank]])]
        except RuntimeError:  # rank 0 has spoken and gone
            return _Ending(StoppedError.exit_code)
        if present[0] != self._rank:
            return _Ending(StoppedError.exit_code)
        absent = [str(rank) for rank in range(self._world_size) if rank not in present]
        if not absent:
            return _Ending(StoppedError.exit_code, lost="the connections between the ranks broke")
        were = "rank {} was lost: its process" if len(absent) == 1 else "ranks {} were lost: their processes"
        return _Ending(StoppedError.exit_code, lost=were.format(", ".join(absent)) + " ended without a word")

    def _end_process_unless_it_ends(self, ending: _Ending) -> None:
        """The main thread may wait in a collective for a rank that will never come, where nothing else reaches it."""
        if self._leaves.wait(_GRACE_S):
            return
        if ending.lost:
            sys.stderr.write(f"vlapipe: {ending.as_exception()}\n")
            sys.stderr.flush()
        os._exit(ending.code)


def exit_code_of(error: BaseException) -> int:
    """What the process ends with after ``error``; never 0, which would be no failure."""
    if isinstance(error, VlapipeError):
        return error.exit_code
    if is_from_surroundings(error):
        return StoppedError.exit_code
    if isinstance(error, SystemExit):
        return (error.code % 256 or 1) if isinstance(error.code, int) else 1
    return 130 if isinstance(error, KeyboardInterrupt) else 1
