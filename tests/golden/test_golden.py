"""A dataset of each format version, made by the vlapipe of its day, opens, verifies, trains and grows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from golden_dataset import HERE, OPTIONS, schema_of, values_of

import vlapipe
from vlapipe.pipeline.change.edit import Edit, edit
from vlapipe.pipeline.change.merge import merge
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.pipeline.shards.manifest.manifest import FORMAT_VERSION
from vlapipe.pipeline.shards.verify.verify import verify
from vlapipe.pipeline.show.inspection import inspect_dataset
from vlapipe.schemas.errors import UsageError

NAMES = ["1", "2", "3", "4", "5-changed", "5-parts"]
CANNOT_GROW = ["1", "2"]
GROWS = [name for name in NAMES if name not in CANNOT_GROW]

pytestmark = pytest.mark.filterwarnings("ignore::vlapipe.schemas.renamed.RenamedWarning")


def copy_of(name: str, tmp_path: Path) -> Path:
    shutil.copytree(HERE / f"format-{name}", tmp_path / "data")
    return tmp_path / "data"


def add(name: str, episodes: list[str], out: Path) -> IngestReport:
    """Ingest these recordings, with the options that the golden dataset was made with."""
    lab = out.parent / f"of-{out.name}" / "lab"
    for each in episodes:
        shutil.copytree(HERE / "recordings" / each, lab / each)
    if name == "5-changed" and "ep01" in episodes:  # as it was changed then
        table = HERE / "recordings" / "ep01" / "robot.csv"
        (lab / "ep01" / "robot.csv").write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    schema = lab.parent / "golden.toml"
    schema.write_text(schema_of(name))
    shard_bytes = 20 if name == "5-parts" else 1_000_000
    options = OPTIONS.get(name, {})
    return ingest(IngestConfig(source=lab, out=out, schema=str(schema), workers=1, shard_bytes=shard_bytes, **options))


def test_there_is_one_of_each_format_version() -> None:
    versions = {vlapipe.open_dataset(HERE / f"format-{name}").manifest.format_version for name in NAMES}
    assert versions == {*range(1, FORMAT_VERSION + 1)}


@pytest.mark.parametrize("name", NAMES)
def test_golden_dataset_verifies_and_every_value_is_as_it_was(name: str, tmp_path: Path) -> None:
    data = copy_of(name, tmp_path)
    assert verify(data).lines()[-1].endswith("MB: all good")  # every byte was read
    dataset = vlapipe.open_dataset(data)
    expected = json.loads((HERE / f"format-{name}.json").read_text())
    assert json.loads(json.dumps(values_of(dataset))) == expected
    assert [entry["id"] for entry in dataset.episodes.to_pylist()] == ["ep00", "ep01"]
    for number in range(2):
        recorded = np.loadtxt(HERE / "recordings" / f"ep0{number}" / "robot.csv", delimiter=",", skiprows=1)
        rows = 9 if (name, number) == ("5-changed", 1) else 10
        assert np.array_equal(dataset.episode(number)["robot/q"], recorded[:rows, 1:].astype(np.float32))
    assert inspect_dataset(dataset)["episodes"] == 2


@pytest.mark.parametrize("name", NAMES)
def test_golden_dataset_gives_batches(name: str, tmp_path: Path) -> None:
    dataset = vlapipe.open_dataset(copy_of(name, tmp_path))
    batch = next(iter(vlapipe.Loader(dataset, batch_size=4, num_workers=0)))
    assert batch["observation.images.top"].shape == (4, 1, 3, 16, 16)
    assert batch["action"].shape == (4, 3, 2)
    frames = vlapipe.torch_dataset(dataset)
    first = next(sample for sample in map(frames.__getitem__, range(len(frames))) if sample["task"] == "lift cup 1")
    assert np.allclose(first["observation.state"], [[10, 4.207], [10, 4.207]])
    assert np.allclose(first["action"], [[0.25, 0.653], [0.25, 0.117], [0.25, -0.431]], atol=2e-6)
    image = np.asarray(first["observation.images.top"])[0]
    # In the files red grows to the right and green downwards; blue does both.
    right, down = (abs(np.diff(image.mean(axis=axis), axis=-1).mean(axis=-1)) for axis in (1, 2))
    only_right, only_down = (2, 1) if name == "3" else (0, 1)
    assert right[only_right] > 20 * down[only_right]
    assert down[only_down] > 20 * right[only_down]


@pytest.mark.parametrize("name", GROWS)
def test_golden_dataset_grows_by_ingest(name: str, tmp_path: Path) -> None:
    data = copy_of(name, tmp_path)
    before = values_of(vlapipe.open_dataset(data))
    report = add(name, ["ep00", "ep01", "ep02"], data)
    assert report.changes == {"added": ["ep02"], "replaced": [], "removed": [], "set aside": []}
    now = values_of(vlapipe.open_dataset(data))
    assert {each: now[each] for each in before} == before
    assert verify(data).faults == []


@pytest.mark.parametrize("name", GROWS)
def test_golden_dataset_merges_with_one_of_today(name: str, tmp_path: Path) -> None:
    data, new = copy_of(name, tmp_path), tmp_path / "new"
    add(name, ["ep02"], new)
    expected = values_of(vlapipe.open_dataset(data)) | values_of(vlapipe.open_dataset(new))
    merge(new, [data])
    merge(data, [new])
    for each in (data, new):
        assert values_of(vlapipe.open_dataset(each)) == expected
        assert verify(each).faults == []


@pytest.mark.parametrize("name", CANNOT_GROW)
def test_oldest_ones_grow_by_merge_alone(name: str, tmp_path: Path) -> None:
    data = copy_of(name, tmp_path)
    with pytest.raises(UsageError, match="what it was made from is not known"):
        add(name, ["ep00", "ep01", "ep02"], data)
    add(name, ["ep02"], tmp_path / "new")
    with pytest.raises(UsageError, match="an older vlapipe made it"):
        merge(tmp_path / "new", [data])
    before = values_of(vlapipe.open_dataset(data))
    merge(data, [tmp_path / "new"])
    assert values_of(vlapipe.open_dataset(data)) == before | values_of(vlapipe.open_dataset(tmp_path / "new"))
    edit(data, ["ep00"], Edit(drop=True))
    assert vlapipe.open_dataset(data).column("id").tolist() == ["ep01", "ep02"]
    assert verify(data).faults == []
