"""Ends an export to LeRobot's format: joins the videos and writes tasks, episodes, statistics and ``info.json``."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlapipe.pipeline.export import lerobot_tables as lr
from vlapipe.pipeline.export.lerobot_episode import video_part
from vlapipe.pipeline.export.lerobot_stats import Stats, aggregate
from vlapipe.pipeline.export.plan import ExportPlan
from vlapipe.pipeline.export.report import Tally
from vlapipe.pipeline.export.survey import Survey
from vlapipe.pipeline.export.video_files import VideoPart, exact_rate, join, video_info
from vlapipe.pipeline.export.work_folder import WorkFolder
from vlapipe.pipeline.shards.format.atomic import write_bytes

__all__ = ["INFO", "commit", "record_name", "stats_to_json"]

INFO = "meta/info.json"
_EPISODES_A_GROUP = 100  # episodes of a row group of the table of episodes

_Place = dict[str, Any]  # in which video file an episode lies, from which second to which


def commit(plan: ExportPlan, survey: Survey, features: lr.Features, work: WorkFolder) -> tuple[dict[str, int], Tally]:
    """Joins the videos and writes the metadata, ``info.json`` last.

    Returns all files with their sizes, and what was done.

    Raises:
        DamageError: a video reads back otherwise than it was written.
    """
    files: dict[str, int] = {}
    features = {key: dict(feature) for key, feature in features.items()}
    videos: dict[str, list[_Place]] = {}
    for camera in plan.video_cameras:
        key = plan.sample.keys[camera]
        videos[key] = _join_videos(plan, camera, survey, work, files)
        features[key]["info"] = video_info(plan.out / lr.video_path(key, (0, 0)))
    table, tally = _EpisodesTable(plan.out), Tally()
    stats: dict[str, Stats] = {}
    starts = survey.starts
    for record in _records(work):
        files[record["file"]] = record["bytes"]
        tally = tally.plus(Tally.of_json(record["tally"]))
        for episode in record["episodes"]:
            own = _stats_of_json(episode["stats"])
            stats = aggregate(stats, own) if stats else own
            i = episode["entry"]["episode_index"]
            span = {"dataset_from_index": starts[i], "dataset_to_index": starts[i] + survey.lengths[i]}
            in_videos = {f"videos/{key}/{name}": v for key, places in videos.items() for name, v in places[i].items()}
            table.add(episode["entry"] | span | in_videos | _stats_columns(own))
    files |= table.close()
    info = lr.info_of(
        features,
        robot=plan.dataset.schema.robot,
        fps=plan.fps,
        episodes=len(plan.episodes),
        frames=sum(survey.lengths),
        tasks=len(survey.tasks),
        splits=lr.splits_of(plan.splits),
    )
    as_lists = {key: {name: value.tolist() for name, value in own.items()} for key, own in stats.items()}
    contents = {"meta/tasks.parquet": _tasks(survey), "meta/stats.json": _json(as_lists), INFO: _json(info)}
    for name, data in contents.items():
        write_bytes(plan.out / name, data)
        files[name] = len(data)
    return files, tally


def record_name(index: lr.FileIndex) -> str:
    """Returns the name of the record of a file of frames in the work folder."""
    return f"frames-{index[0]:03d}-{index[1]:03d}"


def stats_to_json(stats: Mapping[str, Stats]) -> dict[str, Any]:
    """Returns statistics as JSON values with their dtypes, on which the roundings of later sums depend."""
    return {key: {name: [str(v.dtype), v.tolist()] for name, v in own.items()} for key, own in stats.items()}


def _stats_of_json(stats: Mapping[str, Any]) -> dict[str, Stats]:
    return {
        key: {name: np.array(values, dtype=dtype) for name, (dtype, values) in own.items()}
        for key, own in stats.items()
    }


def _stats_columns(stats: Mapping[str, Stats]) -> dict[str, Any]:
    return {f"stats/{key}/{name}": value.tolist() for key, own in stats.items() for name, value in own.items()}


def _records(work: WorkFolder) -> Iterator[dict[str, Any]]:
    index = (0, 0)
    while (record := work.record(record_name(index))) is not None:
        yield record
        index = lr.next_file(index)


def _join_videos(
    plan: ExportPlan, camera: str, survey: Survey, work: WorkFolder, files: dict[str, int]
) -> list[_Place]:
    """Lays a camera's episodes end to end in files of limited size. Returns where each episode lies."""
    rate, key = exact_rate(plan.fps), plan.sample.keys[camera]
    paths = [video_part(work, camera, i).with_suffix(".mp4") for i in range(len(plan.episodes))]
    places: list[_Place] = []
    index: lr.FileIndex = (0, 0)
    for begin, end in _ranges_of_size([path.stat().st_size for path in paths], lr.VIDEO_FILE_BYTES):
        parts = [VideoPart(path=paths[i], frames=survey.lengths[i]) for i in range(begin, end)]
        name = lr.video_path(key, index)
        (plan.out / name).parent.mkdir(parents=True, exist_ok=True)
        join(plan.out / name, parts, rate)
        files[name] = (plan.out / name).stat().st_size
        before = 0
        for part in parts:
            span = {"from_timestamp": float(before / rate), "to_timestamp": float((before + part.frames) / rate)}
            places.append({"chunk_index": index[0], "file_index": index[1], **span})
            before += part.frames
        index = lr.next_file(index)
    return places


