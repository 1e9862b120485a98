"""Locks a run's folder with a lock file, also against runs on other machines that share the folder over a network.

A kernel lock works on one machine, but many network file systems do not pass it on. So the folder also has a lock file,
which only one run can create. The file names the run's machine and process. The run touches the file while it lives.
If the run was killed on this machine, the next run takes over at once. If the run is on another machine, the next run
takes over after the file was not touched for two minutes. File times are compared only with other file times, never
with this machine's clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vlapipe.pipeline.shards.format.atomic import TEMP_PREFIX, temporary_file
from vlapipe.schemas.errors import UsageError

__all__ = ["LOCK_FILE", "held_by_this_run"]

LOCK_FILE = ".vlapipe-run.lock"
_BEAT_S = 15.0
_SILENT_S = 120.0  # long, because a run on another machine may be suspended or write slowly


@contextlib.contextmanager
def held_by_this_run(folder: Path, say: Callable[[str], None], *, alone_here: bool) -> Iterator[None]:
    """Hold the lock file in ``folder`` for the duration of the block.

    ``alone_here``: whether this process has the kernel's exclusive lock on the folder.

    Raises:
        UsageError: another run holds the lock file.
        OSError: the lock file cannot be written.
    """
    path = folder / LOCK_FILE
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%F %T"), "kernel": _kernel()}
    mine = json.dumps({**owner, "id": os.urandom(8).hex()})
    while not _created(path, mine):
        _take_away_if_left(path, say, alone_here=alone_here)
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, ended), name="vlapipe-run-lock", daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        if _content(path) == mine:
            path.unlink(missing_ok=True)


def _kernel() -> str:
    """Returns an id of the running kernel. The id differs between machines, and after each boot."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


def _created(path: Path, text: str) -> bool:
    """Create the file with ``text``. Returns False if the file exists already."""
    with temporary_file(path.parent) as (temporary, file):
        file.write(text.encode())
        file.flush()
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links: another run may briefly read an empty file
            try:
                with path.open("x") as made:
                    made.write(text)
            except FileExistsError:
                return False
    return True


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _take_away_if_left(path: Path, say: Callable[[str], None], *, alone_here: bool) -> None:
    """Remove the lock file if its run is dead. If the run had another kernel, this function first waits for silence."""
    text = _content(path)
    if text is None:
        return
    try:
        owner = dict(json.loads(text))
    except (ValueError, TypeError):
        owner = {}
    if not (alone_here and owner.get("kernel") == _kernel()):
        _wait_until_silent(path, text, owner, say)
    stale = path.with_name(f"{TEMP_PREFIX}{os.getpid()}-{os.urandom(6).hex()}")
    if _content(path) != text:  # another run has taken over while this one looked at the clock
        return
    with contextlib.suppress(FileNotFoundError):
        path.rename(stale)
        if _content(stale) != text:  # another run has replaced the file meanwhile: restore that run's file
            with contextlib.suppress(FileExistsError):
                os.link(stale, path)
        stale.unlink()


def _wait_until_silent(path: Path, text: str, owner: dict[str, Any], say: Callable[[str], None]) -> None:
    """Return when the file has not been touched for two minutes, or has changed or gone.

    Raises:
        UsageError: the file was touched meanwhile, so its run lives.
    """
    who = f"host {owner.get('host', '?')}, process {owner.get('pid', '?')}, since {owner.get('since', '?')}"
    said, first = False, _touched(path)
    while _content(path) == text:
        touched = _touched(path)
        if touched is None or _now(path.parent) - touched > _SILENT_S:
            return
        if touched != first:
            raise UsageError(
                f"--out {path.parent}: another run is writing there: {who}",
                f"wait for it, or give another folder; if that run is dead, remove {path}",
            )
        if not said:
            said = True
            say(f"--out {path.parent}: was held by {who}; waiting up to {_SILENT_S:.0f} s for a sign of life")
        time.sleep(min(1.0, _BEAT_S / 4))


def _touched(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def _now(folder: Path) -> float:
    """Returns the current time by the clock of the folder's file system."""
    with temporary_file(folder) as (_, file):
        file.write(b".")
        file.flush()
        return os.fstat(file.fileno()).st_mtime


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(_BEAT_S):
        with contextlib.suppress(OSError):
            os.utime(path)
