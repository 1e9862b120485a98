"""Writes the schema of a LeRobot dataset in the ordinary language, from the dataset's own metadata.

The text can be saved, edited and used as a file: nothing about it is special but ``layout = "lerobot"``, which says
that the metadata tells where each episode lies.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlapipe.pipeline.discover.file_tree import WholeTree, walk
from vlapipe.pipeline.layouts.lerobot_meta import Feature, LeRobotMeta, read_meta
from vlapipe.schemas.errors import UsageError, printable
from vlapipe.schemas.schema import MISSING_SUFFIX
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["ANCHOR", "lerobot_schema"]

ANCHOR = "robot"
_OWN = ("timestamp", "frame_index", "episode_index", "index", "task_index")  # columns of LeRobot's own
_DTYPES = {
    "float16": "float32",
    "float32": "float32",
    "float64": "float64",
    "bool": "uint8",
    "int8": "int32",
    "int16": "int32",
    "int32": "int32",
    "int64": "int64",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "int64",
    "uint64": "int64",
}
_NOT_NAME = re.compile(r"\W+", re.ASCII)
_STARTS = ("observation.images.", "observation.image.", "observation.", "images.")
_DEPTH_PNG = (b"\x89PNG\r\n\x1a\n", 24, b"\x10\x00")  # the signature, where the bit depth is, 16 bits of gray


def lerobot_schema(root: Path) -> str:
    """Returns the TOML text of a schema for the dataset in ``root``.

    Raises:
        UsageError: the dataset's metadata cannot be read, or describes no numbers.
    """
    meta, tree = read_meta(root), walk(root.resolve())
    depth = _depth_cameras(root, meta, tree)
    numbers = [feature for feature in meta.features if feature.dtype in _DTYPES and feature.key not in _OWN]
    if not numbers:
        raise UsageError(
            "meta/info.json: features: no numbers in any feature", "a dataset of images alone has no frames"
        )
    names = _names(numbers, {"timestamp"}) | _names(meta.cameras, {ANCHOR, "action", "align"})
    return "\n".join([*_head(meta, root), *_robot(numbers, names, meta), *_cameras(meta, names, tree, depth)]) + "\n"


def _depth_cameras(root: Path, meta: LeRobotMeta, tree: WholeTree) -> frozenset[str]:
    """Returns the cameras whose first image in the first data file is 16 bits of gray."""
    path = next((episode.data_file for episode in meta.episodes if episode.data_file in tree.files), None)
    if path is None:
        return frozenset()
    try:
        with pq.ParquetFile(root / path) as file:
            kinds = {field.name: field.type for field in file.schema_arrow}
            images = [f.key for f in meta.cameras if f.key in kinds and pa.types.is_struct(kinds[f.key])]
            batch = next(file.iter_batches(batch_size=1, columns=images, use_threads=False)) if images else None
            return frozenset(key for key in images if batch is not None and _is_depth(batch.column(key)))
    except (OSError, ValueError, KeyError, StopIteration) as error:  # reading the episode reports it
        raise_if_stopped(error, root / path)
        return frozenset()


def _is_depth(images: pa.Array) -> bool:
    data: bytes | None = pc.struct_field(images, "bytes")[0].as_py()
    signature, at, sixteen_gray = _DEPTH_PNG
    return data is not None and data.startswith(signature) and data[at : at + 2] == sixteen_gray


def _names(features: Iterable[Feature], reserved: set[str]) -> dict[str, str]:
    """Returns a name of a stream or field for each feature: ``observation.state`` becomes ``state``."""
    short = {feature.key: _short(feature.key) for feature in features}
    counts = Counter(short.values())
    taken = set(reserved)
    names = {}
    for key, name in short.items():
        chosen = name if counts[name] == 1 else _as_name(key)
        while chosen in taken or chosen.endswith(MISSING_SUFFIX):
            chosen += "_"
        taken.add(chosen)
        names[key] = chosen
    return names


def _short(key: str) -> str:
    start = next((start for start in _STARTS if key.startswith(start) and len(key) > len(start)), "")
    return _as_name(key.removeprefix(start))


def _as_name(key: str) -> str:
    name = _NOT_NAME.sub("_", key).strip("_") or "value"
    return name if name[0].isalpha() else f"x{name}"


def _head(meta: LeRobotMeta, root: Path) -> list[str]:
    several = any(len(episode.tasks) > 1 for episode in meta.episodes)
    return [
        f"# Made from {printable(root.resolve().name)}/meta/info.json (LeRobot {meta.version}).",
        "schema_version = 1",
        'name = "lerobot"',
        f"description = {_quoted(f'LeRobot {meta.version} dataset')}",
        f"embodiment = {_quoted(meta.robot_type)}",
        f"anchor = {_quoted(ANCHOR)}",
        "",
        "[episodes]",
        'layout = "lerobot"                     # meta/ says where each episode lies',
        'metadata = ""',
        'task = "{metadata.instruction}"',
        "",
        "[instruction]",
        'file = ""',
        *([f"column = {_quoted(f'{ANCHOR}/task')}             # some episodes have several tasks"] if several else []),
        "",
    ]


def _robot(numbers: list[Feature], names: dict[str, str], meta: LeRobotMeta) -> list[str]:
    files = (
        "data/*/*.parquet" if all(e.data_file.count("/") == 2 for e in meta.episodes) else meta.episodes[0].data_file
    )
    observed = [feature.key for feature in numbers if feature.key.startswith("observation.")]
    state = "observation.state" if "observation.state" in names else next(iter(observed), numbers[0].key)
    acted = [feature.key for feature in numbers if feature.key == "action"]
    acted = acted or [feature.key for feature in numbers if re.match(r"actions?\b", feature.key)]
    sensors = [key for key in observed if key != state]
    of = ", ".join(_quoted(f"{ANCHOR}/{names[key]}") for key in acted)
    not_kept = [f.key for f in meta.features if not f.is_camera and f.key not in _OWN and f.dtype not in _DTYPES]
    return [
        f"[streams.{ANCHOR}]",
        'kind = "parquet"',
        f"files = [{_quoted(files)}]",
        f"rate_hz = {_number(meta.fps)}",
        f'time = {{ array = "frame_index", rate_hz = {_number(meta.fps)} }}',
        *[f"# not kept: {printable(key)} is no number" for key in not_kept],
        "",
        f"[streams.{ANCHOR}.fields]",
        *[_field(feature, names[feature.key]) for feature in numbers],
        *_task_field(meta),
        "",
        *(["[action]", 'kind = "column"', f"of = [{of}]", ""] if acted else []),
        "[sample]",
        f"state = [{_quoted(f'{ANCHOR}/{names[state]}')}]",
        *(["", "[sample.sensors]"] if sensors else []),
        *[f"{names[key]} = {_quoted(f'{ANCHOR}/{names[key]}')}" for key in sensors],
        "",
    ]


def _task_field(meta: LeRobotMeta) -> list[str]:
    """Returns the field with each row's instruction, if an episode has several."""
    texts = {
        text for episode in meta.episodes if len(episode.tasks) > 1 for text in (*episode.tasks, *meta.tasks.values())
    }
    if not texts:
        return []
    width = max(len(text.encode()) for text in texts)
    return [f'task = {{ array = "task", dtype = "text", width = {max(1, width)} }}']


