"""Ends all ranks within seconds after one rank failed or was lost, also ranks that wait in a collective.

A thread of each rank reduces a status with the other ranks twice a second, over connections of its own. The status
says: running, finished, or failed with an exit code. If several ranks fail, the failure of the lowest rank counts. If a
process ends without a status, its connections close and the other ranks notice at once. There is no time-out for a
busy rank: the other ranks wait for it.
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
_WAITS = timedelta(days=7)  # time-out of the reduce: the thread of a busy rank may come late
_GRACE_S = 3.0  # time that a rank has to end by itself after another rank failed
_VERDICT_S = 10.0
_ROLL_CALL_S = 1.0
# A reduce takes the minimum. The status of a failed rank is _FAILED * rank + exit code, which is the smallest status.
_FINISHED, _RUNNING, _FAILED = 2**62, 2**61, 256
_LOST_CURE = "its machine's log may say why, often it was killed for its memory; --resume goes on"


@dataclass(frozen=True)
class _Ending:
    """Why all ranks end: ``rank`` failed with ``code``, or ranks were lost (``rank`` is None).

    ``lost`` is the message about lost ranks. Only one rank has a message; on the others ``lost`` is empty.
    """

    code: int
    rank: int | None = None
    lost: str = ""

    def as_exception(self) -> BaseException:
        return StoppedError(self.lost, _LOST_CURE) if self.lost else SystemExit(self.code)


class RankWatch:
    """The watching thread of this rank. Call ``close`` at the end."""

    def __init__(self, store: Store, rank: int, world_size: int, *, start_within: timedelta) -> None:
        """Connect to the other ranks and start the thread; a collective.

        Raises:
            RuntimeError: the other ranks did not connect within ``start_within``.
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
        word, broken = _RUNNING, False
        while word == _RUNNING and not broken:
            if self._word == _RUNNING:
                self._wake.wait(_BEAT_S)
                self._wake.clear()
            try:
                word = self._meet()
            except RuntimeError:
                broken = True
        # Dropping the group closes the connections, so every rank that waits for this rank notices the end.
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
        """Find the lost ranks after a rank ended without a status. Only the lowest living rank gets a message."""
        here = [f"vlapipe/here/{rank}" for rank in range(self._world_size)]
        try:
            self._store.set(here[self._rank], "")
            self._store.check([here[self._rank]])
        except RuntimeError:
            return _Ending(StoppedError.exit_code, lost="rank 0 was lost: its process ended without a word")
        time.sleep(_ROLL_CALL_S)
        try:
            present = [rank for rank in range(self._world_size) if self._store.check([here[rank]])]
        except RuntimeError:  # rank 0, which hosts the store, has printed its message and ended
            return _Ending(StoppedError.exit_code)
        if present[0] != self._rank:
            return _Ending(StoppedError.exit_code)
        absent = [str(rank) for rank in range(self._world_size) if rank not in present]
        if not absent:
            return _Ending(StoppedError.exit_code, lost="the connections between the ranks broke")
        were = "rank {} was lost: its process" if len(absent) == 1 else "ranks {} were lost: their processes"
        return _Ending(StoppedError.exit_code, lost=were.format(", ".join(absent)) + " ended without a word")

    def _end_process_unless_it_ends(self, ending: _Ending) -> None:
        """End the process if the main thread does not. It may wait in a collective that nothing else can interrupt."""
        if self._leaves.wait(_GRACE_S):
            return
        if ending.lost:
            sys.stderr.write(f"vlapipe: {ending.as_exception()}\n")
            sys.stderr.flush()
        os._exit(ending.code)


def exit_code_of(error: BaseException) -> int:
    """Returns the exit code of a process that ends because of ``error``. The code is never 0 (success)."""
    if isinstance(error, VlapipeError):
        return error.exit_code
    if is_from_surroundings(error):
        return StoppedError.exit_code
    if isinstance(error, SystemExit):
        return (error.code % 256 or 1) if isinstance(error.code, int) else 1
    return 130 if isinstance(error, KeyboardInterrupt) else 1
