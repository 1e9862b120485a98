"""Maps keep no file open and stay valid while they are referenced. If a limit is reached, the error names it."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from many import repeat_dataset

import vlapipe
from vlapipe.pipeline.shards.format import file_maps as maps
from vlapipe.schemas.surroundings import max_map_count

NUM_SHARDS = 200

# Each runs in a process of its own, as its limits are that process's.
HOLD_ALL = """
import os, resource, sys
import numpy as np
import vlapipe
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
dataset = vlapipe.open_dataset(sys.argv[1])
first = np.array(dataset.sample_arrays(0)["observation.state"])
held = [dataset.sample_arrays(shard) for shard in range(len(dataset.manifest.shards))]
assert all(np.array_equal(sample["observation.state"], first) for sample in held)
window = vlapipe.Window(state_rows=1, sensor_rows=1)
loader = vlapipe.Loader(dataset, split=None, batch_size=256, num_workers=2, window=window)
assert len(set(next(iter(loader))["episode_index"].tolist())) > 64
num_maps = sum(1 for line in open("/proc/self/maps") if line.rstrip().endswith((".mapped", ".zip")))
print(num_maps, len(os.listdir("/dev/fd")))
"""

NO_FILES = """
import os, resource, sys
import vlapipe
from vlapipe.schemas.errors import StoppedError
vlapipe.Loader
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
fresh, begun = (vlapipe.open_dataset(sys.argv[1], cache_dir=sys.argv[2]) for _ in range(2))
begun.episodes, begun.read_columns(["shard", "robot/start", "robot/rows"])
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
asked = [
    lambda: vlapipe.open_dataset(sys.argv[1]), lambda: fresh.column("shard"), lambda: fresh.row(0),
    lambda: begun.sample_arrays(0), lambda: begun.sample_rows(0), lambda: vlapipe.Loader(fresh),
]
def failures(asked):
    for ask in asked:
        try:
            ask()
        except StoppedError as error:
            print(error.exit_code, error)
failures(asked)
for _ in range(3):
    os.close(taken.pop())
begun.sample_rows(0)  # a file for the shard, and none for the cache beside it
for file in taken:
    os.close(file)
for ask in asked:
    ask()
"""

NO_MEMORY = """
import resource, sys
import numpy as np
import vlapipe
from vlapipe.schemas.errors import StoppedError
dataset = vlapipe.open_dataset(sys.argv[1])
expected = np.array(dataset.sample_arrays(0)["observation.state"])
again = vlapipe.open_dataset(sys.argv[1])
again.read_columns(["shard", "robot/start", "robot/rows"])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 100_000, resource.RLIM_INFINITY))
try:
    again.sample_arrays(0)
except StoppedError as error:
    print(error.exit_code, error)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert np.array_equal(again.sample_arrays(0)["observation.state"], expected)
"""

NO_MAPS = """
import mmap, sys
import numpy as np
import vlapipe
from vlapipe.schemas.errors import StoppedError
dataset = vlapipe.open_dataset(sys.argv[1])
expected = np.array(dataset.sample_arrays(0)["observation.state"])
again = vlapipe.open_dataset(sys.argv[1])
again.read_columns(["shard", "robot/start", "robot/rows"])
others = [None] * int(sys.argv[2])
try:
    for i in range(len(others)):
        others[i] = mmap.mmap(-1, mmap.PAGESIZE)
except OSError:
    pass
try:
    again.sample_arrays(0)
except StoppedError as error:
    print(error.exit_code, error)
others.clear()
assert np.array_equal(again.sample_arrays(0)["observation.state"], expected)
"""


@pytest.fixture(scope="module")
def many_shards(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repeat_dataset(tiny_dataset, tmp_path_factory.mktemp("many") / "data", num_shards=NUM_SHARDS)


def run(code: str, *arguments: object) -> list[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def num_maps(folder: Path) -> int:
    return sum(f" {folder}/" in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_more_shards_than_a_process_may_open_files_are_held_at_the_same_time(many_shards: Path) -> None:
    pytest.importorskip("torch")
    ((in_maps, in_files),) = (map(int, line.split()) for line in run(HOLD_ALL, many_shards))
    assert in_maps == 2 * NUM_SHARDS
    assert in_files < 32


def test_too_many_open_files_are_no_damage(tiny_dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    said = run(NO_FILES, tiny_dataset, tmp_path)
    assert len(said) == 6
    for line in said:
        assert line.startswith(f"5 {tiny_dataset}/" if "cannot be unpacked" not in line else f"5 {tmp_path}")
        assert "as many files open as it may (64) (raise the limit (ulimit -n 65536); " in line


def test_too_little_memory_for_a_map_is_no_damage(tiny_dataset: Path) -> None:
    vlapipe.open_dataset(tiny_dataset).arrays(0)
    [said] = run(NO_MEMORY, tiny_dataset)
    assert said.startswith("5 ")
    assert "out of memory: this process may use " in said
    assert " MB (ulimit -v) (raise the limit (ulimit -v); " in said


def test_kernels_limit_of_maps_is_no_damage(tiny_dataset: Path) -> None:
    limit = max_map_count()
    if limit is None or limit > 200_000:
        pytest.skip("too many maps to make them all")
    vlapipe.open_dataset(tiny_dataset).arrays(0)
    [said] = run(NO_MAPS, tiny_dataset, limit)
    assert said.startswith("5 ")
    assert f"as many memory maps as it may (vm.max_map_count = {limit}) (raise it (sysctl -w vm.max_map_count=" in said


def test_shards_that_nobody_holds_are_closed_before_there_are_too_many_maps(
    many_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "most_maps", lambda: len(maps._live) + 20)
    most = maps.most_maps()
    monkeypatch.setattr(maps, "most_maps", lambda: most)
    dataset = vlapipe.open_dataset(many_shards)
    first = np.array(dataset.sample_arrays(0)["observation.state"])
    held = []
    for shard in range(60):
        state = dataset.sample_arrays(shard)["observation.state"]
        assert num_maps(many_shards) <= 22 + len(held)
        if shard % 3 == 0:
            held.append(state[2:])  # of one map, since the shard's own is let go of
    assert all(np.array_equal(state, first[2:]) for state in held)


def test_array_outlives_its_dataset_and_the_files(tiny_dataset: Path, tmp_path: Path) -> None:
    dataset = vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path)
    expected = np.array(dataset.arrays(0)["robot/joint_position"])
    column = dataset.arrays(0)["robot/joint_position"][5:, 2]
    for file in tmp_path.iterdir():
        file.unlink()
    del dataset
    gc.collect()
    assert np.array_equal(column, expected[5:, 2])
    assert isinstance(column, np.memmap)
    assert num_maps(tmp_path) == 1
    base: Any = column
    while isinstance(base, np.ndarray):
        with pytest.raises(ValueError, match="WRITEABLE"):
            base.flags.writeable = True
        base = base.base
    del base
    del column
    gc.collect()
    assert num_maps(tmp_path) == 0
