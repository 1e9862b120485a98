"""Writes small LeRobot datasets, v2.0 to v3, in plain pyarrow and PyAV: the files that LeRobot's own writer makes.

Compared once with LeRobot 0.3.3 (v2.1) and 0.4.4 (v3.0): the same folders, columns and types, and their own loaders
read what is written here.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from videos import make_video, picture

__all__ = ["FPS", "JOINTS", "Written", "write_lerobot"]

FPS = 30
JOINTS = ["shoulder.pos", "elbow.pos", "gripper.pos"]


@dataclass
class Written:
    """What was written, for tests to compare with: by episode, each column's values and each camera's images."""

    root: Path
    columns: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    images: list[dict[str, list[NDArray[Any]]]] = field(default_factory=list)
    tasks: list[list[str]] = field(default_factory=list)  # of each row


def write_lerobot(
    root: Path,
    *,
    version: str = "v3.0",
    lengths: Sequence[int] = (12, 9, 15),
    cameras: dict[str, str] | None = None,
    tasks: Sequence[Sequence[str]] = (("pick the cube",), ("pick the cube",), ("open the drawer",)),
    episodes_a_file: int = 2,
    fps: int = FPS,
    depth: bool = False,
    videos: dict[str, Any] | None = None,
) -> Written:
    """Writes a dataset.

    ``cameras`` maps names to "video" or "image". An episode with several tasks does them one after the other.
    ``depth`` adds a camera ``depth`` of 16-bit PNG. ``videos`` are further arguments of ``make_video``.
    """
    cameras = {"front": "video"} if cameras is None else cameras
    every = {**cameras, **({"depth": "image"} if depth else {})}
    texts = list(dict.fromkeys(text for each in tasks for text in each))
    written = Written(root)
    first = 0
    for number, length in enumerate(lengths):
        columns, of_rows = _columns(number, length, first, tasks[number % len(tasks)], texts, fps)
        written.columns.append(columns)
        written.tasks.append(of_rows)
        written.images.append({name: [_image(name, number, row) for row in range(length)] for name in every})
        first += length
    write = _write_v3 if version.startswith("v3") else _write_v2
    chunks = write(root, written, every, tasks, episodes_a_file, fps, videos or {})
    keys = {name: f"observation.images.{name}" for name in every}
    features = {
        "observation.state": {"dtype": "float32", "shape": [3], "names": JOINTS},
        "observation.environment_state": {"dtype": "float64", "shape": [2], "names": {"axes": ["x", "y"]}},
        "observation.matrix": {"dtype": "float32", "shape": [2, 2], "names": None},
        "observation.count": {"dtype": "int64", "shape": [1], "names": None},
        "action": {"dtype": "float32", "shape": [3], "names": JOINTS},
        "next.reward": {"dtype": "float32", "shape": [1], "names": None},
        "next.done": {"dtype": "bool", "shape": [1], "names": None},
        **{keys[name]: _camera_feature(kind, written.images[0][name][0]) for name, kind in every.items()},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **{
            name: {"dtype": "int64", "shape": [1], "names": None}
            for name in ("frame_index", "episode_index", "index", "task_index")
        },
    }
    info = {
        "codebase_version": version,
        "robot_type": "so100",
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "total_tasks": len(texts),
        "chunks_size": 1000,
        "fps": fps,
        "splits": {"train": f"0:{len(lengths)}"},
        **chunks,
        "features": features,
    }
    (root / "meta/info.json").write_text(json.dumps(info, indent=4))
    if not version.startswith("v3"):
        stats = {"action": {"min": [0.0] * 3, "max": [1.0] * 3, "mean": [0.0] * 3, "std": [1.0] * 3, "count": [1]}}
        each = [{"episode_index": number, "stats": stats} for number in range(len(lengths))]
        _write_lines(root / "meta/episodes_stats.jsonl", each)
        _write_lines(root / "meta/tasks.jsonl", [{"task_index": i, "task": text} for i, text in enumerate(texts)])
        return written
    pd.DataFrame({"task_index": range(len(texts))}, index=texts).to_parquet(root / "meta/tasks.parquet")
    return written


def _columns(
    number: int, length: int, first: int, tasks: Sequence[str], texts: list[str], fps: int
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    rng = np.random.default_rng(number)
    at = np.arange(length)
    of_rows = [tasks[row * len(tasks) // length] for row in range(length)]
    time_s = at[:, None] / fps
    columns = {
        "observation.state": (np.sin(time_s * (1 + np.arange(3))) + number).astype(np.float32),
        "observation.environment_state": rng.normal(size=(length, 2)),
        "observation.matrix": rng.normal(size=(length, 2, 2)).astype(np.float32),
        "observation.count": at * 3 + number,
        "action": (np.cos(time_s * (1 + np.arange(3))) + number).astype(np.float32),
        "next.reward": (at / length).astype(np.float32),
        "next.done": at == length - 1,
        "timestamp": (at / fps).astype(np.float32),
        "frame_index": at,
        "episode_index": np.full(length, number),
        "index": at + first,
        "task_index": np.array([texts.index(text) for text in of_rows]),
    }
    return columns, of_rows


def _image(camera: str, episode: int, row: int) -> NDArray[Any]:
    if camera == "depth":
        return (np.add.outer(np.arange(24), np.arange(32)) * 40 + 1000 * episode + row).astype(np.uint16)
    image = picture(7 * episode + row + (50 if camera == "wrist" else 0))
    return image[::-1].copy() if camera == "wrist" else image


def _camera_feature(kind: str, image: NDArray[Any]) -> dict[str, Any]:
    shape = [*image.shape, 1][:3]
    about = {"video.height": shape[0], "video.width": shape[1], "video.is_depth_map": False, "has_audio": False}
    names = ["height", "width", "channels"]
    return {"dtype": kind, "shape": shape, "names": names, **({"info": about} if kind == "video" else {})}


def _table(columns: dict[str, NDArray[Any]], images: dict[str, list[NDArray[Any]]], first: int = 0) -> pa.Table:
    arrays = {name: _arrow(values) for name, values in columns.items()}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for name, each in images.items():
        rows = [{"bytes": _png(image), "path": f"frame-{first + i:06d}.png"} for i, image in enumerate(each)]
        arrays[f"observation.images.{name}"] = pa.array(rows, kind)
    told = {name: _of_datasets(columns[name]) if name in columns else {"_type": "Image"} for name in arrays}
    return pa.table(arrays).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": told}})})


def _of_datasets(values: NDArray[Any]) -> dict[str, Any]:
    """What the package `datasets` writes about a column."""
    value = {"dtype": str(values.dtype), "_type": "Value"}
    if values.ndim == 3:
        return {"dtype": str(values.dtype), "shape": list(values.shape[1:]), "_type": "Array2D"}
    return value if values.ndim == 1 else {"feature": value, "length": values.shape[1], "_type": "Sequence"}


def _arrow(values: NDArray[Any]) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    return pa.array(values.tolist(), pa.list_(pa.list_(pa.from_numpy_dtype(values.dtype))))


def _png(image: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _write_lines(path: Path, entries: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def _write_v2(
    root: Path,
    written: Written,
    cameras: dict[str, str],
    tasks: Sequence[Sequence[str]],
    _: int,
    fps: int,
    options: dict[str, Any],
) -> dict[str, Any]:
    episodes = []
    for number, columns in enumerate(written.columns):
        images = written.images[number]
        data = root / f"data/chunk-000/episode_{number:06d}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(_table(columns, {n: images[n] for n, kind in cameras.items() if kind == "image"}), data)
        for name, kind in cameras.items():
            if kind == "video":
                path = root / f"videos/chunk-000/observation.images.{name}/episode_{number:06d}.mp4"
                make_video(path, images[name], rate=fps, **options)
        length = len(columns["index"])
        episodes.append({"episode_index": number, "tasks": list(tasks[number % len(tasks)]), "length": length})
    _write_lines(root / "meta/episodes.jsonl", episodes)
    has_video = "video" in cameras.values()
    return {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
        if has_video
        else None,
    }


def _write_v3(
    root: Path,
    written: Written,
    cameras: dict[str, str],
    tasks: Sequence[Sequence[str]],
    episodes_a_file: int,
    fps: int,
    options: dict[str, Any],
) -> dict[str, Any]:
    entries = []
    for start in range(0, len(written.columns), episodes_a_file):
        numbers = range(start, min(start + episodes_a_file, len(written.columns)))
        file = start // episodes_a_file
        data = root / f"data/chunk-000/file-{file:03d}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        tables = []
        at = 0
        for number in numbers:
            columns, images = written.columns[number], written.images[number]
            tables.append(_table(columns, {n: images[n] for n, kind in cameras.items() if kind == "image"}))
            length, first = len(columns["index"]), int(columns["index"][0])
            entry: dict[str, Any] = {
                "episode_index": number,
                "tasks": list(tasks[number % len(tasks)]),
                "length": length,
                "data/chunk_index": 0,
                "data/file_index": file,
                "dataset_from_index": first,
                "dataset_to_index": first + length,
            }
            for name, kind in cameras.items():
                if kind == "video":
                    key = f"videos/observation.images.{name}"
                    entry |= {f"{key}/chunk_index": 0, f"{key}/file_index": file}
                    entry |= {f"{key}/from_timestamp": at / fps, f"{key}/to_timestamp": (at + length) / fps}
            entries.append({**entry, "stats/action/mean": [0.0, 0.0, 0.0], "meta/episodes/chunk_index": 0})
            at += length
        with pq.ParquetWriter(data, tables[0].schema) as writer:  # a row group an episode, as LeRobot writes them
            for table in tables:
                writer.write_table(table)
        for name, kind in cameras.items():
            if kind == "video":
                path = root / f"videos/observation.images.{name}/chunk-000/file-{file:03d}.mp4"
                make_video(path, [i for n in numbers for i in written.images[n][name]], rate=fps, **options)
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(entries), path)
    has_video = "video" in cameras.values()
    return {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4" if has_video else None,
    }
