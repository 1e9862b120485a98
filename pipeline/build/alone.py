"""Finds the episodes that end, block or overfill the process that reads them. A shard comes here when its workers died.

The episodes are read one after another in a process of its own, which the caller watches. Run as a program, this module
is that process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import pickle
import resource
import selectors
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from vlapipe.pipeline.build.build import ShardTask, build_shard
from vlapipe.pipeline.discover.discovery import RawEpisode
from vlapipe.schemas.errors import OutOfMemoryError, StoppedError

__all__ = ["Limits", "find_harmful"]

Reason = tuple[str, str]  # the code of a finding, and what was found

_TRIES = 2  # an episode is set aside if it ends so many processes of its own
_START_S = 120.0  # that the imports of a new process may take
_READY, _READ, _MEMORY = "ready", "read", "memory"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one episode may take: seconds, and bytes of memory."""

    seconds: float
    num_bytes: int


def find_harmful(task: ShardTask, limits: Limits) -> dict[str, Reason]:
    """Read a shard's episodes in other processes. Returns those that end them: code and cause by the episode's id.

    Raises:
        StoppedError: the surroundings stop the reading, and not an episode.
    """
    harmful: dict[str, Reason] = {}
    left = list(zip(task.shard.episodes, task.shard.splits, strict=True))
    while left:
        num_read, reason = _read_apart(task, left, limits)
        left = left[num_read:]
        if not left:
            break
        suspect, *left = left
        for _ in range(_TRIES - 1):
            num_read, reason = _read_apart(task, [suspect], limits)
        if not num_read:
            harmful[suspect[0].id] = reason
    return harmful


def _read_apart(task: ShardTask, episodes: list[tuple[RawEpisode, str]], limits: Limits) -> tuple[int, Reason]:
    """Read episodes in one process, until all are read or it ends. Returns how many were read, and why it ended."""
    shards = [replace(task.shard, episodes=(raw,), splits=(split,)) for raw, split in episodes]
    tasks = [replace(task, shard=shard, place=None, num_threads=1) for shard in shards]
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdout, selectors.EVENT_READ)
            with contextlib.suppress(BrokenPipeError):  # the process has ended, as is seen below
                pickle.dump((tasks, limits), process.stdin)  # which stays open: its end tells that this process died
                process.stdin.flush()
            return _watch(process, waiting, limits)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def _watch(process: subprocess.Popen[bytes], waiting: selectors.BaseSelector, limits: Limits) -> tuple[int, Reason]:
    assert process.stdout is not None
    said: list[str] = []
    rest = b""
    deadline = time.monotonic() + max(_START_S, limits.seconds)
    while True:
        if not waiting.select(max(0.0, deadline - time.monotonic())):
            if not said:
                raise StoppedError("a process that reads episodes does not start", "end other programs")
            return len(said) - 1, ("episode.hangs", f"nothing after {limits.seconds:g} s")
        data = os.read(process.stdout.fileno(), 4096)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        said += [line.decode() for line in lines]
        deadline = time.monotonic() + limits.seconds
    code = process.wait()
    if not said:
        raise StoppedError(f"a process that reads episodes does not start: {_cause(code)}", "see its machine's log")
    num_read = said.count(_READ)
    last = said[-1]
    if last == _MEMORY:
        return num_read, ("episode.memory", f"more than {limits.num_bytes / 1e6:,.0f} MB")
    if last not in (_READY, _READ):
        raise StoppedError(*json.loads(last))
    return num_read, ("episode.crashes", _cause(code))


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _main() -> None:
    """Read the episodes of the tasks on stdin, and say a line after each."""
    tasks, limits = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
    threading.Thread(target=_end_with_parent, args=(sys.stdin.fileno(),), daemon=True).start()
    _limit_memory(limits.num_bytes)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with Path(os.devnull).open("w") as nowhere:
        _say(_READY)
        for task in tasks:
            # If Python's interpreter is blocked, no thread sees that the parent has died.
            faulthandler.dump_traceback_later(2 * limits.seconds, exit=True, file=nowhere)
            try:
                build_shard(task)
            except (MemoryError, OutOfMemoryError):
                _say(_MEMORY)
                return
            except StoppedError as error:
                _say(json.dumps([error.problem, error.cure]))
                return
            _say(_READ)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _limit_memory(num_bytes: int) -> None:
    """Let this process take so many bytes more than it has now. Only Linux has such a limit."""
    try:
        has = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    except FileNotFoundError:
        return
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = has + num_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (allowed if most < 0 else min(allowed, most), most))


def _end_with_parent(pipe: int) -> None:
    os.read(pipe, 1)  # not through Python's buffer, whose lock would hold up the end of this process
    os._exit(1)


if __name__ == "__main__":
    _main()