def _field(feature: Feature, name: str) -> str:
    shape = () if feature.shape == (1,) else feature.shape  # a number, or a list of one: both are read
    entries = [f"array = {_quoted(feature.key)}"]
    entries += [f"shape = {list(shape)}"] if shape else []
    dtype = _DTYPES[feature.dtype]
    entries += [f"dtype = {_quoted(dtype)}"] if dtype != "float32" else []
    entries += [f"names = [{', '.join(map(_quoted, feature.names))}]"] if feature.names else []
    return f"{name} = {{ {', '.join(entries)} }}"


def _cameras(meta: LeRobotMeta, names: dict[str, str], tree: WholeTree, depth: frozenset[str]) -> list[str]:
    lines = []
    for feature in meta.cameras:
        if feature.is_video:
            spans = [episode.videos[feature.key] for episode in meta.episodes if feature.key in episode.videos]
            first = spans[0].file if spans else f"videos/{feature.key}.mp4"
            is_absent = not any(span.file in tree.files for span in spans)
            kind = ['kind = "video"', f"files = [{_quoted(_pattern(first, feature.key))}]"]
        else:
            is_absent = False
            kind = ['kind = "images"', f"files = [{_quoted('data/*/*.parquet')}]", f"array = [{_quoted(feature.key)}]"]
        lines += [
            f"[streams.{names[feature.key]}]",
            *kind,
            f"rate_hz = {_number(meta.fps)}",
            f"time = {{ rows_of = {_quoted(ANCHOR)} }}",
            *(
                ['unit = "mm"                            # assumed: LeRobot does not say it']
                if feature.key in depth
                else []
            ),
            *(["optional = true                       # no file of this camera is there"] if is_absent else []),
            "",
        ]
    return lines


def _pattern(file: str, key: str) -> str:
    """Returns the path of a video with a ``*`` for each part that differs from file to file."""
    return "/".join(part if part == key else re.sub(r"\d+", "*", part) for part in file.split("/"))


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
