"""Exports a dataset: chooses episodes and the rate, and writes LeRobot's or robomimic's format, or goes on doing so."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlapipe.pipeline.export.hdf5 import read_back, write_hdf5
from vlapipe.pipeline.export.lerobot import check_lerobot, write_lerobot
from vlapipe.pipeline.export.one_rate import declared_fps
from vlapipe.pipeline.export.plan import ExportPlan, Written
from vlapipe.pipeline.export.report import ExportReport, Tally
from vlapipe.pipeline.export.sample_rows import left_out_sensors, sample_of
from vlapipe.pipeline.export.survey import survey
from vlapipe.pipeline.export.video_files import CODECS
from vlapipe.pipeline.export.work_folder import MadeFrom, changes, open_work_folder
from vlapipe.pipeline.shards.dataset import Dataset, open_dataset
from vlapipe.pipeline.shards.format.atomic import write_bytes
from vlapipe.pipeline.shards.manifest.where import Where, masks
from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.extras import need
from vlapipe.schemas.paths import local_path
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["FORMATS", "ExportConfig", "export", "run_export"]

FORMATS = ("lerobot", "hdf5")
_WORK = ".vlapipe-export"  # the work folder, in the output folder or behind the output file's name
_RECORD = ".vlapipe-export.json"  # in the output folder: what a finished export was made from, and its files
_LEAST_FPS, _MOST_FPS = 0.01, 100_000


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Options of one export: what to read, in which format to write it, and where."""

    dataset: Path | Dataset
    out: Path
    to: str
    where: str | None = None
    fps: float | None = None  # None: the rate that the schema declares for the anchor
    video: str | None = None  # None: each image stays as it is
    cameras: tuple[str, ...] | None = None  # None: all
    workers: int | None = None
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        local_path(self.out, "OUT")
        if self.to not in FORMATS:
            raise UsageError(f"--to {self.to}: unknown format", f"choose from {', '.join(FORMATS)}")
        if self.video is not None and self.video not in CODECS:
            raise UsageError(f"--video {self.video}: unknown codec", f"choose from {', '.join(CODECS)}")
        if self.video is not None and self.to != "lerobot":
            raise UsageError(f"--video {self.video}: {self.to} holds pixels, not video", "leave it out")
        if self.fps is not None and not _LEAST_FPS <= self.fps <= _MOST_FPS:
            raise UsageError(f"--fps {self.fps:g}: expected frames a second, {_LEAST_FPS:g} to {_MOST_FPS:,}")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers {self.workers}: expected 1 or more")


def export(
    dataset: str | Path | Dataset,
    out: str | Path,
    *,
    to: str = "lerobot",
    where: str | None = None,
    fps: float | None = None,
    video: str | None = None,
    cameras: Sequence[str] | None = None,
    workers: int | None = None,
    cache_dir: str | Path | None = None,
) -> ExportReport:
    """Export a dataset. To finish an export that was killed or stopped, call it again with the same arguments.

    Args:
        dataset: the folder of a dataset, or an open one; of a view by ``choose`` the chosen sample is exported.
        out: a new or empty folder for ``"lerobot"``, a new file for ``"hdf5"``.
        to: ``"lerobot"`` (format v3.0) or ``"hdf5"`` (robomimic's layout).
        where: export only episodes of which this expression is true.
        fps: the one rate of all frames; by default the rate that the schema declares for the anchor.
        video: ``"h264"`` or ``"av1"``; by default each image stays as it is, without loss.
        cameras: the cameras to export; by default those of a sample.
        workers: threads; by default one a core.
        cache_dir: folder into which shards are unpacked, as for ``open_dataset``.

    Raises:
        UsageError: an option asks for something that cannot be done, or ``out`` holds something else.
        DamageError: a shard or an image of the dataset is damaged.
        StoppedError: the disk, memory or a limit stopped the export. The same call then continues.
    """
    return run_export(
        ExportConfig(
            dataset=dataset if isinstance(dataset, Dataset) else local_path(dataset, "dataset"),
            out=local_path(out, "out"),
            to=to,
            where=where,
            fps=fps,
            video=video,
            cameras=None if cameras is None else tuple(cameras),
            workers=workers,
            cache_dir=None if cache_dir is None else local_path(cache_dir, "cache_dir"),
        )
    )


def run_export(config: ExportConfig) -> ExportReport:
    """Export as ``config`` says. See ``export``."""
    try:
        return _export(config)
    except (MemoryError, OSError, RuntimeError) as error:
        raise_if_stopped(error, config.out)
        raise


def _export(config: ExportConfig) -> ExportReport:
    started = time.monotonic()
    if config.video is not None:
        need("av", "video", "--video")
    if config.to == "hdf5":
        need("h5py", "hdf5", "--to hdf5")
    dataset = config.dataset
    if not isinstance(dataset, Dataset):
        dataset = open_dataset(dataset, cache_dir=config.cache_dir)
    plan = _plan(config, dataset)
    made_from = _made_from(config, plan)
    _check_out(config, dataset)
    folder = _work_folder(config)
    written = _finished(config, folder, made_from)
    was_finished = written is not None
    if written is None:
        with open_work_folder(folder, made_from, config.out) as work:
            with Progress("export", len(plan.episodes), "episode") as progress:
                if config.to == "lerobot":
                    written = write_lerobot(plan, survey(plan, work), work, progress)
                    _write_record(config.out, made_from, written)
                else:
                    written = write_hdf5(plan, made_from, work, progress)
            work.remove()
    return ExportReport(
        out=config.out,
        to=config.to,
        fps=plan.fps,
        episodes=len(plan.episodes),
        of_episodes=len(dataset),
        num_files=len(written.files),
        num_bytes=sum(written.files.values()),
        left_out=tuple(left_out_sensors(dataset, plan.episodes)),
        tally=written.tally,
        num_resumed=written.num_resumed,
        was_finished=was_finished,
        elapsed_s=time.monotonic() - started,
    )


