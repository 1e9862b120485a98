"""Runs the public command on hostile files, each in a process of its own, and watches what the command does.

Started by ``test_hostile.py`` with a file of jobs. All that a reader needs is imported once, then a process is forked
for each job: one that dies or fills the memory ends no other job, and a job takes a fraction of a second.

What is watched: the peak of the resident memory, the time, the files that Python opens, and the
programs and sockets that it starts (an audit hook); and any access, by whatever library, to the folder beside the
dataset (inotify).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_SPACE = 4 << 30  # of addresses, beyond those at the start: what a bomb that is not noticed may take
_WARM = (
    "av", "dask", "h5py", "imagecodecs", "lz4.frame", "mcap.reader", "numcodecs.blosc", "numcodecs.lz4", "pandas",
    "PIL.Image", "pyarrow.parquet", "pyarrow.compute", "rosbags.typesys", "scipy.spatial.transform", "simplejpeg",
    "zarr", "zstandard", "vlapipe.pipeline.ingest", "vlapipe.pipeline.infer.infer", "vlapipe.pipeline.infer.check",
    "vlapipe.pipeline.show.ingest_text",
)  # fmt: skip
_STARTS = {
    "ctypes.dlopen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "os.system",
    "pickle.find_class", "pty.spawn", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "urllib.Request",
}  # fmt: skip
_PATIENCE = 6  # a reader that waits for nothing is ended after so many times its limit
_OPENED, _READ = 0x20, 0x01  # inotify's IN_OPEN and IN_ACCESS
_SYSTEM = ("/proc/", "/sys/", "/dev/", "/usr/", "/lib", "/etc/localtime", "/etc/mime.types")


class _Watch:
    """Tells whether anything read a folder or a file in it."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for each in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            if libc.inotify_add_watch(self._handle, os.fsencode(each), _OPENED | _READ) < 0:
                raise OSError(ctypes.get_errno(), "inotify_add_watch")

    def seen(self) -> bool:
        """Return whether there was an access, and end the watch."""
        try:
            return bool(os.read(self._handle, 4096))
        except BlockingIOError:
            return False
        finally:
            os.close(self._handle)


def _child(job: dict[str, Any], log: Path) -> None:
    """Run the command as ``python -m vlapipe`` does; never returns."""
    allowed = (*_SYSTEM, *job["allowed"], *{os.path.realpath(path) for path in (sys.prefix, sys.base_prefix) if path})
    events = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(event: str, args: tuple[Any, ...]) -> None:
        if event in _STARTS:
            os.write(events, f"{event} {args!r:.200}\n".encode())
        elif event == "open" and isinstance(args[0], str | bytes):
            path = os.path.abspath(os.fsdecode(args[0]))  # noqa: PTH100 - links are not resolved
            if not path.startswith(allowed):
                os.write(events, f"open {path!r:.300}\n".encode())

    output = os.open(f"{log}.out", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + _SPACE,) * 2)
    sys.argv = ["vlapipe", *job["arguments"]]
    sys.addaudithook(note)
    code = 99
    try:
        from vlapipe.cli import main

        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 98
    except BaseException:  # noqa: BLE001 - the test reports it
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _busy_s(child: int) -> float:
    """Return the seconds of CPU time that a process has taken: a busy machine makes no reader slow."""
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _run(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    log, watch = folder / "events", _Watch(Path(job["outside"]))
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(job, log)
    timed_out = False
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            break
        waited = time.monotonic() - started
        if not timed_out and (waited > _PATIENCE * job["limit_s"] or _busy_s(child) > job["limit_s"]):
            timed_out = True
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "timed_out": timed_out,
        "seconds": time.monotonic() - started,
        "peak_bytes": used.ru_maxrss << 10,
        "read_outside": watch.seen(),
        "events": log.read_text().splitlines() if log.exists() else [],
        "output": Path(f"{log}.out").read_bytes().decode("utf-8", "backslashreplace"),
    }


def main() -> None:
    """Run the jobs in the file that the first argument names; write their results beside it."""
    jobs = Path(sys.argv[1])
    tempfile.gettempdir()  # tries once whether it can write there
    for name in _WARM:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for job in json.loads(jobs.read_text()):
        result = _run(job, Path(job["folder"]))
        Path(job["folder"], "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
