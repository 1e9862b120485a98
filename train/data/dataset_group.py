"""Reads one or several datasets as one: episodes and shards are numbered through all datasets in the given order."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.derive.actions import ACTION_ROW, ACTION_STRIDE_ORDER, action_size
from vlapipe.pipeline.shards.mapped.layout import ROW_TEXT, STATE, STATE_IS_MISSING, TIME, is_aligned, sample_fields
from vlapipe.pipeline.shards.mapped.packed_rows import PackedRows
from vlapipe.schemas.schema import Channels, Schema

__all__ = ["ANCHOR", "IMAGES", "ROW_TEXT", "SENSORS", "Sources", "frames_of", "row_shapes"]

ANCHOR = ""  # stands for the anchor stream, whatever its name in each dataset
IMAGES, SENSORS = "observation.images.", "observation.sensors."  # batch entries begin like this


class Sources:
    """Datasets whose samples mean the same (``train.data.joining.dataset_comparison`` checks this).

    Datasets may use different names for the same stream. So a stream is named here by the batch entry that it feeds,
    ``observation.sensors.<name>`` or ``observation.images.<camera>``, or by ``ANCHOR``.
    """

    def __init__(self, datasets: Sequence[Dataset], robots: Sequence[str] = ()) -> None:
        """Number the episodes and shards through, and read the columns that a loader needs.

        Args:
            datasets: one at least.
            robots: the robot of each dataset, if they are padded to one size.
        """
        self.datasets = tuple(datasets)
        for each in self.datasets:
            each.read_columns(_columns(each))
        self.first_episode = np.cumsum([0, *(len(dataset) for dataset in self.datasets)])
        self._first_shard = np.cumsum([0, *(len(dataset.manifest.shards) for dataset in self.datasets)])
        frames = [frames_of(dataset) for dataset in self.datasets]
        self.frame_start, self.num_frames = (_joined([each[i] for each in frames]) for i in range(2))
        self.robots = tuple(dict.fromkeys(robots))
        self._robot_of_dataset = np.array([self.robots.index(robot) for robot in robots], dtype=np.int64)

    def of_robot(self, robot: str) -> Sources:
        """The datasets of one of ``robots``."""
        which = self._robot_of_dataset == self.robots.index(robot)
        return Sources([dataset for dataset, is_its in zip(self.datasets, which, strict=True) if is_its])

    @property
    def robots_of_datasets(self) -> list[str]:
        """The name in ``robots`` of each dataset's robot; empty if there are none."""
        return [self.robots[number] for number in self._robot_of_dataset.tolist()] if self.robots else []

    def robot_of(self, episodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number in ``robots`` of each episode's robot."""
        dataset = np.searchsorted(self.first_episode, episodes, side="right") - 1
        numbers: NDArray[np.int64] = self._robot_of_dataset[dataset]
        return numbers

    @property
    def first(self) -> Dataset:
        """The first dataset, whose schema gives the defaults."""
        return self.datasets[0]

    @property
    def num_shards(self) -> int:
        """Number of shards of all datasets."""
        return int(self._first_shard[-1])

    def name(self) -> str:
        """The paths of the datasets, for messages."""
        return ", ".join(str(dataset.place) for dataset in self.datasets)

    def column(self, name: str) -> NDArray[Any]:
        """A column of the episodes tables, end to end; every dataset must have it under the same name."""
        return _joined([dataset.column(name) for dataset in self.datasets])

    @cached_property
    def shards(self) -> NDArray[np.int64]:
        """The shard of each episode, numbered through all datasets; ascending."""
        columns = [dataset.column("shard").astype(np.int64, copy=False) for dataset in self.datasets]
        if len(columns) == 1:
            return columns[0]
        return np.concatenate([c + first for c, first in zip(columns, self._first_shard, strict=False)])

    def stream_column(self, stream: str, name: str) -> NDArray[np.int64]:
        """Column ``<stream>/<name>`` of the episodes tables, by each dataset's own name of the stream."""
        return _joined(
            [d.column(f"{_stream_name(d, stream)}/{name}").astype(np.int64, copy=False) for d in self.datasets]
        )

    def span_s(self, stream: str) -> NDArray[np.float64]:
        """The seconds from the first row of a stream to its last row, for each episode; 0 if it has no row."""
        spans = [d.column(f"{_stream_name(d, stream)}/last_s") - self._first_s(d, stream) for d in self.datasets]
        span_s: NDArray[np.float64] = np.nan_to_num(_joined(spans))
        return span_s

    def begin_s(self, stream: str) -> NDArray[np.float64]:
        """The time of a stream's first row, in seconds since the first anchor row, for each episode."""
        begins = [self._first_s(dataset, stream) - self._first_s(dataset, ANCHOR) for dataset in self.datasets]
        begin_s: NDArray[np.float64] = np.nan_to_num(_joined(begins))
        return begin_s

    def _first_s(self, dataset: Dataset, stream: str) -> NDArray[np.float64]:
        return dataset.column(f"{_stream_name(dataset, stream)}/first_s")

    @property
    def is_aligned(self) -> bool:
        """Whether any dataset's state has fields of another stream than the anchor."""
        return any(is_aligned(dataset.schema) for dataset in self.datasets)

    def is_on_anchor(self, stream: str) -> bool:
        """Whether the stream is the anchor itself, as that of a sensor entry may be: its rows need no alignment."""
        return all(_stream_name(dataset, stream) == dataset.schema.anchor for dataset in self.datasets)

    def place_of_shard(self, shard: int) -> tuple[Dataset, int]:
        """The dataset of a shard, and the shard's number in that dataset."""
        which = bisect_right(self._first_shard.tolist(), shard) - 1
        return self.datasets[which], shard - int(self._first_shard[which])

    def sample_arrays(self, shard: int) -> dict[str, NDArray[Any]]:
        """A shard's arrays that samples are read from, C-contiguous, by the names of ``sample_names``.

        Raises:
            DamageError: the shard is missing, cut short or altered.
        """
        dataset, number = self.place_of_shard(shard)
        arrays = dataset.sample_arrays(number)
        return {name: arrays[stored] for name, stored in self.sample_names(shard).items()}

    def sample_rows(self, shard: int) -> PackedRows | None:
        """See ``Dataset.sample_rows``; the rows' arrays have the names that are the values of ``sample_names``."""
        dataset, number = self.place_of_shard(shard)
        return dataset.sample_rows(number)

    @property
    def are_here(self) -> bool:
        """Whether every shard lies on this machine, in its dataset's folder or in the cache."""
        return all(dataset.is_here(shard) for dataset in self.datasets for shard in range(len(dataset.manifest.shards)))

    def fetch(self, shard: int, is_cancelled: Callable[[], bool]) -> None:
        """Fetch a shard into the cache if it lies in a store; see ``Dataset.fetch``."""
        dataset, number = self.place_of_shard(shard)
        if dataset.is_in_store:
            dataset.fetch(number, is_cancelled)

    def stored_bytes(self, shard: int) -> int:
        """The size of a shard's file."""
        dataset, number = self.place_of_shard(shard)
        return int(dataset.manifest.shards[number]["bytes"])

    @property
    def ahead_bytes(self) -> int | None:
        """How much of the caches may hold shards that are not needed yet: a quarter; ``None`` if none has a limit."""
        limits = [dataset.cache_bytes for dataset in self.datasets if dataset.cache_bytes is not None]
        return min(limits) // 4 if limits else None

    def sample_names(self, shard: int) -> dict[str, str]:
        """The name in the shard's own dataset of each array in ``sample_arrays``.

        There is one array for each float32 batch entry, ``action/row``, ``align/<entry>`` for each sensor and camera
        entry beside the anchor, each camera's images, the times of the anchor, and ``action/stride_order`` if the
        schema's action stride is not 1. A state of several streams adds the mask of missing rows, and windows in
        seconds add the times of all other streams. A schema with an instruction a row adds these texts.
        """
        dataset, number = self.place_of_shard(shard)
        names = {name: name for name in [*sample_fields(dataset.schema), ACTION_ROW, TIME]}
        if is_aligned(dataset.schema):
            names[STATE_IS_MISSING] = STATE_IS_MISSING
        if dataset.stored_stride > 1:
            names[ACTION_STRIDE_ORDER] = ACTION_STRIDE_ORDER
        entries = [f"{SENSORS}{name}" for name, _ in dataset.schema.sample.sensors]
        for entry in [*entries, *(f"{IMAGES}{camera}" for camera in dataset.cameras)]:
            if not self.is_on_anchor(entry):
                names[f"align/{entry}"] = f"align/{_stream_name(dataset, entry)}"
                if dataset.schema.sample.is_by_time:
                    names[f"{TIME}/{entry}"] = f"{TIME}/{_stream_name(dataset, entry)}"
        if dataset.schema.instruction.column is not None:
            names[ROW_TEXT] = dataset.schema.instruction.column
        for camera in dataset.cameras:
            is_raw = f"{camera}/pixels" in dataset.manifest.shards[number]["arrays"]
            kinds = ("pixels",) if is_raw else ("bytes", "offset")
            names |= {f"{camera}/{kind}": f"{camera}/{kind}" for kind in kinds}
        return names

    def is_depth(self, camera: str) -> bool:
        """Whether the camera measures depth, which is the same in all datasets."""
        return self.first.manifest.depth_unit(camera) is not None

    def image_place(self, episode: int, camera: str, row: int) -> str:
        """Where an image was recorded, for messages: its episode, its files, and its number and time among them.

        ``row`` is the image's row in its shard.
        """
        which = bisect_right(self.first_episode.tolist(), episode) - 1
        dataset, number = self.datasets[which], episode - int(self.first_episode[which])
        own = dataset.episode(number)
        at = row - int(own.row[f"{camera}/start"])
        source = own.row["sources"][[*dataset.manifest.streams].index(camera)]["path"]
        stamp = own[f"{camera}/timestamp"][at]
        time_s = f"{stamp / 1e9:.9f}".rstrip("0") if stamp.dtype.kind == "i" else f"{stamp:.6f}"
        where = f"{self.episode_id(episode)}: camera {camera}: image {at} of {source}"
        return f"{where} (counted from 0 in order of time; its time is {time_s} s)"

    def image_channels(self, camera: str) -> list[Channels]:
        """The order of the colours in a camera's stored images, by shard."""
        return [dataset.manifest.image_channels(camera) for dataset in self.datasets for _ in dataset.manifest.shards]

    def unpacked_bytes(self, shard: int) -> int:
        """About how many bytes the shard takes when it is unpacked."""
        dataset, number = self.place_of_shard(shard)
        arrays = dataset.manifest.shards[number]["arrays"].values()
        return sum(
            np.dtype(array["dtype"]).itemsize * math.prod(array["shape"])
            for array in arrays
            if array["codec"] != "none"
        )

    def shard_file(self, shard: int) -> str:
        """The path of a shard's file, for messages."""
        dataset, number = self.place_of_shard(shard)
        return str(dataset.path / dataset.manifest.shards[number]["file"])

    def episode_id(self, episode: int) -> str:
        """An episode's id, for messages."""
        which = bisect_right(self.first_episode.tolist(), episode) - 1
        row = episode - int(self.first_episode[which])
        return str(self.datasets[which].episode_column("id")[row].as_py())


def frames_of(dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first frame and the number of frames of each episode, both ``(episodes,)``.

    The first frame is the first anchor row at which each stream of a sample has begun. The last frame is the last row
    that has an action. For a chosen action with a period, the mean rate says which row that is; a row there whose
    action does not exist after all is padding.
    """
    start, count = (dataset.column(name).astype(np.int64, copy=False) for name in ("frame_start", "num_frames"))
    if dataset.schema == dataset.recorded:
        return start, count
    schema, names = dataset.schema, dataset.column_names
    streams = [path.partition("/")[0] for path in (*schema.sample.state, *dict(schema.sample.sensors).values())]
    streams = [stream for stream in dict.fromkeys([*streams, *dataset.cameras]) if stream != schema.anchor]
    begins = [f"{stream}/begin" for stream in streams]
    stop, anchor, is_trimmed = start + count, schema.anchor, schema.episodes.idle == "trim"
    own_stop = stop
    if not is_trimmed and all(
        name in names for name in begins
    ):  # a dataset of an older vlapipe keeps the frames that it was made with
        start = np.zeros_like(start)
        for name in begins:
            start = np.maximum(start, dataset.column(name))
    if schema.action != dataset.recorded.action:
        rows = dataset.column(f"{anchor}/rows").astype(np.int64, copy=False)
        span_s = dataset.column(f"{anchor}/last_s") - dataset.column(f"{anchor}/first_s")
        rate_hz = (rows - 1) / np.maximum(span_s, 1e-9)
        least_s = schema.action.period_s - schema.action.tolerance_s
        rows_ahead = {"column": 0, "next": 1}.get(schema.action.kind)
        ahead = np.maximum(1, np.ceil(least_s * rate_hz - 1e-3)) if rows_ahead is None else rows_ahead
        stop = rows - np.minimum(ahead, rows).astype(np.int64)
        stop = np.minimum(stop, own_stop) if is_trimmed else stop
    return start, np.maximum(stop - start, 0)


def row_shapes(schema: Schema) -> dict[str, tuple[int, ...]]:
    """The shape of one row of each float32 batch entry."""

    def shape(entry: str, fields: tuple[str, ...]) -> tuple[int, ...]:
        if entry == "action":
            return (action_size(schema),)
        if entry == STATE:
            return (sum(schema.field(path).num_columns for path in fields),)
        return schema.field(fields[0]).shape

    return {entry: shape(entry, fields) for entry, fields in sample_fields(schema).items()}


def _columns(dataset: Dataset) -> list[str]:
    """The columns of the episodes table that a loader needs; reading them together takes one pass instead of many."""
    columns = ["split", "shard", "frame_start", "num_frames", "instruction"]
    for stream in dataset.manifest.streams:
        columns += [f"{stream}/{name}" for name in ("start", "rows")]
        if dataset.schema != dataset.recorded:
            begin = f"{stream}/begin"
            columns += [f"{stream}/{name}" for name in ("first_s", "last_s")]
            columns += [begin] if begin in dataset.column_names else []
    gaps = f"{dataset.schema.anchor}/gaps"  # the first vlapipe knew of none
    columns += [gaps] if gaps in dataset.column_names else []
    return columns + [f"{camera}/{side}" for camera in dataset.cameras for side in ("height", "width")]


def _stream_name(dataset: Dataset, stream: str) -> str:
    if stream == ANCHOR:
        return dataset.schema.anchor
    if stream.startswith(IMAGES):
        return stream.removeprefix(IMAGES)
    return dict(dataset.schema.sample.sensors)[stream.removeprefix(SENSORS)].partition("/")[0]


def _joined(columns: list[NDArray[Any]]) -> NDArray[Any]:
    return columns[0] if len(columns) == 1 else np.concatenate(columns)
