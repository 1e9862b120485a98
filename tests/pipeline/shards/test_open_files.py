"""A dataset of more shards than a process may have files open is read all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from many import repeat_dataset

NUM_SHARDS = 1150

READ_ALL = """
import resource, sys
import numpy as np
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256 if sys.argv[2] == "fixed" else hard))
import vlapipe
dataset = vlapipe.open_dataset(sys.argv[1])
first = np.array(dataset.sample_arrays(0)["observation.state"])
held = []
for shard in range(len(dataset.manifest.shards)):
    state = dataset.sample_arrays(shard)["observation.state"]
    if sys.argv[3] == "hold":
        held.append(state)
    assert np.array_equal(state, first)
print(sum(1 for line in open("/proc/self/maps") if line.rstrip().endswith((".view", ".zip"))))
"""


@pytest.fixture(scope="module")
def many_shards(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repeat_dataset(tiny_dataset, tmp_path_factory.mktemp("many") / "data", num_shards=NUM_SHARDS)


def read_all(dataset: Path, limit: str, hold: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", READ_ALL, str(dataset), limit, hold]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_soft_limit_is_raised_and_a_shard_takes_two_maps(many_shards: Path) -> None:
    result = read_all(many_shards, "soft", "hold")
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) == 2 * NUM_SHARDS


def test_shards_that_nobody_holds_are_closed_at_the_hard_limit(many_shards: Path) -> None:
    result = read_all(many_shards, "fixed", "let go")
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 256


def test_shards_that_are_held_at_the_hard_limit_end_in_one_line_with_the_cure(many_shards: Path) -> None:
    result = read_all(many_shards, "fixed", "hold")
    assert "may open no more files (raise its limit (ulimit -n 65536)" in result.stderr.splitlines()[-1]
