"""What an exported frame holds, by name: state, action, sensors and cameras of a training sample, and their rows.

Both formats take their numbers from here. They are the numbers that training reads: the state's fields side by side, of
other streams the values at the anchor's times, and the recorded actions of the schema. Training reads float32; numbers
that were recorded as float64 on the anchor's clock stay so. A dataset that was LeRobot's keeps its other features and
their names too.
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
from vlapipe.schemas.schema import FieldSpec, ImageStream, Schema

__all__ = [
    "ExportedEpisode",
    "ExportedSample",
    "NumberField",
    "OtherField",
    "left_out_sensors",
    "read_episode",
    "sample_of",
]

Numbers = NDArray[np.generic]

_OF_LEROBOT = "lerobot"  # the layout of datasets that were LeRobot's
_TRUTHS = ("next.done", "next.success", "next.truncated")  # of LeRobot, stored here as uint8


@dataclass(frozen=True, kw_only=True)
class NumberField:
    """Numbers of a frame: a field's name, its shape in one frame, the name of each of its columns, and their dtype."""

    name: str
    shape: tuple[int, ...]
    columns: tuple[str, ...]
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class OtherField:
    """Numbers beside state and action: a sensor, or a feature that a LeRobot dataset had. ``key`` is LeRobot's name."""

    key: str
    path: str  # <stream>/<field>
    field: NumberField

    @property
    def stream(self) -> str:
        """The name of the stream."""
        return self.path.partition("/")[0]


