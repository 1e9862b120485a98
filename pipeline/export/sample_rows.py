"""What an exported frame holds, by name: state, action, sensors and cameras of a training sample, and their rows.

Both formats take their numbers from here. They are the numbers that training reads: the state's fields side by side, of
other streams the values at the anchor's times, and the recorded actions of the schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.export.image_bytes import CameraImages
from vlapipe.pipeline.export.one_rate import EpisodeFrames, episode_frames
from vlapipe.pipeline.shards.dataset import Dataset, Episode
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.schema import FieldSpec, Schema

__all__ = ["ExportedEpisode", "ExportedSample", "NumberField", "left_out_sensors", "read_episode", "sample_of"]


@dataclass(frozen=True, kw_only=True)
class NumberField:
    """Numbers of a frame: a field's name, its shape in one frame, and the name of each of its columns."""

    name: str
    shape: tuple[int, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ExportedSample:
    """What each frame holds. ``state`` are the fields side by side in the state; ``sizes`` are (height, width)."""

    state: tuple[NumberField, ...]
    action: NumberField
    sensors: tuple[tuple[str, str, NumberField], ...]  # name, stream, field
    cameras: tuple[str, ...]
    depth_cameras: tuple[str, ...]
    sizes: dict[str, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class ExportedEpisode:
    """The frames of one episode. Arrays are C-ordered float32 ``(N, ...)``; ``tasks`` has a text for each frame."""

    id: str
    frames: EpisodeFrames
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    sensors: dict[str, NDArray[np.float32]]
    cameras: dict[str, CameraImages]
    tasks: list[str]
    has_no_action: NDArray[np.bool_]  # frames without one; their action is zero
    has_no_state: NDArray[np.bool_]  # frames for which a field of another stream has no value within its tolerance

    def __len__(self) -> int:
        return len(self.frames)


def sample_of(dataset: Dataset, cameras: Sequence[str] | None, episodes: Sequence[int]) -> ExportedSample:
    """Returns what each frame of an export holds.

    Raises:
        UsageError: there is no such camera; or an episode lacks a camera or has images of another size.
    """
    schema = dataset.schema
    unknown = [name for name in cameras or () if name not in dataset.manifest.cameras]
    if unknown:
        have = ", ".join(dataset.manifest.cameras) or "none"
        raise UsageError(f"--cameras {unknown[0]}: no such camera", f"the dataset has {have}")
    chosen = tuple(dataset.cameras if cameras is None else dict.fromkeys(cameras))
    sizes = {camera: _size_of(dataset, camera, episodes) for camera in chosen}
    first = dataset.episode(int(episodes[0]))
    depth = tuple(camera for camera in chosen if CameraImages(dataset, first, camera).is_depth)
    left_out = left_out_sensors(dataset, episodes)
    sensors = [
        (name, path.partition("/")[0], _number_field(name, schema.field(path)))
        for name, path in schema.sample.sensors
        if name not in left_out
    ]
    return ExportedSample(
        state=tuple(_with_own_names(schema)),
        action=_action_field(schema),
        sensors=tuple(sensors),
        cameras=chosen,
        depth_cameras=depth,
        sizes=sizes,
    )


def left_out_sensors(dataset: Dataset, episodes: Sequence[int]) -> list[str]:
    """Returns the sensors that some of these episodes lack: neither format knows a frame without a number."""
    streams = {name: path.partition("/")[0] for name, path in dataset.schema.sample.sensors}
    return [name for name, stream in streams.items() if (dataset.column(f"{stream}/rows")[list(episodes)] == 0).any()]


def read_episode(dataset: Dataset, index: int, sample: ExportedSample, fps: float) -> ExportedEpisode:
    """Reads the frames of one episode. Images are read later, one at a time.

    Raises:
        DamageError: the shard is missing, cut short or altered.
    """
    episode = dataset.episode(index)
    schema = dataset.schema
    streams = [*sample.cameras, *(stream for _, stream, _ in sample.sensors if stream != schema.anchor)]
    frames = episode_frames(dataset, episode, fps, dict.fromkeys(streams))
    arrays = dataset.sample_arrays(episode.row["shard"])
    start = episode.row[f"{schema.anchor}/start"]
    rows = start + frames.anchor_rows
    sensors = {}
    for name, stream, _ in sample.sensors:
        own = frames.anchor_rows if stream == schema.anchor else frames.rows[stream]
        sensors[name] = np.ascontiguousarray(
            arrays[f"observation.sensors.{name}"][episode.row[f"{stream}/start"] + own]
        )
    no_state = arrays.get("observation.state_is_missing")
    return ExportedEpisode(
        id=episode.id,
        frames=frames,
        state=np.ascontiguousarray(arrays["observation.state"][rows]),
        action=np.ascontiguousarray(arrays["action"][rows]),
        sensors=sensors,
        cameras={camera: CameraImages(dataset, episode, camera) for camera in sample.cameras},
        tasks=_tasks(dataset, episode, frames.anchor_rows),
        has_no_action=arrays["action/row"][rows] < 0,
        has_no_state=np.zeros(len(rows), dtype=bool) if no_state is None else no_state[rows].reshape(-1) != 0,
    )


def _tasks(dataset: Dataset, episode: Episode, rows: NDArray[np.int64]) -> list[str]:
    """The instruction of each frame: its row's own if the recording has one a row, else the episode's."""
    column = dataset.schema.instruction.column
    if column is None:
        return [episode.instruction] * len(rows)
    texts = episode.text(column)
    return [texts[row] or episode.instruction for row in rows.tolist()]


def _size_of(dataset: Dataset, camera: str, episodes: Sequence[int]) -> tuple[int, int]:
    """The one size of a camera's images: (height, width)."""
    which = list(episodes)
    lacking = dataset.column(f"{camera}/rows")[which] == 0
    if lacking.any():
        first = dataset.column("id")[which[int(np.argmax(lacking))]]
        raise UsageError(
            f"{camera}: {int(lacking.sum())} of {len(which)} episodes lack this camera, such as {first}",
            "choose episodes with --where, or cameras with --cameras",
        )
    sizes = np.stack([dataset.column(f"{camera}/{side}")[which] for side in ("height", "width")], axis=1)
    distinct, counts = np.unique(sizes, axis=0, return_counts=True)
    if len(distinct) > 1:
        said = ", ".join(f"{w}x{h} in {n}" for (h, w), n in zip(distinct.tolist(), counts.tolist(), strict=True))
        raise UsageError(
            f"{camera}: expected images of one size in all episodes, found {said}",
            "ingest with --image-size, or choose episodes with --where",
        )
    return int(distinct[0][0]), int(distinct[0][1])


def _with_own_names(schema: Schema) -> list[NumberField]:
    """The fields of the state, each with a name of its own: its stream's name is added if two have the same."""
    paths = schema.sample.state
    bare = [path.partition("/")[2] for path in paths]
    names = [name if bare.count(name) == 1 else path.replace("/", "_") for name, path in zip(bare, paths, strict=True)]
    return [_number_field(name, schema.field(path)) for name, path in zip(names, paths, strict=True)]


def _number_field(name: str, field: FieldSpec) -> NumberField:
    return NumberField(name=name, shape=field.shape, columns=_column_names(name, field))


def _column_names(name: str, field: FieldSpec) -> tuple[str, ...]:
    """The names of a field's columns in the recording; numbered if the recording names only the whole field."""
    if len(field.columns) == field.num_columns and field.cells == "one":
        named = tuple(names[0] for names in field.columns)
        if len(set(named)) == len(named):
            return named
    return (name,) if field.num_columns == 1 else tuple(f"{name}_{i}" for i in range(field.num_columns))


def _action_field(schema: Schema) -> NumberField:
    names: list[str] = []
    for path in schema.action.of:
        names += _column_names(path.partition("/")[2], schema.field(path))
    names += [constant.name for constant in schema.action.append]
    return NumberField(name="action", shape=(len(names),), columns=_made_unique(names))


def _made_unique(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(names) if len(set(names)) == len(names) else tuple(f"{name}_{i}" for i, name in enumerate(names))
