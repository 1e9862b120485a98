"""Trains as its arguments say, for tests that need separate processes. Prints the result as JSON on stdout."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path

from vlapipe.schemas.errors import VlapipeError
from vlapipe.train.config import TrainConfig
from vlapipe.train.loop import train


def threads_of_group() -> list[str]:
    """Names of the threads that exchange with other ranks; none where there is no ``/proc``."""
    names = []
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended meanwhile
            names.append(path.read_text().strip())
    return [name for name in names if "gloo" in name]


def group_has_ended() -> bool:
    """Whether none is left; the system lists a thread for a moment after it has been joined, longer when it is busy."""
    deadline = time.monotonic() + 20.0
    while threads_of_group() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not threads_of_group()


def main() -> None:
    """Train, and end as the command does."""
    try:
        result = train(TrainConfig.from_sources(None, json.loads(sys.argv[1])))
    except VlapipeError as error:
        sys.stderr.write(f"vlapipe: {error}\n")
        sys.exit(error.exit_code)
    finally:
        # One that is alive while Python ends can kill the process; seldom, so that only this shows it.
        assert group_has_ended()
    unwanted = {"dask", "distributed"} & set(sys.modules)
    if result.rank == 0:
        sys.stdout.write(json.dumps(vars(result) | {"unwanted": sorted(unwanted)}, default=str) + "\n")


if __name__ == "__main__":
    main()
