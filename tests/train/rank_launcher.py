"""Launches ranks and ends none of them: each rank lives until it ends by itself, as under a plain shell loop.

The launcher imports the trainer once and forks for each rank, so that four ranks start and end quickly. A request is a
line on stdin, ``{"ranks": 4, "code": "...", "argument": ..., "environment": {...}}``. The answer holds each rank's
exit code, output and seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import vlapipe.train.loop
import vlapipe.train.policies.regression  # noqa: F401

_DEADLINE_S = 300.0


def _become(rank: int, request: dict[str, Any], folder: Path) -> None:
    """Make this process one of the ranks."""
    written = ((str(folder / f"{rank}.{kind}"), os.O_WRONLY | os.O_CREAT) for kind in ("out", "err"))
    files = ((os.devnull, os.O_RDONLY), *written)
    for number, (path, flags) in enumerate(files):
        os.dup2(os.open(path, flags), number)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(request["ranks"])}
    os.environ |= request["environment"]
    os.environ |= request["environments"].get(str(rank), {})
    sys.argv = ["rank", json.dumps(request["argument"])]


def _run(code: str) -> int:
    """What a Python process does with its main program, without taking apart the modules: that copies each page."""
    try:
        exec(compile(code, "rank", "exec"), {"__name__": "__main__"})  # noqa: S102
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _wait(pids: dict[int, int]) -> dict[int, tuple[int, float]]:
    """Exit code and seconds of each rank.

    A rank that still lives after the deadline is killed, and so is a stopped rank when all others have ended.
    """
    began = time.monotonic()
    ended: dict[int, tuple[int, float]] = {}
    while len(ended) < len(pids):
        for rank, pid in pids.items():
            if rank in ended:
                continue
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                ended[rank] = (os.waitstatus_to_exitcode(status), time.monotonic() - began)
            elif time.monotonic() - began > _DEADLINE_S or (len(ended) == len(pids) - 1 and _is_stopped(pid)):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return ended


def _is_stopped(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "T"


def main() -> None:
    """Serve until stdin ends; in a rank, run the request's code as the main program."""
    for line in sys.stdin:
        request = json.loads(line)
        folder = Path(tempfile.mkdtemp())
        pids: dict[int, int] = {}
        for rank in range(request["ranks"]):
            pid = os.fork()
            if pid == 0:
                _become(rank, request, folder)
                os._exit(_run(request["code"]))
            pids[rank] = pid
        answer = []
        for rank, (code, seconds) in sorted(_wait(pids).items()):
            out, err = ((folder / f"{rank}.{kind}").read_text() for kind in ("out", "err"))
            answer.append({"code": code, "out": out, "err": err, "seconds": seconds})
        shutil.rmtree(folder)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