def _plan(config: ExportConfig, dataset: Dataset) -> ExportPlan:
    chosen = np.ones(len(dataset), dtype=bool)
    if config.where is not None:
        chosen = masks(Where.parse(config.where, "--where"), [dataset])[0]
    # An episode without a frame from which training could draw has nothing to export.
    episodes = np.flatnonzero(chosen & (dataset.column("num_frames") > 0)).tolist()
    if not episodes:
        raise UsageError(f"{dataset.path}: no episode to export has a frame", "vlapipe inspect says why")
    plan = ExportPlan(
        dataset=dataset,
        episodes=episodes,
        sample=sample_of(dataset, config.cameras, episodes),
        out=config.out,
        fps=declared_fps(dataset, config.fps),
        video=config.video,
        workers=config.workers or os.cpu_count() or 1,
    )
    if config.to == "lerobot":
        check_lerobot(plan)
    return plan


def _made_from(config: ExportConfig, plan: ExportPlan) -> MadeFrom:
    """What the export is made from: the dataset's content, and the options that decide what is written."""
    dataset = plan.dataset
    digest = hashlib.sha256(dataset.manifest_file.read_bytes())
    digest.update(repr((dataset.schema.sample, dataset.schema.action, dataset.conversions, dataset.padded)).encode())
    return {
        "the dataset": f"{dataset.path.name} ({digest.hexdigest()[:16]})",
        "--to": config.to,
        "--where": config.where or "not given",
        "--fps": f"{plan.fps!r}",
        "--video": config.video or "not given",
        "--cameras": ", ".join(plan.sample.cameras) or "none",
    }


def _check_out(config: ExportConfig, dataset: Dataset) -> None:
    """Refuses an output that holds something else, before anything is read or written."""
    out = config.out
    if out.resolve().is_relative_to(dataset.path.resolve()):
        raise UsageError(f"{out}: lies inside the dataset {dataset.path}", "choose a place outside it")
    if config.to == "hdf5":
        if out.suffix not in (".hdf5", ".h5"):
            raise UsageError(f"{out}: expected a file for --to hdf5", f"for example {out}.hdf5")
        if out.is_dir():
            raise UsageError(f"{out}: is a folder", "give a file")
        if out.exists() and read_back(out) is None:
            raise UsageError(f"{out}: holds something else", "choose another file, or remove it")
        return
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file", "give a folder")
    if out.is_dir() and not (out / _WORK).is_dir() and not (out / _RECORD).is_file():
        others = sorted(entry.name for entry in out.iterdir())
        if others:
            raise UsageError(f"{out}: holds something else: {others[0]}", "choose a new or empty folder")


def _work_folder(config: ExportConfig) -> Path:
    return config.out / _WORK if config.to == "lerobot" else config.out.with_name(f".{config.out.name}{_WORK}")


def _finished(config: ExportConfig, folder: Path, made_from: MadeFrom) -> Written | None:
    """Returns what an earlier export has written if it is whole; ``None`` if there is something to do.

    Raises:
        UsageError: the output holds an export of something else.
    """
    if config.to == "lerobot":
        before, written = _read_record(config.out)
    else:
        before, written = _read_hdf5(config.out)
    if before is None:
        return None
    if said := changes(before, made_from):
        raise UsageError(f"{config.out}: already holds another export: {said}", "choose another OUT, or remove it")
    if written is not None and folder.is_dir():  # a killed export left the folder after it had written everything
        with open_work_folder(folder, made_from, config.out) as work:
            work.remove()
    return written


def _write_record(out: Path, made_from: MadeFrom, written: Written) -> None:
    record = {"made_from": made_from, "files": written.files, "tally": written.tally.to_json()}
    write_bytes(out / _RECORD, (json.dumps(record, indent=1) + "\n").encode())


def _read_record(out: Path) -> tuple[MadeFrom | None, Written | None]:
    """What a finished export was made from, and what it has written if all its files have their sizes."""
    try:
        record = json.loads((out / _RECORD).read_bytes())
        made_from, files = dict(record["made_from"]), dict(record["files"])
        tally = Tally.of_json(record["tally"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, None
    paths = {out / name: size for name, size in files.items()}
    is_whole = all(path.is_file() and path.stat().st_size == size for path, size in paths.items())
    return made_from, Written(files=files, tally=tally, num_resumed=0) if is_whole else None


def _read_hdf5(out: Path) -> tuple[MadeFrom | None, Written | None]:
    found = read_back(out)
    if found is None:
        return None, None
    made_from, tally = found
    return made_from, Written(files={out.name: out.stat().st_size}, tally=tally, num_resumed=0)
