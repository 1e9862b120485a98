"""Writes a dataset in LeRobot's format v3.0. ``meta/info.json`` is written last: without it there is no dataset.

Threads read episodes, count pixels and encode video ahead; the calling thread writes the files of frames in order, so
the same dataset and options give the same files whatever the number of threads; only x264 codes a frame now and then
in other bytes. Each finished file has a record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlapipe.pipeline.export import lerobot_tables as lr
from vlapipe.pipeline.export.lerobot_episode import EpisodeWork, PreparedEpisode
from vlapipe.pipeline.export.lerobot_metadata import commit, record_name, stats_to_json
from vlapipe.pipeline.export.plan import ExportPlan, Written
from vlapipe.pipeline.export.report import Tally
from vlapipe.pipeline.export.survey import Survey
from vlapipe.pipeline.export.work_folder import WorkFolder
from vlapipe.pipeline.shards.format.atomic import sweep_temporaries, whole_file
from vlapipe.pipeline.shards.ordered_map import in_order
from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.schemas.errors import DamageError, UsageError

__all__ = ["check_lerobot", "write_lerobot"]


def check_lerobot(plan: ExportPlan) -> None:
    """Refuses what the format or a video cannot hold, before anything is written.

    Raises:
        UsageError: a camera's images have an odd size, and are to be video.
    """
    for camera in plan.video_cameras:
        height, width = plan.sample.sizes[camera]
        if height % 2 or width % 2:
            raise UsageError(
                f"--video {plan.video}: {camera} has images of {width}x{height}, and a video needs even numbers",
                "leave out --video, or ingest with --image-size",
            )


def write_lerobot(plan: ExportPlan, survey: Survey, work: WorkFolder, progress: Progress) -> Written:
    """Writes all files. Goes on after those that ``work`` has a record of.

    Raises:
        DamageError: a shard of the dataset is damaged, or a file reads back otherwise than it was written.
    """
    _sweep(plan.out)
    lacks = {lr.STATE_MISSING: survey.lacks_state, lr.ACTION_MISSING: survey.lacks_action}
    missing = [name for name, is_lacking in lacks.items() if is_lacking]
    features = lr.features_of(plan.sample, video=plan.video is not None, missing=missing)
    index, done = _finished(plan.out, work)
    if done:
        progress.reach(done)
    of_episode = EpisodeWork(plan, survey, features, work)
    prepared = in_order((partial(of_episode.prepare, i) for i in range(done, len(plan.episodes))), plan.workers)
    try:
        for group in _groups(prepared, progress):
            work.keep(record_name(index), _write_frames(plan.out, index, group))
            index = lr.next_file(index)
    finally:
        prepared.close()
    files, tally = commit(plan, survey, features, work)
    return Written(files=files, tally=tally, num_resumed=done)


def _sweep(out: Path) -> None:
    """Remove the temporary files that killed exports left."""
    for top in ("data", "videos", "meta"):
        for path in [out / top, *(out / top).rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                sweep_temporaries(path)


def _finished(out: Path, work: WorkFolder) -> tuple[lr.FileIndex, int]:
    """The first file of frames that does not stand whole in the folder, and the number of episodes before it."""
    index, done = (0, 0), 0
    while (record := work.record(record_name(index))) is not None:
        path = out / record["file"]
        if not path.is_file() or path.stat().st_size != record["bytes"]:
            break
        done += len(record["episodes"])
        index = lr.next_file(index)
    return index, done


def _groups(prepared: Iterable[PreparedEpisode], progress: Progress) -> Iterator[list[PreparedEpisode]]:
    """Cuts episodes into files of limited size."""
    group, size = list[PreparedEpisode](), 0
    for episode in prepared:
        if group and size + episode.table.nbytes >= lr.DATA_FILE_BYTES:
            yield group
            group, size = [], 0
        group.append(episode)
        size += episode.table.nbytes
        progress.advance()
    if group:
        yield group


def _write_frames(out: Path, index: lr.FileIndex, group: Sequence[PreparedEpisode]) -> dict[str, Any]:
    """Writes a file with the frames of several episodes, and reads it back. Returns its record."""
    path = out / lr.data_path(index)
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = group[0].table.schema
    plain = [field.name for field in schema if not pa.types.is_nested(field.type)]
    with whole_file(path) as temporary:
        # No two images are the same, so that a dictionary of them would only cost time.
        with (
            temporary.open("wb") as file,
            pq.ParquetWriter(file, schema, compression="snappy", use_dictionary=plain) as writer,
        ):
            for episode in group:
                writer.write_table(episode.table, row_group_size=len(episode.table))
        _check(temporary, path, [episode.table for episode in group])
    placed = {"data/chunk_index": index[0], "data/file_index": index[1]}
    tally = Tally()
    for episode in group:
        tally = tally.plus(episode.tally)
    return {
        "file": lr.data_path(index),
        "bytes": path.stat().st_size,
        "episodes": [{"entry": each.entry | placed, "stats": stats_to_json(each.stats)} for each in group],
        "tally": tally.to_json(),
    }


def _check(temporary: Path, path: Path, tables: Sequence[pa.Table]) -> None:
    """Compares every row of a file with what was to be written."""
    with pq.ParquetFile(temporary) as file:
        for i, table in enumerate(tables):
            if not _is_same(file.read_row_group(i), table):
                raise DamageError(
                    f"{path}: read back otherwise than it was written, in row group {i}",
                    "check the disk and memory, then run the same command again",
                )


def _is_same(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables hold the same; a value that is no number (NaN) is the same as itself."""
    if one.equals(other):
        return True
    return one.schema.equals(other.schema) and all(
        one.column(name).equals(other.column(name))
        or np.array_equal(_numbers(one.column(name)), _numbers(other.column(name)), equal_nan=True)
        for name in one.column_names
    )


def _numbers(column: pa.ChunkedArray) -> Any:
    values = column.combine_chunks()
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False)
