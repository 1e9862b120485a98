"""Tables and JSON files of LeRobot's dataset format v3.0: columns, types and file names, as LeRobot 0.4 writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlapipe.pipeline.export.sample_rows import ExportedSample, NumberField

__all__ = [
    "ACTION_MISSING",
    "CHUNK_FILES",
    "DATA_FILE_BYTES",
    "STATE_MISSING",
    "VIDEO_FILE_BYTES",
    "data_path",
    "episodes_path",
    "features_of",
    "frames_schema",
    "frames_table",
    "info_of",
    "next_file",
    "splits_of",
    "video_path",
]

Features = dict[str, dict[str, Any]]
FileIndex = tuple[int, int]  # chunk (folder) and file in it

CHUNK_FILES = 1000  # files of a chunk
_DATA_MB, _VIDEO_MB = 100, 200  # in LeRobot's words; it counts powers of 1024
DATA_FILE_BYTES = _DATA_MB << 20
VIDEO_FILE_BYTES = _VIDEO_MB << 20
STATE_MISSING, ACTION_MISSING = "missing.state", "missing.action"  # ours; only where a frame lacks one

_DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_OF_EVERY_FRAME: Features = {
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},
    "task_index": {"dtype": "int64", "shape": [1], "names": None},
}
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_ARROW = {
    "bool": pa.bool_(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
}


def data_path(index: FileIndex) -> str:
    """Returns the path of a file of frames within the dataset."""
    return _DATA_PATH.format(chunk_index=index[0], file_index=index[1])


def video_path(key: str, index: FileIndex) -> str:
    """Returns the path of a video file within the dataset."""
    return _VIDEO_PATH.format(video_key=key, chunk_index=index[0], file_index=index[1])


def episodes_path(index: FileIndex) -> str:
    """Returns the path of a file of episodes within the dataset."""
    return _EPISODES_PATH.format(chunk_index=index[0], file_index=index[1])


def next_file(index: FileIndex) -> FileIndex:
    """Returns the file after this one; a chunk has at most ``CHUNK_FILES`` files."""
    chunk, file = index
    return (chunk + 1, 0) if file == CHUNK_FILES - 1 else (chunk, file + 1)


def features_of(sample: ExportedSample, *, video: bool, missing: Iterable[str]) -> Features:
    """Returns the features of ``info.json``, in the order of the columns."""
    columns = tuple(name for field in sample.state for name in field.columns)
    names = columns if len(set(columns)) == len(columns) else _with_field_names(sample.state)
    found: Features = {"observation.state": _numbers(sample.state_dtype, (len(names),), names)}
    found["action"] = _numbers(sample.action.dtype, sample.action.shape, sample.action.columns)
    for camera in sample.cameras:
        unit = sample.depth_units.get(camera)
        found[sample.keys[camera]] = {
            "dtype": "video" if video and unit is None else "image",
            "shape": [*sample.sizes[camera], 3 if unit is None else 1],
            "names": ["height", "width", "channels"],
            **({} if unit is None else {"info": {"is_depth_map": True, "unit": unit}}),
        }
    for other in sample.others:
        field = other.field
        has_names = len(field.shape) < 2 and field.columns != (field.name,)
        found[other.key] = _numbers(field.dtype, field.shape or (1,), field.columns if has_names else None)
    found |= {name: {"dtype": "bool", "shape": [1], "names": None} for name in missing}
    return found | _OF_EVERY_FRAME


def _numbers(dtype: str, shape: tuple[int, ...], names: Sequence[str] | None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "names": None if names is None else list(names)}


def _with_field_names(fields: Sequence[NumberField]) -> tuple[str, ...]:
    return tuple(f"{field.name}.{column}" for field in fields for column in field.columns)


def frames_schema(features: Features) -> pa.Schema:
    """Returns the Arrow schema of a file of frames, with what the ``datasets`` library keeps in it."""
    stored = {name: feature for name, feature in features.items() if feature["dtype"] != "video"}
    described = {"info": {"features": {name: _described(feature) for name, feature in stored.items()}}}
    fields = [pa.field(name, _arrow_type(feature)) for name, feature in stored.items()]
    return pa.schema(fields, metadata={"huggingface": json.dumps(described)})


def _arrow_type(feature: Mapping[str, Any]) -> pa.DataType:
    if feature["dtype"] == "image":
        return _IMAGE
    found, shape = _ARROW[feature["dtype"]], feature["shape"]
    if shape == [1]:
        return found
    if len(shape) == 1:
        return pa.list_(found, shape[0])
    for _ in shape:
        found = pa.list_(found)
    return found


def _described(feature: Mapping[str, Any]) -> dict[str, Any]:
    if feature["dtype"] == "image":
        return {"_type": "Image"}
    shape, value = feature["shape"], {"dtype": feature["dtype"], "_type": "Value"}
    if shape == [1]:
        return value
    if len(shape) == 1:
        return {"feature": value, "length": shape[0], "_type": "Sequence"}
    return {"shape": shape, "dtype": feature["dtype"], "_type": f"Array{len(shape)}D"}


def frames_table(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """Returns the frames of an episode. A column is an array ``(N, ...)``, or of images a list of (bytes, name)."""
    return pa.table([_arrow(columns[field.name], field.type) for field in schema], schema=schema)


def _arrow(values: Any, kind: pa.DataType) -> pa.Array:
    if kind == _IMAGE:
        data, names = zip(*values, strict=True)
        return pa.StructArray.from_arrays([pa.array(data, pa.binary()), pa.array(names)], fields=list(kind))
    array: NDArray[Any] = values
    if not pa.types.is_nested(kind):
        return pa.array(array.reshape(-1), kind)
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1), kind.value_type), type=kind)
    found = pa.array(array.reshape(-1))
    for length in reversed(array.shape[1:]):
        offsets = np.arange(0, len(found) + 1, length, dtype=np.int32)
        found = pa.ListArray.from_arrays(offsets, found)
    return found


def splits_of(splits: Sequence[str]) -> dict[str, str]:
    """Returns each split as ranges of episodes, ``"0:8"``, or ``"0:3,4:8"`` if others lie between."""
    runs: dict[str, list[list[int]]] = {}
    for i, split in enumerate(splits):
        own = runs.setdefault(split, [])
        if own and own[-1][1] == i:
            own[-1][1] = i + 1
        else:
            own.append([i, i + 1])
    return {split: ",".join(f"{first}:{until}" for first, until in own) for split, own in runs.items()}


def info_of(
    features: Features, *, robot: str, fps: float, episodes: int, frames: int, tasks: int, splits: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the content of ``meta/info.json``."""
    has_video = any(feature["dtype"] == "video" for feature in features.values())
    return {
        "codebase_version": "v3.0",
        "robot_type": robot,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": _DATA_MB,
        "video_files_size_in_mb": _VIDEO_MB,
        "fps": int(fps) if float(fps).is_integer() else fps,
        "splits": dict(splits),
        "data_path": _DATA_PATH,
        "video_path": _VIDEO_PATH if has_video else None,
        "features": features,
    }
