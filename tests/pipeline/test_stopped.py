"""An ingest that its environment stops: exit code 5, the path, the reason in words. The same command then continues."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from factories import make_dataset

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.schemas.errors import StoppedError
from vlapipe.schemas.surroundings import stopped_by


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def command(*arguments: object, before: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vlapipe", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(vlapipe.__file__).parents[1])},
        preexec_fn=before,
    )


def run(source: Path, out: Path | None, **options: object) -> IngestReport:
    return ingest(IngestConfig(source=source, out=out, dry_run=out is None, **options))  # type: ignore[arg-type]


def assert_stopped(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr
    assert "[Errno" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    for word in (*words, "the same command then goes on"):
        assert word in last


@pytest.mark.slow
def test_write_that_fails_exits_5_with_its_folder_and_the_same_command_goes_on(tmp_path: Path) -> None:
    raw, out = make_dataset(tmp_path / "raw", num_episodes=4), tmp_path / "data"

    def few_bytes_a_file() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    options = ("ingest", "--dataset", raw, "--out", out, "--shard-size", "3MB", "--workers", 1)
    assert_stopped(command(*options, before=few_bytes_a_file), f"{out}/shards: no file may become so large here")
    assert not list((out / "shards").iterdir())
    done = command(*options)
    assert done.returncode == 0, done.stderr
    run(raw, tmp_path / "whole", shard_bytes=3_000_000)
    assert tree(out) == tree(tmp_path / "whole")


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_full_disk_exits_5_keeps_what_is_finished_and_goes_on(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=6)
    with small_disk(tmp_path / "disk", "3m") as disk:
        options = ("ingest", "--dataset", raw, "--out", disk / "data", "--shard-size", "1", "--workers", 1)
        assert_stopped(command(*options), f"{disk}/data", "the disk is full", "free some space there")
        finished = list((disk / "data" / ".ingest").glob("shard-*.json"))
        assert finished
        assert subprocess.run(["mount", "-o", "remount,size=30m", disk]).returncode == 0
        done = command(*options)
        assert done.returncode == 0, done.stderr
        assert f"({len(finished)} from an earlier run)" in done.stdout


def test_output_that_does_not_fit_is_told_by_a_dry_run_and_refused_before_anything_is_read(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=2)
    images = sum(file.stat().st_size for file in raw.rglob("*.jpg"))
    with small_disk(tmp_path / "disk", f"{images // 4096 * 2}k") as disk:  # half of what the images take
        options = ("ingest", "--dataset", raw, "--out", disk / "data", "--workers", 1)
        dry = command(*options, "--dry-run")
        assert_stopped(dry, f"{disk}/data: has room for ", "free some space there")
        assert "checked 2 of 2 episodes" in dry.stdout
        assert not (disk / "data").exists()
        refused = command(*options)
        assert_stopped(refused, f"{disk}/data/shards: has room for ", "are to be written")
        assert not refused.stdout
        assert subprocess.run(["mount", "-o", "remount,size=30m", disk]).returncode == 0
        assert command(*options, "--dry-run").returncode == command(*options).returncode == 0


def test_too_few_open_files_set_no_episode_aside(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=2)
    run(raw, None)  # all is imported that will be
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_one = os.open(os.devnull, os.O_RDONLY)
    os.close(next_one)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, before[1]))
    try:
        with pytest.raises(StoppedError, match="as many files open as it may"):
            run(raw, None, workers=4)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EMFILE])
def test_reading_that_fails_for_the_machines_sake_sets_no_episode_aside(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=2)
    name = "sensor_data.npz" if number == errno.EIO else "robot_states.csv"
    real = Path.open

    def failing(path: Path, *rest: object, **options: object) -> object:
        if path.name == name:
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *rest, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(StoppedError, match=f"{name}: .*; the same command then goes on"):
        run(raw, tmp_path / "data")
    monkeypatch.undo()
    assert run(raw, tmp_path / "data").num_episodes == 2


def test_memory_that_ends_in_an_episode_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlapipe.pipeline.build import build

    def failing(*_: object) -> object:
        raise MemoryError

    raw = make_dataset(tmp_path / "raw", num_episodes=2)
    monkeypatch.setattr(build, "read_episode", failing)
    with pytest.raises(StoppedError, match="out of memory"):
        run(raw, tmp_path / "data")


def test_dataset_that_is_gone_meanwhile_is_no_fault_of_its_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlapipe.pipeline.build import build

    raw = make_dataset(tmp_path / "raw", num_episodes=3)
    real = build.read_episode

    def unplugging(*rest: object) -> object:
        if raw.exists():
            raw.rename(tmp_path / "elsewhere")
        return real(*rest)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "read_episode", unplugging)
    with pytest.raises(StoppedError, match=f"{raw}: no such folder on .*attach or mount it"):
        run(raw, tmp_path / "data")


@pytest.mark.slow
def test_report_that_finds_no_room_exits_5(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=1)

    def no_byte_a_file() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    report = tmp_path / "report.json"
    done = command("ingest", "--dataset", raw, "--dry-run", "--report", report, before=no_byte_a_file)
    assert_stopped(done, str(report), "no file may become so large here")


def test_folder_that_may_not_be_made_stays_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = command("demo", tmp_path / "file" / "raw")
    assert done.returncode == 2
    assert "[Errno" not in done.stderr
    assert str(tmp_path / "file") in done.stderr


def test_reasons_are_in_words_with_the_path_and_survive_pickling() -> None:
    named = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/data/shards")
    error = pickle.loads(pickle.dumps(stopped_by(named, "elsewhere")))  # noqa: S301 - our own
    assert (error.exit_code, error.problem) == (5, "/data/shards: the disk quota is used up")
    assert stopped_by(OSError(errno.ENOSPC, "x"), Path("/data")).problem == "/data: the disk is full"
    assert stopped_by(MemoryError()).problem == "stopped: out of memory"
    assert stopped_by(OSError("the server said no")).problem == "stopped: the server said no"


def test_help_lists_the_exit_code() -> None:
    assert "5 stopped by its surroundings" in " ".join(command("--help").stdout.split())
