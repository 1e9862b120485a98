"""Encoding leaves the machine to others."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vlapipe.pipeline.export.video_files import CODECS, encode


def scheduling() -> set[int]:
    """How Linux schedules the threads of this process."""
    found = set()
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            found.add(os.sched_getscheduler(int(thread.name)))
    return found


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux")
@pytest.mark.parametrize("codec", CODECS)
def test_threads_are_scheduled_as_before(tmp_path: Path, codec: str) -> None:
    # If root opens it, the AV1 encoder makes threads real-time ones, and this thread is one for ever after.
    pytest.importorskip("av")
    assert scheduling() == {os.SCHED_OTHER}
    found = set()

    def images() -> object:
        for number in range(4):
            if number > 1:  # while it encodes
                found.update(scheduling())
            yield np.full((64, 64, 3), 10 * number, np.uint8)

    encode(tmp_path / "v.mp4", codec, Fraction(10), (64, 64), images())  # type: ignore[arg-type]
    assert scheduling() == found == {os.SCHED_OTHER}
