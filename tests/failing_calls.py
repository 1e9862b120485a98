"""Runs work in a child process in which the k-th system call that opens, writes, syncs, renames or links a file fails.

The kernel asks the parent about each such call (seccomp's user notification, Linux 5.8 or newer on x86-64), so that the
calls of every library are seen. Calls outside the folders of the work are let through uncounted.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import select
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Ended", "can_fail_calls", "run_failing"]

# Of each system call: its name here, and which arguments are a path (with the folder's argument before it) or a file.
_CALLS = {
    1: ("write", None, 0),
    2: ("open", 0, None),
    18: ("write", None, 0),  # pwrite64
    20: ("write", None, 0),  # writev
    40: ("write", None, 0),  # sendfile
    74: ("fsync", None, 0),
    75: ("fsync", None, 0),  # fdatasync
    77: ("write", None, 0),  # ftruncate
    82: ("rename", 1, None),
    83: ("mkdir", 0, None),
    85: ("open", 0, None),  # creat
    86: ("link", 1, None),
    257: ("open", 1, 0),  # openat
    258: ("mkdir", 1, 0),
    264: ("rename", 3, 2),
    265: ("link", 3, 2),
    296: ("write", None, 0),  # pwritev
    316: ("rename", 3, 2),  # renameat2
    326: ("write", None, 2),  # copy_file_range
    437: ("open", 1, 0),  # openat2
}
_NOTIFY, _ALLOW = 0x7FC00000, 0x7FFF0000
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_QUESTION, _ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
_CONTINUE = 1
_HERE = 0xFFFFFF9C  # AT_FDCWD, of which the lower half counts
_MOST_PATH = 4096


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How the work ended: exit code, what it wrote to stderr, the counted calls, and the call that failed, if any."""

    code: int
    said: str
    num_calls: int
    failed: tuple[str, str] | None  # the call's name and its path


def can_fail_calls() -> str:
    """Return why calls cannot be made to fail here; an empty text if they can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "needs Linux on x86-64"
    if tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2]) < (5, 8):
        return "needs Linux 5.8 or newer"
    return ""


def run_failing(work: Callable[[], None], below: list[Path], log: Path, *, turn: int = 0, error: int = 0) -> Ended:
    """Fork, and run ``work`` with the ``turn``-th call on a file below the folders failing by ``error``.

    Turns count from 1; with 0 none fails. ``work`` may end by ``SystemExit``. Its output goes to ``log``.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _child(work, theirs, log)
    theirs.close()
    with ours:
        _, listeners, _, _ = socket.recv_fds(ours, 1, 1)
    try:
        num_calls, failed = _Supervisor(pid, listeners[0], [os.fsencode(folder) for folder in below]).run(turn, error)
    finally:
        os.close(listeners[0])
        _, status = os.waitpid(pid, 0)
    said = log.read_text(errors="replace")
    return Ended(code=os.waitstatus_to_exitcode(status), said=said, num_calls=num_calls, failed=failed)


def _child(work: Callable[[], None], parent: socket.socket, log: Path) -> None:
    code = 99
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        listener = _install_filter()
        socket.send_fds(parent, [b"."], [listener])
        os.close(listener)
        parent.close()
        work()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - the parent looks for it
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _install_filter() -> int:
    """Let the kernel ask about the calls of this process and its threads. Returns where it asks."""
    program = [struct.pack("=HBBI", 0x20, 0, 0, 0)]  # load the call's number
    for number in _CALLS:
        program.append(struct.pack("=HBBI", 0x15, 0, 1, number))  # unless it is this number, skip the next line
        program.append(struct.pack("=HBBI", 0x06, 0, 0, _NOTIFY))
    program.append(struct.pack("=HBBI", 0x06, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(program))
    header = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
        raise OSError(ctypes.get_errno(), "prctl")
    listener: int = libc.syscall(317, 1, 8, header)  # seccomp: set a filter, and return its listener
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


class _Supervisor:
    """Answers the kernel: a call may go on, or fails."""

    def __init__(self, pid: int, listener: int, below: list[bytes]) -> None:
        self._pid, self._listener, self._below = pid, listener, below
        self._memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)

    def run(self, turn: int, error: int) -> tuple[int, tuple[str, str] | None]:
        waiting = select.poll()
        waiting.register(self._listener, select.POLLIN)
        num_calls, failed = 0, None
        try:
            while True:
                (_, events), *_ = waiting.poll()
                if not events & select.POLLIN:
                    return num_calls, failed
                question = bytearray(_QUESTION.size)
                try:
                    fcntl.ioctl(self._listener, _RECEIVE, question)
                except OSError:  # the thread has ended meanwhile
                    continue
                number, _, _, call, _, _, *arguments = _QUESTION.unpack(question)
                name, path = _CALLS[call][0], self._path(call, arguments)
                counts = any(path.startswith(folder) for folder in self._below)
                num_calls += counts
                fails = counts and num_calls == turn
                if fails:
                    failed = name, os.fsdecode(path)
                answer = _ANSWER.pack(number, 0, -error if fails else 0, 0 if fails else _CONTINUE)
                with contextlib.suppress(OSError):
                    fcntl.ioctl(self._listener, _SEND, answer)
        finally:
            os.close(self._memory)

    def _path(self, call: int, arguments: list[int]) -> bytes:
        _, at, file = _CALLS[call]
        try:
            if at is None:
                assert file is not None
                return os.readlink(f"/proc/{self._pid}/fd/{arguments[file]}".encode())  # noqa: PTH115 - not every name is text
            path = self._text(arguments[at])
            if path.startswith(b"/"):
                return path
            is_here = file is None or arguments[file] & 0xFFFFFFFF == _HERE
            folder = f"/proc/{self._pid}/" + ("cwd" if is_here else f"fd/{arguments[file or 0]}")
            return os.readlink(folder.encode()) + b"/" + path  # noqa: PTH115
        except OSError:
            return b""

    def _text(self, address: int) -> bytes:
        """Read a text from the child's memory, page by page, as the page after its end may not be there."""
        text = b""
        while len(text) < _MOST_PATH and b"\0" not in text:
            place = address + len(text)
            text += os.pread(self._memory, 4096 - place % 4096, place)
        return text.partition(b"\0")[0]
