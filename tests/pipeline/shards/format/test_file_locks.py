"""A process that waits for a file continues as soon as the file is made, however long other processes then read it."""

from __future__ import annotations

import fcntl
import threading
import time
from pathlib import Path

import pytest

from vlapipe.pipeline.shards.format.file_locks import locked_exclusively


def num_waiting(path: Path) -> int:
    """How many wait for a lock of the file, in any process."""
    return sum("->" in line and f":{path.stat().st_ino} " in line for line in Path("/proc/locks").open())


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="sees in /proc who waits")
def test_made_file_that_is_read_at_once_ends_the_wait_for_it(tmp_path: Path) -> None:
    path = tmp_path / "in the making"
    found = []

    def wait() -> None:
        with locked_exclusively(path) as held:
            found.append(held)

    waiting = threading.Thread(target=wait, daemon=True)
    with locked_exclusively(path) as held:
        assert held is not None
        waiting.start()
        while not num_waiting(path):
            assert waiting.is_alive()
            time.sleep(0.01)
        path.rename(tmp_path / "made")
        fcntl.flock(held.file, fcntl.LOCK_SH)  # as a reader who was quicker than the one who waits
        waiting.join(timeout=20)
    assert found == [None]
