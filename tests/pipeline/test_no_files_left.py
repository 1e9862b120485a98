"""A process that may open no more files stops: it does not set good episodes aside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from factories import make_dataset

# In a process of its own, whose limit it is.
INGEST = """
import os, resource, sys
from pathlib import Path
from vlapipe.pipeline.build import build
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.schemas.errors import StoppedError
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
read, num_free = build.read_episode, int(sys.argv[3])
def with_few_files(*args):
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    for _ in range(num_free):
        os.close(taken.pop())
    try:
        return read(*args)
    finally:
        for file in taken:
            os.close(file)
config = IngestConfig(source=Path(sys.argv[1]), out=Path(sys.argv[2]), workers=1)
build.read_episode = with_few_files
try:
    ingest(config)
except StoppedError as error:
    print(error)
build.read_episode = read
report = ingest(config)
print(report.num_episodes, len(report.rejects))
"""


@pytest.mark.parametrize("num_free", [0, 1])
def test_process_without_files_stops_and_sets_no_episode_aside(tmp_path: Path, num_free: int) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=2)
    command = [sys.executable, "-c", INGEST, str(raw), str(tmp_path / "data"), str(num_free)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, ended.stderr
    *said, finished = ended.stdout.splitlines()
    assert finished == "2 0"
    if num_free == 0:
        assert str(raw / "insert_") in said[0]
        assert "as many files open as it may (64) (raise the limit (ulimit -n 65536)" in said[0]
