"""Makes a raw dataset in the ``meca500`` layout. Its bytes depend only on the arguments, not on the workers."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from vlapipe.pipeline.demo.defects import DEFECTS, KEPT_DEFECTS, PlantedDefect, plant
from vlapipe.pipeline.demo.episode import simulate
from vlapipe.pipeline.demo.recorder import write_episode
from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.paths import local_path
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["DemoReport", "make_demo"]

BROKEN_DURATION_S = 1.2  # enough rows for every fault


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """What was made. ``num_episodes`` and ``hours`` count only the good episodes; files and bytes count everything."""

    directory: Path
    num_episodes: int
    num_files: int
    num_bytes: int
    csv_bytes: int
    hours: float
    tasks: tuple[str, ...]
    defects: tuple[PlantedDefect, ...]


@dataclass(frozen=True, kw_only=True)
class _Job:
    directory: Path
    seed: int
    index: int
    defect: str | None


@dataclass(frozen=True, kw_only=True)
class _Made:
    task: str
    duration_s: float
    defect: PlantedDefect | None


def make_demo(
    directory: Path,
    *,
    num_episodes: int = 24,
    seed: int = 0,
    defects: bool = False,
    workers: int | None = None,
) -> DemoReport:
    """Write demonstrations of a simulated arm that puts a needle into the pad that the instruction names.

    Args:
        directory: the folder to write to; it must be new or empty.
        num_episodes: number of good episodes, each of 3.5 to 5 s and about 13 MB.
        seed: the same seed gives the same bytes.
        defects: add one episode for each fault of the catalogue, and ``planted_defects.json``. An episode that ingest
            sets aside is short; one that it keeps is as long as the good ones.
        workers: number of processes, by default one a CPU. With 1, everything runs in this process. The processes are
            spawned and import the main module, so a script must guard its work by ``if __name__ == "__main__"``.

    Raises:
        UsageError: the directory is not empty, or an argument is out of range.
        StoppedError: the disk is full, for example. Nothing is left in the directory.
    """
    _check(local_path(directory, "directory"), num_episodes, seed, workers)
    made_folder = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return _make(directory, num_episodes, seed, workers, defects=defects)
    except OSError as error:
        # The folder was new or empty, so all that is in it is ours: the same command can begin again.
        with contextlib.suppress(OSError):  # the first error is the one to tell
            for path in directory.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if made_folder:
                directory.rmdir()
        raise_if_stopped(error, directory)
        raise


def _make(directory: Path, num_episodes: int, seed: int, workers: int | None, *, defects: bool) -> DemoReport:
    names = [None] * num_episodes + ([*DEFECTS, *KEPT_DEFECTS] if defects else [])
    jobs = [_Job(directory=directory, seed=seed, index=i, defect=name) for i, name in enumerate(names)]
    made: list[_Made | None] = [None] * len(jobs)
    with _pool(min(workers or os.cpu_count() or 1, len(jobs))) as pool:
        futures = {pool.submit(_make_episode, job): job.index for job in jobs} if pool else {}
        finished: Iterator[tuple[int, _Made]]
        finished = _results(futures) if futures else ((job.index, _make_episode(job)) for job in jobs)
        with Progress("demo", len(jobs), "episode") as progress:
            for index, episode in finished:
                made[index] = episode
                progress.advance()
    episodes = [episode for episode in made if episode is not None]
    planted = tuple(episode.defect for episode in episodes if episode.defect)
    if defects:
        text = json.dumps([asdict(defect) for defect in planted], indent=2) + "\n"
        (directory / "planted_defects.json").write_text(text, encoding="utf-8", newline="")
    return _report(directory, episodes, planted)


def _check(directory: Path, num_episodes: int, seed: int, workers: int | None) -> None:
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file", "choose a new or empty folder")
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty", "choose a new or empty folder; nothing was changed")
    for name, value, least in (("num_episodes", num_episodes, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if value is not None and value < least:
            raise UsageError(f"{name}: expected {least} or more, got {value}", "give a larger number")


@contextmanager
def _pool(num_workers: int) -> Iterator[ProcessPoolExecutor | None]:
    """Yield a process pool, or ``None`` for one worker. On failure or Ctrl-C, episodes not yet begun are dropped."""
    if num_workers == 1:
        yield None
        return
    # Spawned, because forking a process that has threads (a test runner's, Dask's) can deadlock.
    pool = ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _results(futures: dict[Future[_Made], int]) -> Iterator[tuple[int, _Made]]:
    for future in as_completed(futures):
        yield futures[future], future.result()


def _make_episode(job: _Job) -> _Made:
    """Write one episode under a hidden name and rename it, so that a stopped demo leaves no partial episode."""
    recording = simulate(job.seed, job.index, max_duration_s=BROKEN_DURATION_S if job.defect in DEFECTS else None)
    task, name = recording.scene.task, recording.name
    folder = job.directory / task / f".{name}.partial"
    write_episode(folder, recording)
    defect = plant(job.defect, folder, f"{task}/{name}") if job.defect else None
    folder.rename(folder.with_name(name))
    return _Made(task=task, duration_s=float(recording.robot_s[-1] - recording.robot_s[0]), defect=defect)


def _report(directory: Path, episodes: list[_Made], planted: tuple[PlantedDefect, ...]) -> DemoReport:
    files = [path for path in directory.rglob("*") if path.is_file()]
    good = [episode for episode in episodes if episode.defect is None]
    return DemoReport(
        directory=directory,
        num_episodes=len(good),
        num_files=len(files),
        num_bytes=sum(path.stat().st_size for path in files),
        csv_bytes=sum(path.stat().st_size for path in files if path.suffix == ".csv"),
        hours=sum(episode.duration_s for episode in good) / 3600,
        tasks=tuple(sorted({episode.task for episode in episodes})),
        defects=planted,
    )
