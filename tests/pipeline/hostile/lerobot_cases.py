"""Hostile LeRobot datasets: what their metadata says about files, counts and names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lab import MARKER, Lab, case
from lerobot_datasets import write_lerobot


def dataset(
    lab: Lab, version: str = "v2.1", change: Callable[[dict[str, Any]], Any] | None = None, **options: Any
) -> Path:
    """Write a dataset of numbers; ``change`` changes info.json."""
    options = {"cameras": {}, "lengths": (12, 9), "tasks": (("pick",),), **options}
    write_lerobot(lab.raw, version=version, **options)
    path = lab.raw / "meta/info.json"
    info = json.loads(path.read_text())
    if change is not None:
        changed = change(info)
        path.write_text(changed if isinstance(changed, str) else json.dumps(info))
    return lab.raw


def outside(lab: Lab) -> None:
    """Write a data file beside the dataset."""
    pq.write_table(
        pa.table({"observation.state": [[1.0, 2.0, 3.0]], "x": [MARKER.decode()]}),
        lab.outside / "episode_000000.parquet",
    )


def _info(
    name: str, change: Callable[[dict[str, Any]], Any], *says: str, version: str = "v2.1", kept: bool = False
) -> None:
    @case("lerobot", name, *says, kept=kept)
    def _(lab: Lab) -> None:
        outside(lab)
        dataset(lab, version, change)


@case("lerobot", "nothing hostile", kept=True)
def _(lab: Lab) -> None:
    dataset(lab, cameras={"front": "video"})


_info(
    "data_path leads up",
    lambda info: info.update(data_path="../outside/episode_{episode_index:06d}.parquet"),
    "outside",
)
_info(
    "data_path leads up in format 3",
    lambda info: info.update(data_path="data/../../outside/episode_000000.parquet"),
    "outside",
    version="v3.0",
)
_info("data_path is absolute", lambda info: info.update(data_path="/etc/passwd"), "etc/passwd")
_info(
    "data_path names attributes",
    lambda info: info.update(data_path="data/{episode_chunk.__class__}/x.parquet"),
    "info.json",
    "data_path",
)
_info(
    "data_path has indices, conversions, no names",
    lambda info: info.update(data_path="{0}{episode_index!r}{}"),
    "info.json",
    "data_path",
)
_info(
    "data_path is a billion digits wide",
    lambda info: info.update(data_path="{episode_index:0999999999d}"),
    "info.json",
    "data_path",
)
_info("data_path is a list", lambda info: info.update(data_path=["data"]), "info.json", "data_path")
_info("data_path is an address", lambda info: info.update(data_path="http://127.0.0.1:1/x.parquet"), "127.0.0.1")
_info("data_path has a zero byte", lambda info: info.update(data_path="data/\0x.parquet"), "x.parquet")
_info("fps of 1e-300", lambda info: info.update(fps=1e-300), kept=True)
_info("fps of 1e300", lambda info: info.update(fps=1e300), kept=True)
_info("fps of a thousand digits", lambda info: json.dumps(info).replace('"fps": 30', '"fps": ' + "9" * 1000), "fps")
_info("fps that is not a number", lambda info: json.dumps(info).replace('"fps": 30', '"fps": NaN'), "fps")
_info("info.json 100000 deep", lambda _: "[" * 100_000, "info.json")
_info("info.json of endless digits", lambda _: "9" * 100_000, "info.json")
_info("info.json of zeros", lambda _: "\0" * 1000, "info.json")
_info("features of 2**40 numbers", lambda info: info["features"]["action"].update(shape=[1 << 40]), "action")
_info(
    "features of 2**30 x 2**30 numbers",
    lambda info: info["features"]["action"].update(shape=[1 << 30, 1 << 30]),
    "action",
)
_info("features of 1000 axes", lambda info: info["features"]["action"].update(shape=[1] * 1000), kept=True)
_info("chunks_size of 0", lambda info: info.update(chunks_size=0), kept=True)
_info("chunks_size of a text", lambda info: info.update(chunks_size="9" * 99), "chunks_size")
_info("totals of 2**62", lambda info: info.update(total_episodes=1 << 62, total_frames=1 << 62), "info.json", kept=True)
_info(
    "codebase_version of code", lambda info: info.update(codebase_version="v2.1\n[episodes]\nx = 1"), "codebase_version"
)
_info("robot_type of code", lambda info: info.update(robot_type='"\n[episodes]\nlayout = "x'), kept=True)


@case("lerobot", "names of features that are TOML, escapes and templates", kept=True)
def _(lab: Lab) -> None:
    def change(info: dict[str, Any]) -> None:
        names = [
            '"]\n[action]\nkind = "x"\n',
            "\x1b[2J",
            "../../outside/x",
            "{camera}",
            "robot",
            "timestamp",
            "",
            "a" * 100_000,
            "\u202e",
        ]
        for name in names:
            info["features"][f"observation.{name}"] = {"dtype": "float32", "shape": [1], "names": [name]}
            info["features"][name] = {"dtype": name, "shape": [1], "names": None}

    dataset(lab, change=change)


@case("lerobot", "20000 features", "info.json", "features")
def _(lab: Lab) -> None:
    def change(info: dict[str, Any]) -> None:
        info["features"] |= {f"x{i}": {"dtype": "float32", "shape": [1], "names": None} for i in range(20_000)}

    dataset(lab, change=change)


@case("lerobot", "video_path leads up", "info.json", "video_path")
def _(lab: Lab) -> None:
    (lab.outside / "episode_000000.mp4").write_bytes(MARKER)
    dataset(
        lab,
        change=lambda info: info.update(video_path="../outside/episode_{episode_index:06d}.mp4"),
        cameras={"front": "video"},
    )


@case("lerobot", "video_path names attributes", "info.json", "video_path")
def _(lab: Lab) -> None:
    dataset(
        lab, change=lambda info: info.update(video_path="{video_key.__class__.__mro__}"), cameras={"front": "video"}
    )


@case("lerobot", "a camera whose name leads up", kept=True)
def _(lab: Lab) -> None:
    (lab.outside / "episode_000000.mp4").write_bytes(MARKER)

    def change(info: dict[str, Any]) -> None:
        info["features"]["../../../outside"] = info["features"].pop("observation.images.front")

    dataset(lab, change=change, cameras={"front": "video"})


@case("lerobot", "data files that are links to elsewhere", "a link to", kept=True)
def _(lab: Lab) -> None:
    root = dataset(lab)
    path = root / "data/chunk-000/episode_000000.parquet"
    (lab.root / "elsewhere").mkdir()
    path.rename(lab.root / "elsewhere/x.parquet")
    path.symlink_to(lab.root / "elsewhere/x.parquet")


def _lines(name: str, *lines: Any, says: tuple[str, ...]) -> None:
    @case("lerobot", f"episodes.jsonl: {name}", *says)
    def _(lab: Lab) -> None:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (dataset(lab) / "meta/episodes.jsonl").write_text("\n".join(texts) + "\n")


_ONE = {"episode_index": 0, "tasks": ["pick"], "length": 12}
_lines("lengths of 2**62", {**_ONE, "length": 1 << 62}, says=("episode_000000", "4611686018427387904"))
_lines("an index of 2**62", {**_ONE, "episode_index": 1 << 62}, says=("4611686018427387904",))
_lines("an index below 0", {**_ONE, "episode_index": -1}, says=("episodes.jsonl:1",))
_lines("an index of a thousand digits", '{"episode_index": ' + "9" * 1000 + ', "length": 1}', says=("9999",))
_lines("one episode twice", _ONE, _ONE, says=("episode 0",))
_lines("100000 brackets", _ONE, "[" * 100_000, says=("episodes.jsonl:2",))
_lines("tasks that are tables", {**_ONE, "tasks": [{"a": 1}]}, says=("episodes.jsonl:1", "task"))
_lines("no line", says=("episode",))


def _many_lines(lab: Lab, count: int) -> None:
    path = dataset(lab) / "meta/episodes.jsonl"
    with path.open("w") as file:
        for start in range(0, count, 100_000):
            file.writelines(f'{{"episode_index":{i},"length":1}}\n' for i in range(start, start + 100_000))


@case("lerobot", "episodes.jsonl of 500000 lines", "meta/episodes.jsonl", limit_s=40)
def _(lab: Lab) -> None:
    _many_lines(lab, 500_000)


@case("lerobot", "episodes.jsonl of 10 million lines", "meta/episodes.jsonl", slow=True, limit_s=60)
def _(lab: Lab) -> None:
    _many_lines(lab, 10_000_000)


@case("lerobot", "info.json of 1 GB of holes", "info.json")
def _(lab: Lab) -> None:
    with (dataset(lab) / "meta/info.json").open("r+b") as file:
        file.truncate(1 << 30)


def _entry(name: str, change: Callable[[dict[str, list[Any]]], Any], *says: str) -> None:
    @case("lerobot", f"meta/episodes: {name}", *says)
    def _(lab: Lab) -> None:
        root = dataset(lab, "v3.0", cameras={"front": "video"})
        (path,) = root.glob("meta/episodes/*/*.parquet")
        columns = pq.read_table(path).to_pydict()
        change(columns)
        pq.write_table(pa.table(columns), path)


def _set(key: str, value: Any) -> Callable[[dict[str, list[Any]]], Any]:
    return lambda columns: columns.update({key: [value] * len(columns["episode_index"])})


_FRONT = "videos/observation.images.front"
_entry("rows of 2**62", _set("dataset_to_index", 1 << 62), "meta/episodes")
_entry("rows that begin before 0", _set("dataset_from_index", -5), "dataset_from_index")
_entry("files of number 2**62", _set("data/file_index", 1 << 62), "4611686018427387904")
_entry(
    "a video from 1e300 s to 2e300 s",
    lambda c: (_set(f"{_FRONT}/from_timestamp", 1e300)(c), _set(f"{_FRONT}/to_timestamp", 2e300)(c)),
    "front",
)
_entry("a video that ends before it begins", _set(f"{_FRONT}/to_timestamp", -5.0), "front")
_entry("stamps that are not a number", _set(f"{_FRONT}/from_timestamp", float("nan")), "from_timestamp")


@case("lerobot", "meta/tasks.parquet of forty million rows", "meta/tasks.parquet")
def _(lab: Lab) -> None:
    root = dataset(lab, "v3.0")
    rows = pa.table(
        {
            "task_index": np.zeros(2_000_000, np.int64),
            "task": pa.DictionaryArray.from_arrays(np.zeros(2_000_000, np.int8), ["x"]),
        }
    )
    with pq.ParquetWriter(root / "meta/tasks.parquet", rows.schema, compression="zstd") as writer:
        for _ in range(20):
            writer.write_table(rows, row_group_size=2_000_000)


@case("lerobot", "meta/episodes of twenty million rows", "meta/episodes")
def _(lab: Lab) -> None:
    root = dataset(lab, "v3.0")
    (path,) = root.glob("meta/episodes/*/*.parquet")
    zeros = np.zeros(2_000_000, np.int64)
    names = ("episode_index", "length", "dataset_from_index", "dataset_to_index", "data/chunk_index", "data/file_index")
    rows = pa.table(dict.fromkeys(names, zeros))
    with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
        for _ in range(10):
            writer.write_table(rows, row_group_size=2_000_000)


@case("lerobot", "data files that are something else", "data/chunk-000/episode_000000.parquet")
def _(lab: Lab) -> None:
    for path in dataset(lab).glob("data/*/*.parquet"):
        path.write_bytes(MARKER[:8] * 50)