@dataclass(frozen=True, kw_only=True)
class ExportedSample:
    """What each frame holds. ``state`` are the fields side by side in the state; ``sizes`` are (height, width)."""

    state: tuple[NumberField, ...]
    state_dtype: str
    action: NumberField
    others: tuple[OtherField, ...]
    cameras: tuple[str, ...]
    depth_units: dict[str, str]  # of the cameras that measure depth
    keys: dict[str, str]  # of cameras, LeRobot's names
    sizes: dict[str, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class ExportedEpisode:
    """The frames of one episode. Arrays are C-ordered ``(N, ...)``; ``tasks`` has a text for each frame."""

    id: str
    frames: EpisodeFrames
    state: Numbers
    action: Numbers
    others: dict[str, Numbers]  # by key
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
    units = {camera: dataset.manifest.depth_unit(camera) for camera in chosen}
    return ExportedSample(
        state=tuple(_with_own_names(schema)),
        state_dtype=_stored_dtype(dataset, schema.sample.state),
        action=_action_field(dataset),
        others=tuple(_others(dataset, episodes)),
        cameras=chosen,
        depth_units={camera: unit for camera, unit in units.items() if unit is not None},
        keys={camera: _camera_key(schema, camera) for camera in chosen},
        sizes={camera: _size_of(dataset, camera, episodes) for camera in chosen},
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
    episode, schema = dataset.episode(index), dataset.schema
    beside = [other.stream for other in sample.others if other.stream != schema.anchor]
    frames = episode_frames(dataset, episode, fps, dict.fromkeys([*sample.cameras, *beside]))
    arrays = dataset.sample_arrays(episode.row["shard"])
    at = frames.anchor_rows
    rows = episode.row[f"{schema.anchor}/start"] + at
    state: Numbers = arrays["observation.state"][rows]
    if sample.state_dtype != "float32":
        state = _side_by_side(episode, schema.sample.state, at)
    action: Numbers = arrays["action"][rows]
    if sample.action.dtype != "float32":
        action = _side_by_side(episode, schema.action.of, at)
    names = {path: f"observation.sensors.{name}" for name, path in schema.sample.sensors}
    others = {}
    for other in sample.others:
        own = at if other.stream == schema.anchor else frames.rows[other.stream]
        if other.field.dtype == "float32" and other.path in names:
            others[other.key] = arrays[names[other.path]][episode.row[f"{other.stream}/start"] + own]
        else:
            others[other.key] = episode[other.path][own].astype(other.field.dtype, copy=False)
    no_state = arrays.get("observation.state_is_missing")
    return ExportedEpisode(
        id=episode.id,
        frames=frames,
        state=np.ascontiguousarray(state),
        action=np.ascontiguousarray(action),
        others={key: np.ascontiguousarray(values) for key, values in others.items()},
        cameras={camera: CameraImages(dataset, episode, camera) for camera in sample.cameras},
        tasks=_tasks(dataset, episode, at),
        has_no_action=arrays["action/row"][rows] < 0,
        has_no_state=np.zeros(len(rows), dtype=bool) if no_state is None else no_state[rows].reshape(-1) != 0,
    )


def _side_by_side(episode: Episode, paths: Sequence[str], rows: NDArray[np.int64]) -> Numbers:
    """Fields of the anchor side by side, in the dtype that they are stored in."""
    return np.concatenate([episode[path][rows].reshape(len(rows), -1) for path in paths], axis=1)


def _stored_dtype(dataset: Dataset, paths: Sequence[str]) -> str:
    """The dtype of fields side by side: that of the recording if it may stay, else float32, which training reads."""
    schema = dataset.schema
    dtypes = {schema.field(path).dtype for path in paths}
    stays = schema.episodes.layout == _OF_LEROBOT or dtypes == {"float64"}
    if len(dtypes) != 1 or not stays or dataset.conversions or dataset.padded:
        return "float32"
    return dtypes.pop() if all(schema.is_on_anchor(path) for path in paths) else "float32"


def _tasks(dataset: Dataset, episode: Episode, rows: NDArray[np.int64]) -> list[str]:
    """The instruction of each frame: its row's own if the recording has one a row, else the episode's."""
    column = dataset.schema.instruction.column
    if column is None:
        return [episode.instruction] * len(rows)
    texts = episode.text(column)
    return [texts[row] or episode.instruction for row in rows.tolist()]


def _others(dataset: Dataset, episodes: Sequence[int]) -> list[OtherField]:
    """The sensors; and of a dataset that was LeRobot's all other features, by their own names."""
    schema = dataset.schema
    was_lerobot = schema.episodes.layout == _OF_LEROBOT
    left_out = left_out_sensors(dataset, episodes)
    names = {path: name for name, path in schema.sample.sensors if name not in left_out}
    taken = ("state", "images")
    keys = {path: f"observation.{'sensors.' if name in taken else ''}{name}" for path, name in names.items()}
    if was_lerobot:
        stored = [field for field in schema.anchor_stream.fields if not field.text]
        used = {*schema.sample.state, *schema.action.of}
        own = {f"{schema.anchor}/{field.name}": field.columns[0][0] for field in stored}
        keys |= {path: key for path, key in own.items() if path not in used}
    return [
        OtherField(
            key=key,
            path=path,
            field=_number_field(
                names.get(path, key),
                schema.field(path),
                "bool" if was_lerobot and key in _TRUTHS else _stored_dtype(dataset, [path]),
            ),
        )
        for path, key in keys.items()
    ]


def _camera_key(schema: Schema, camera: str) -> str:
    """LeRobot's name of a camera; the one that a dataset had that was LeRobot's."""
    usual = f"observation.images.{camera}"
    if schema.episodes.layout != _OF_LEROBOT:
        return usual
    stream = schema.stream(camera)
    assert isinstance(stream, ImageStream)
    if stream.kind == "images" and stream.array:
        return stream.array[0]
    folders = [part for part in stream.files[0].split("/") if part.endswith(camera) and not part.startswith("*")]
    return folders[0] if len(folders) == 1 else usual


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


def _number_field(name: str, field: FieldSpec, dtype: str = "float32") -> NumberField:
    return NumberField(name=name, shape=field.shape, columns=_column_names(name, field), dtype=dtype)


def _column_names(name: str, field: FieldSpec) -> tuple[str, ...]:
    """The names of a field's columns in the recording; numbered if the recording names only the whole field."""
    numbered = (name,) if field.num_columns == 1 else tuple(f"{name}_{i}" for i in range(field.num_columns))
    return field.recorded_names or numbered


def _action_field(dataset: Dataset) -> NumberField:
    schema, names = dataset.schema, list[str]()
    for path in schema.action.of:
        names += _column_names(path.partition("/")[2], schema.field(path))
    names += [constant.name for constant in schema.action.append]
    if len(set(names)) != len(names):
        names = [f"{name}_{i}" for i, name in enumerate(names)]
    is_recorded = schema.action.kind == "column" and not schema.action.append
    dtype = _stored_dtype(dataset, schema.action.of) if is_recorded else "float32"
    return NumberField(name="action", shape=(len(names),), columns=tuple(names), dtype=dtype)
