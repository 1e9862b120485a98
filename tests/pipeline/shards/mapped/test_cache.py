"""A shard is unpacked once, by the first process that needs it, completely or not at all; damage is detected."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import vlapipe
from vlapipe.pipeline.shards.mapped import mapped_shards as camera
from vlapipe.pipeline.shards.mapped.cache_files import Blocks
from vlapipe.schemas.errors import DamageError, UsageError

# A process that waits at a gate in the middle of unpacking, so that a test can look at it there.
UNPACK = """
import sys, time
from pathlib import Path
import numpy as np
import vlapipe
from vlapipe.pipeline.shards.mapped import mapped_shards as view
data, cache, work = sys.argv[1], sys.argv[2], Path(sys.argv[3])
unpack = view.unpack_shard
def counted(*args, **options: object):
    unpack(*args, **options)
    with (work / "unpacked").open("a") as log:
        log.write(sys.argv[4] + "\\n")
    while not (work / f"gate-{sys.argv[4]}").exists():
        time.sleep(0.01)
view.unpack_shard = counted
state = vlapipe.open_dataset(data, cache_dir=cache).sample_arrays(0)["observation.state"]
np.save(work / f"state-{sys.argv[4]}.npy", state)
"""


def start(data: Path, work: Path, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", UNPACK, str(data), str(work / "cache"), str(work), name])


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(12_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited for two minutes")


def unpacked(work: Path) -> list[str]:
    log = work / "unpacked"
    return log.read_text().split() if log.exists() else []


def is_waiting_for_a_lock(process: subprocess.Popen[bytes]) -> bool:
    return f" {process.pid} " in "".join(
        line for line in Path("/proc/locks").read_text().splitlines(True) if "->" in line
    )


def count_unpacking(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The shards that are unpacked from now on."""
    found = []
    unpack = camera.unpack_shard

    def counted(path: Path, *rest: object, **options: object) -> None:
        found.append(path)
        time.sleep(0.02)  # long enough for another thread to come by
        unpack(path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(camera, "unpack_shard", counted)
    return found


def test_two_processes_that_want_a_shard_unpack_it_once(tiny_dataset: Path, tmp_path: Path) -> None:
    first = start(tiny_dataset, tmp_path, "a")
    wait_for(lambda: unpacked(tmp_path) == ["a"])
    second = start(tiny_dataset, tmp_path, "b")
    wait_for(lambda: is_waiting_for_a_lock(second))
    (tmp_path / "gate-a").touch()
    assert (first.wait(120), second.wait(120)) == (0, 0)
    assert unpacked(tmp_path) == ["a"]
    state = vlapipe.open_dataset(tiny_dataset).sample_arrays(0)["observation.state"]
    for name in "ab":
        assert np.array_equal(np.load(tmp_path / f"state-{name}.npy"), state)


def test_waiter_takes_over_from_a_process_that_was_killed(tiny_dataset: Path, tmp_path: Path) -> None:
    first = start(tiny_dataset, tmp_path, "a")
    wait_for(lambda: unpacked(tmp_path) == ["a"])
    second = start(tiny_dataset, tmp_path, "b")
    wait_for(lambda: is_waiting_for_a_lock(second))
    assert not list((tmp_path / "cache").glob("vlapipe-*"))
    first.send_signal(signal.SIGKILL)
    first.wait(120)
    (tmp_path / "gate-b").touch()
    assert second.wait(120) == 0
    assert unpacked(tmp_path) == ["a", "b"]
    state = vlapipe.open_dataset(tiny_dataset).sample_arrays(0)["observation.state"]
    assert np.array_equal(np.load(tmp_path / "state-b.npy"), state)
    assert [path.name[:8] for path in (tmp_path / "cache").iterdir()] == ["vlapipe-"]


def test_what_a_killed_process_left_is_swept_and_never_read(tiny_dataset: Path, tmp_path: Path) -> None:
    killed = start(tiny_dataset, tmp_path, "a")
    wait_for(lambda: unpacked(tmp_path) == ["a"])
    killed.send_signal(signal.SIGKILL)
    killed.wait(120)
    [left] = (tmp_path / "cache").iterdir()
    (tmp_path / "cache" / "mine.txt").touch()
    dataset = vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path / "cache")
    dataset.arrays(1)  # another shard than the one that was left
    assert not left.exists()
    assert (tmp_path / "cache" / "mine.txt").exists()


