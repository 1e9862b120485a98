"""A LeRobot dataset that goes in by ``--schema lerobot`` and out again is the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import vlapipe
from vlapipe.pipeline.export.export import export
from vlapipe.pipeline.ingest import IngestConfig, ingest

sys.path.append(str(Path(__file__).parents[3]))
pytest.importorskip("av")

from tests.lerobot_datasets import write_lerobot


def frames(root: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted((root / "data").rglob("*.parquet"))])


def info(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "meta" / "info.json").read_text())
    return found


def there_and_back(tmp_path: Path, **options: Any) -> None:
    write_lerobot(tmp_path / "in", **options)
    report = ingest(IngestConfig(source=tmp_path / "in", out=tmp_path / "data", schema="lerobot"))
    assert not report.rejects
    export(tmp_path / "data", tmp_path / "out")


@pytest.mark.parametrize("fps", [30, 12])
def test_every_column_of_v3_has_the_same_values_and_type(tmp_path: Path, fps: int) -> None:
    cameras = {"front": "image", "wrist": "image"}
    tasks = (("pick", "place"), ("pick",), ("open the drawer",))
    there_and_back(tmp_path, cameras=cameras, depth=True, tasks=tasks, fps=fps)
    before, after = frames(tmp_path / "in"), frames(tmp_path / "out")
    assert set(before.column_names) == set(after.column_names)
    for name in before.column_names:
        assert after[name].to_pylist() == before[name].to_pylist(), name
        assert after.schema.field(name).type == before.schema.field(name).type, name
    was, now = info(tmp_path / "in"), info(tmp_path / "out")
    features = was.pop("features"), now.pop("features")
    assert {name: now[name] for name in was} == was
    for key, feature in features[0].items():
        assert {name: features[1][key][name] for name in ("dtype", "shape")} == {
            name: feature[name] for name in ("dtype", "shape")
        }
    assert features[1]["action"]["names"] == features[0]["action"]["names"]
    pandas = [pq.read_table(tmp_path / side / "meta" / "tasks.parquet").to_pandas() for side in ("in", "out")]
    assert pandas[0].equals(pandas[1])


def test_v2_comes_out_as_v3(tmp_path: Path) -> None:
    there_and_back(tmp_path, version="v2.1", cameras={"front": "image"})
    before, after = frames(tmp_path / "in"), frames(tmp_path / "out")
    for name in before.column_names:
        if name not in ("observation.images.front",):
            assert after[name].to_pylist() == before[name].to_pylist(), name
    images = [[image["bytes"] for image in table["observation.images.front"].to_pylist()] for table in (before, after)]
    assert images[0] == images[1]
    assert info(tmp_path / "out")["codebase_version"] == "v3.0"


def test_video_that_was_exported_goes_in_again(tmp_path: Path) -> None:
    there_and_back(tmp_path, cameras={"front": "video"})
    report = export(tmp_path / "data", tmp_path / "video", video="h264")
    assert report.tally.losses["front"].worst_psnr_db > 25
    again = ingest(IngestConfig(source=tmp_path / "video", out=tmp_path / "again", schema="lerobot"))
    assert not again.rejects
    once, twice = vlapipe.open_dataset(tmp_path / "data"), vlapipe.open_dataset(tmp_path / "again")
    for i in range(len(once)):
        assert (once.episode(i)["robot/state"] == twice.episode(i)["robot/state"]).all()
        assert once.row(i)["front/rows"] == twice.row(i)["front/rows"]
    key = "observation.images.front"
    assert info(tmp_path / "in")["features"][key]["shape"] == info(tmp_path / "video")["features"][key]["shape"]