def _ranges_of_size(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Cuts a list into ranges ``begin <= i < end`` of less than ``most`` together; one alone may be larger."""
    begin, total = 0, 0
    for i, size in enumerate(sizes):
        if i > begin and total + size >= most:
            yield begin, i
            begin, total = i, 0
        total += size
    yield begin, len(sizes)


class _EpisodesTable:
    """Writes ``meta/episodes``: a row an episode, in files of limited size."""

    def __init__(self, out: Path) -> None:
        self._out, self._index, self._rows = out, (0, 0), list[dict[str, Any]]()
        self._tables: list[pa.Table] = []
        self._files: dict[str, int] = {}

    def add(self, row: dict[str, Any]) -> None:
        """Add an episode."""
        self._rows.append(
            row | {"meta/episodes/chunk_index": self._index[0], "meta/episodes/file_index": self._index[1]}
        )
        if len(self._rows) >= _EPISODES_A_GROUP:
            self._end_group()
            if sum(table.nbytes for table in self._tables) >= lr.DATA_FILE_BYTES:
                self._end_file()

    def close(self) -> dict[str, int]:
        """Write the rest. Returns the files with their sizes."""
        self._end_group()
        self._end_file()
        return self._files

    def _end_group(self) -> None:
        if self._rows:
            self._tables.append(pa.Table.from_pylist(self._rows))
            self._rows = []

    def _end_file(self) -> None:
        if not self._tables:
            return
        name, buffer = lr.episodes_path(self._index), io.BytesIO()
        with pq.ParquetWriter(buffer, self._tables[0].schema, compression="snappy") as writer:
            for table in self._tables:
                writer.write_table(table)
        (self._out / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(self._out / name, buffer.getvalue())
        self._files[name] = len(buffer.getvalue())
        self._index, self._tables = lr.next_file(self._index), []


def _tasks(survey: Survey) -> bytes:
    """The table as pandas writes it, with the tasks as its index: LeRobot takes them from there."""
    index = "__index_level_0__"
    kinds = {"pandas_type": "int64", "numpy_type": "int64", "metadata": None}
    of_index = {"pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    described = {
        "index_columns": [index],
        "column_indexes": [{"name": None, "field_name": None, **of_index, "metadata": {"encoding": "UTF-8"}}],
        "columns": [
            {"name": "task_index", "field_name": "task_index", **kinds},
            {"name": None, "field_name": index, **of_index},
        ],
    }
    table = pa.table({"task_index": pa.array(range(len(survey.tasks)), pa.int64()), index: pa.array(survey.tasks)})
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(described)}), buffer)
    return buffer.getvalue()


def _json(values: Any) -> bytes:
    return json.dumps(values, indent=4, ensure_ascii=False).encode()
