"""An edit is a generation that touches no shard; what was dropped is in no batch, statistic, report or export."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_lab import ingest_lab, make_lab, schema_text

import vlapipe
from vlapipe.cli import cli
from vlapipe.pipeline.change.edit import Edit, edit
from vlapipe.pipeline.shards.verify.verify import verify
from vlapipe.pipeline.show.difference import difference_of
from vlapipe.schemas.errors import UsageError

NAMES = [f"ep{i:02d}" for i in range(6)]
SCHEMA = schema_text(val=0.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    raw = make_lab(tmp_path / "raw", {name: {"by": "ann", "n": i} for i, name in enumerate(NAMES)})
    ingest_lab(raw, tmp_path / "data", SCHEMA)
    return tmp_path / "data"


def command(*arguments: object) -> str:
    done = CliRunner().invoke(cli, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def shards(data: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (data / "shards").iterdir()}


def test_dropped_episode_is_in_no_statistic_and_the_shards_are_untouched(data: Path, tmp_path: Path) -> None:
    before = shards(data)
    assert command("edit", data, "--drop", NAMES[1], NAMES[4], "--note", "shaky").startswith("generation 2 of ")
    for name in (NAMES[1], NAMES[4]):
        shutil.rmtree(tmp_path / "raw" / name)
    ingest_lab(tmp_path / "raw", tmp_path / "whole", SCHEMA)
    edited, whole = vlapipe.open_dataset(data), vlapipe.open_dataset(tmp_path / "whole")
    assert difference_of(edited, whole)["equal"]
    assert edited.manifest.statistics == whole.manifest.statistics  # to the last bit: one shard, in the same order
    assert shards(data) == before
    assert not verify(data).faults
    with pytest.raises(UsageError, match="no episode 'ep01'"):
        edited.episode(NAMES[1])


def test_arrays_of_the_kept_episodes_are_right_beside_a_cache_of_all(data: Path) -> None:
    whole = vlapipe.open_dataset(data)
    expected = {name: np.array(whole.episode(name)["action/value"]) for name in NAMES}
    edit(data, [NAMES[0], NAMES[3]], Edit(drop=True))
    edited = vlapipe.open_dataset(data)
    for name in edited.column("id").tolist():
        np.testing.assert_array_equal(edited.episode(name)["action/value"], expected[name])
    edit(data, [NAMES[0], NAMES[3]], Edit(restore=True))
    back = vlapipe.open_dataset(data)
    for name in NAMES:  # the cache of the generation without them must not be taken
        np.testing.assert_array_equal(back.episode(name)["action/value"], expected[name])


def test_restored_dataset_is_the_one_before(data: Path) -> None:
    before = vlapipe.open_dataset(data)
    command("edit", data, "--drop", NAMES[2])
    assert vlapipe.open_dataset(data).manifest.format_version == 5
    command("edit", data, "--restore", NAMES[2])
    after = vlapipe.open_dataset(data)
    assert after.episodes.equals(before.episodes)
    assert after.manifest.statistics == before.manifest.statistics
    assert after.manifest.shards == before.manifest.shards
    assert after.manifest.format_version == before.manifest.format_version


def test_whole_shard_can_be_dropped_and_restored(tmp_path: Path) -> None:
    raw = make_lab(tmp_path / "raw", dict.fromkeys(NAMES))
    data = tmp_path / "data"
    ingest_lab(raw, data, SCHEMA, shard_bytes=20)
    before = vlapipe.open_dataset(data)
    assert len(before.manifest.shards) == len(NAMES)
    edit(data, NAMES[:2], Edit(drop=True))
    assert vlapipe.open_dataset(data).stats["robot/q"].min[0] == pytest.approx(2)
    assert not verify(data).faults
    edit(data, NAMES[:2], Edit(restore=True))
    assert difference_of(before, vlapipe.open_dataset(data))["equal"]


def test_batches_have_no_dropped_episode(data: Path) -> None:
    pytest.importorskip("torch")
    edit(data, [NAMES[0], NAMES[5]], Edit(drop=True))
    opened = vlapipe.open_dataset(data)
    loader = vlapipe.Loader(opened, window=vlapipe.Window(), batch_size=4, num_workers=0)
    seen = {round(float(x)) for batch in loader for x in batch["observation.state"][:, -1, 0]}
    assert seen == {1, 2, 3, 4}
    old = vlapipe.Loader(vlapipe.open_dataset(data, generation=1), window=vlapipe.Window(), batch_size=4, num_workers=0)
    assert {round(float(x)) for batch in old for x in batch["observation.state"][:, -1, 0]} == {0, 1, 2, 3, 4, 5}


def test_export_and_inspect_have_no_dropped_episode(data: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    edit(data, [NAMES[0]], Edit(drop=True))
    assert "5 episodes" in command("inspect", data)
    command("export", data, tmp_path / "out.hdf5", "--to", "hdf5", "--fps", 10)
    with h5py.File(tmp_path / "out.hdf5") as file:
        assert len(file["data"]) == 5


def test_labels_and_metadata_are_set(data: Path) -> None:
    command(
        "edit", data, "--set", "instruction=lift it", "--set", "metadata/grade=3", "--where", 'by == "ann" and n > 3'
    )
    opened = vlapipe.open_dataset(data)
    assert opened.column("instruction").tolist()[4:] == ["lift it"] * 2
    assert opened.column("instruction").tolist()[3] != "lift it"
    assert opened.episodes["metadata/grade"].to_pylist() == [None] * 4 + [3, 3]
    assert command("edit", data, "--set", "metadata/grade=3", NAMES[5]).startswith("nothing to do")
    assert vlapipe.open_dataset(data).generation == 2


def test_moved_split_moves_the_statistics(data: Path) -> None:
    command("edit", data, "--split", "val", NAMES[5])
    opened = vlapipe.open_dataset(data)
    assert opened.column("split").tolist() == ["train"] * 5 + ["val"]
    assert opened.stats["robot/q"].count == 60
    assert opened.stats["robot/q"].max[0] < 5
    command("edit", data, "--split", "train", NAMES[5])
    assert (
        vlapipe.open_dataset(data).manifest.statistics == vlapipe.open_dataset(data, generation=1).manifest.statistics
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--drop", "ep7"), "no episode 'ep7'"),
        (("--drop", *NAMES), "no episode would be left"),
        (("--drop", "--restore", "ep00"), "say one of --drop, --restore, --set and --split"),
        (("ep00",), "say one of --drop"),
        (("--drop",), "which episodes\\?"),
        (("--set", "robot=1", "ep00"), "--set robot: cannot be set"),
        (("--set", "task", "ep00"), "expected NAME=VALUE"),
    ],
)
def test_edit_that_cannot_be_made_is_refused_and_leaves_nothing(
    data: Path, arguments: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        command("edit", data, *arguments)
    assert vlapipe.open_dataset(data).generation == 1
    assert not verify(data).faults


def test_dropped_episode_cannot_be_relabelled(data: Path) -> None:
    edit(data, [NAMES[0]], Edit(drop=True))
    with pytest.raises(UsageError, match=r"ep00 was dropped \(restore it first\)"):
        edit(data, [NAMES[0]], Edit(values={"task": "other"}))


def test_gaps_come_back_with_their_episode(tmp_path: Path) -> None:
    schema = SCHEMA.replace('files = ["robot.csv"]', 'files = ["robot.csv"]\n', 1) + GRIPPER
    raw = make_lab(tmp_path / "raw", dict.fromkeys(NAMES[:3]))
    for i, name in enumerate(NAMES[:3]):
        rows = [f"{1000 + 100 * i + t / 10},{t}" for t in range(12) if t not in (5, 6, 7)]
        (raw / name / "gripper.csv").write_text("\n".join(["t,g", *rows, ""]))
    data = tmp_path / "data"
    ingest_lab(raw, data, schema)
    before = vlapipe.open_dataset(data)
    assert before.manifest.gaps is not None
    assert before.manifest.gaps["count"] == 3
    edit(data, [NAMES[1]], Edit(drop=True))
    opened = vlapipe.open_dataset(data)
    assert opened.manifest.gaps is not None
    assert opened.manifest.gaps["count"] == 2
    edit(data, [NAMES[1]], Edit(restore=True))
    assert vlapipe.open_dataset(data).manifest.gaps == before.manifest.gaps


GRIPPER = """
[streams.gripper]
kind = "csv"
files = ["gripper.csv"]
max_gap_s = 0.25
[streams.gripper.time]
column = ["t"]
[streams.gripper.fields.g]
columns = ["g"]
"""
