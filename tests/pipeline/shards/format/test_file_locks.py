"""A process that waits for a file continues as soon as the file is made, however long other processes then read it."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

from vlapipe.pipeline.shards.format.file_locks import locked_exclusively


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
        waiting.join(timeout=0.2)
        assert waiting.is_alive()
        path.rename(tmp_path / "made")
        fcntl.flock(held.file, fcntl.LOCK_SH)  # as a reader who was quicker than the one who waits
        waiting.join(timeout=20)
    assert found == [None]