def test_threads_that_want_a_shard_unpack_it_once(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = count_unpacking(monkeypatch)
    dataset = vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path)
    num_shards = len(dataset.manifest.shards)
    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(lambda i: dataset.sample_arrays(i % num_shards)["observation.state"], range(40)))
    assert sorted(path.name for path in found) == sorted(Path(s["file"]).name for s in dataset.manifest.shards)
    assert all(states[i] is states[i % num_shards] for i in range(40))


def test_different_shards_are_unpacked_side_by_side(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits until the other has begun, which never comes to pass if one must end first."""
    unpack, begun = camera.unpack_shard, set()

    def both(path: Path, *rest: object, **options: object) -> None:
        begun.add(path)
        wait_for(lambda: len(begun) == 2)
        unpack(path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(camera, "unpack_shard", both)
    dataset = vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path)
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(dataset.arrays, [0, 1]))) == 2


def test_entries_are_made_once_and_read_by_the_next_process(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path).arrays(0)
    [made] = tmp_path.iterdir()
    inode = made.stat().st_ino
    found = count_unpacking(monkeypatch)
    vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path).arrays(0)
    assert not found
    assert [path.stat().st_ino for path in tmp_path.iterdir()] == [inode]


@pytest.mark.parametrize("damage", ["emptied", "cut", "another's header", "no header"])
def test_damaged_entry_is_made_again(tiny_dataset: Path, tmp_path: Path, damage: str) -> None:
    expected = vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path).sample_arrays(0)["observation.state"]
    [entry] = tmp_path.iterdir()
    data = bytearray(entry.read_bytes())
    if damage == "emptied":
        data = bytearray()
    elif damage == "cut":
        del data[-8:]
    elif damage == "no header":
        data[:4] = b"PK\3\4"
    else:
        data[:4096] = data[:4096].replace(b'"<f4"', b'"<f2"')
        data[4096:] = bytes(len(data) - 4096)  # and so another's values
    entry.rename(tmp_path / "aside")  # or the map above would lose its bytes
    entry.write_bytes(data)
    found = vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path).sample_arrays(0)["observation.state"]
    assert np.array_equal(found, expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aside", entry.name]


def test_shard_that_was_altered_leaves_nothing_in_the_cache(tiny_dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(tiny_dataset, copy, ignore=shutil.ignore_patterns(".cache"))
    dataset = vlapipe.open_dataset(copy, cache_dir=tmp_path / "cache")
    shard = copy / dataset.manifest.shards[0]["file"]
    shard.chmod(0o644)
    data = bytearray(shard.read_bytes())
    # A byte of the JPEGs: nothing that is decoded here would notice.
    data[dataset.arrays(1) and bytes(data).index(b"\xff\xd8\xff") + 200] ^= 1
    shard.write_bytes(data)
    [other] = (tmp_path / "cache").iterdir()
    with pytest.raises(DamageError, match="its bytes differ from those that were written"):
        dataset.sample_arrays(0)
    assert list((tmp_path / "cache").iterdir()) == [other]


def test_failed_unpacking_can_be_tried_again(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **options: object) -> Blocks:
        raise KeyboardInterrupt

    dataset = vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(camera, "unpack_shard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            dataset.arrays(0)
    assert not list(tmp_path.iterdir())
    assert len(dataset.arrays(0))


@pytest.mark.parametrize("obstacle", ["no locks", "another user's file"])
def test_without_locks_everyone_works_on_a_file_of_his_own(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    dataset = vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path)
    key = camera.shard_key(dataset.manifest, 0)
    if obstacle == "no locks":

        def refuse(*args: object) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(fcntl, "flock", refuse)
        (tmp_path / f".vlapipe-{key}.view-1-{'0' * 12}").write_bytes(b"being written by somebody")
    else:  # root may open any file; nobody can open a folder as one
        (tmp_path / f".vlapipe-{key}.mapped").mkdir()
    before = set(tmp_path.iterdir())
    state = dataset.sample_arrays(0)["observation.state"]
    assert np.array_equal(state, vlapipe.open_dataset(tiny_dataset).sample_arrays(0)["observation.state"])
    made = [path.name for path in set(tmp_path.iterdir()) - before if path.stat().st_size]
    assert made == [f"vlapipe-{key}.mapped"]


@pytest.mark.parametrize("obstacle", ["a file", "no permission"])
def test_folder_that_cannot_be_used_is_told_with_the_cure(tiny_dataset: Path, tmp_path: Path, obstacle: str) -> None:
    if obstacle == "a file":
        (tmp_path / "cache").write_text("")
    elif os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    else:
        (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(UsageError, match=r"cache.*cannot be unpacked there.*--cache-dir"):
        vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path / "cache").arrays(0)
