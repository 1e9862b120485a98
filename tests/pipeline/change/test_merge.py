"""Merge adds the episodes of other datasets by linking their shards; the result is that of one ingest of everything."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from factories import make_episode
from tiny_lab import ingest_lab, make_lab, schema_text

import vlapipe
from vlapipe.cli import cli
from vlapipe.pipeline.change.edit import Edit, edit
from vlapipe.pipeline.change.merge import merge
from vlapipe.pipeline.change.work_folder import remove_unlisted
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.manifest import parts as limits
from vlapipe.pipeline.shards.manifest.gaps_table import read_gaps
from vlapipe.pipeline.shards.manifest.history import entries
from vlapipe.pipeline.shards.verify.verify import verify
from vlapipe.pipeline.show.difference import difference_of
from vlapipe.schemas.errors import DamageError, UsageError

SCHEMA = schema_text(val=0.3)
NAMES = [f"ep{i:02d}" for i in range(8)]
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
SMALL_SHARD = 20  # bytes: each episode is a shard


class Lab:
    """Eight recordings, and datasets of some of them, whose recordings lie in folders of one name, the task."""

    def __init__(self, root: Path, shard_bytes: int) -> None:
        self.root, self.shard_bytes = root, shard_bytes
        self.all = make_lab(root / "all" / "lab", {name: {"by": "ann", "n": i} for i, name in enumerate(NAMES)})

    def raw(self, name: str) -> Path:
        return self.root / f"raw-{name}" / "lab"

    def dataset(self, name: str, episodes: list[str], schema: str = SCHEMA) -> Path:
        for each in episodes:
            shutil.copytree(self.all / each, self.raw(name) / each)
        self.ingest(self.raw(name), self.root / name, schema)
        return self.root / name

    def ingest(self, raw: Path, out: Path, schema: str = SCHEMA, **options: Any) -> IngestReport:
        return ingest_lab(raw, out, schema, shard_bytes=self.shard_bytes, workers=1, **options)

    def whole(self, schema: str = SCHEMA) -> Dataset:
        self.ingest(self.all, self.root / "whole", schema)
        return vlapipe.open_dataset(self.root / "whole")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path, SMALL_SHARD)


@pytest.fixture
def one_shard(tmp_path: Path) -> Lab:
    """Its datasets are one shard each."""
    return Lab(tmp_path, 1_000_000)


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on a file system to which nothing here can be linked."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of random name is made there
    if not memory.is_dir() or memory.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("there is one file system only")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def ids(data: Path, generation: int | None = None) -> list[str]:
    names: list[str] = vlapipe.open_dataset(data, generation=generation).column("id").tolist()
    return names


def gaps(dataset: Dataset) -> list[tuple[str, str]]:
    """Each gap, by its episode's name."""
    rows = [row for table in read_gaps(dataset.path, dataset.manifest.all_parts) for row in table.to_pylist()]
    return [(str(dataset.column("id")[row.pop("episode_index")]), json.dumps(row)) for row in rows]


def assert_one_ingest(merged: Dataset, whole: Dataset) -> None:
    """The same episodes, in any order; the same totals, findings and statistics, these but for rounding."""
    report = difference_of(merged, whole)
    assert report["equal"], report
    assert merged.manifest.totals == whole.manifest.totals
    assert merged.column_names == whole.column_names
    assert sorted(gaps(merged)) == sorted(gaps(whole))
    assert_same_statistics(merged, whole)
    assert verify(merged.path).lines()[-1].endswith("all good")


def assert_same_statistics(merged: Dataset, whole: Dataset) -> None:
    """To the last bit, but for the rounding of means and deviations, which go by the order of the shards."""
    assert merged.manifest.statistics.keys() == whole.manifest.statistics.keys()
    for path, each in whole.manifest.statistics.items():
        for name, value in each.items():
            mine = merged.manifest.statistics[path][name]
            assert mine == (pytest.approx(value, rel=1e-12) if name in ("mean", "std") else value), (path, name)


def test_merged_dataset_is_one_ingest_of_everything_and_its_shards_are_links(lab: Lab) -> None:
    a, b, c = (lab.dataset(name, some) for name, some in (("a", NAMES[:3]), ("b", NAMES[3:6]), ("c", NAMES[6:])))
    done = CliRunner().invoke(cli, ["merge", str(a), str(b), str(c), "--note", "all"], catch_exceptions=False)
    assert done.output == f"generation 2 of {a}: 5 episodes added; 5 shards linked\n"
    assert_one_ingest(vlapipe.open_dataset(a), lab.whole())
    assert ids(a) == NAMES
    assert ids(a, generation=1) == NAMES[:3]
    for file in vlapipe.open_dataset(b).manifest.shard_files:
        assert (a / file).samefile(b / file)
    entry = entries(a)[-1]
    assert (entry.what, entry.note, entry.changes["added"]) == ("merge", "all", NAMES[3:])
    assert not (a / ".ingest").exists()
    assert ids(b) == NAMES[3:6]


def test_linked_shards_are_not_read(lab: Lab) -> None:
    a, b = lab.dataset("a", NAMES[:3]), lab.dataset("b", NAMES[3:])
    file = vlapipe.open_dataset(b).manifest.shard_files[0]
    (b / file).chmod(0o644)
    (b / file).write_bytes(bytes((b / file).stat().st_size))
    merge(a, [b])
    assert [fault.file for fault in verify(a).damage] == [file]


def test_datasets_of_one_shard_have_no_sums_and_merge_too(one_shard: Lab) -> None:
    a, b = one_shard.dataset("a", NAMES[:3]), one_shard.dataset("b", NAMES[3:])
    merge(a, [b])
    merged, whole = vlapipe.open_dataset(a), one_shard.whole()
    assert difference_of(merged, whole)["equal"]
    assert_same_statistics(merged, whole)
    assert not (b / ".cache").exists()


@pytest.mark.parametrize("shard_bytes", [pytest.param(SMALL_SHARD, marks=pytest.mark.slow), 1_000_000])
def test_episodes_of_both_are_taken_once(tmp_path: Path, shard_bytes: int) -> None:
    lab = Lab(tmp_path, shard_bytes)
    a, b = lab.dataset("a", NAMES[:5]), lab.dataset("b", NAMES[3:])
    done = merge(a, [b])
    assert done.changes == {"added": NAMES[5:], "added as dropped": [], "set aside": [], "already there": 2}
    merged, whole = vlapipe.open_dataset(a), lab.whole()
    assert difference_of(merged, whole)["equal"]
    assert_same_statistics(merged, whole)
    for name in NAMES:
        assert merged.episode(name)["robot/q"].tolist() == whole.episode(name)["robot/q"].tolist()
    assert verify(a).lines()[-1].endswith("all good")
    again = CliRunner().invoke(cli, ["merge", str(a), str(b)], catch_exceptions=False)
    assert again.output == "nothing to do: 5 episodes already there\n"
    assert vlapipe.open_dataset(a).generation == 2


def test_another_recording_of_the_same_name_is_refused_and_can_be_left_out(lab: Lab) -> None:
    a = lab.dataset("a", NAMES[:3])
    with (lab.all / NAMES[2] / "robot.csv").open("a") as file:
        file.write("5000,0.5\n")
    b = lab.dataset("b", NAMES[2:])
    before = {path: path.read_bytes() for path in a.rglob("*") if path.is_file()}
    done = CliRunner().invoke(cli, ["merge", str(a), str(b)])
    assert isinstance(done.exception, UsageError)
    assert str(done.exception) == (
        f"{b}: 1 episode of the same name, but from another recording: ep02 "
        f"(leave one out: vlapipe edit {b} --drop ep02)"
    )
    assert {path: path.read_bytes() for path in a.rglob("*") if path.is_file()} == before
    edit(b, ["ep02"], Edit(drop=True))
    merge(a, [b])
    assert ids(a) == NAMES
    assert vlapipe.open_dataset(a).episode("ep02")["robot/q"].shape[0] == 12


def test_dropped_relabelled_and_moved_episodes_stay_so(lab: Lab) -> None:
    a, b = lab.dataset("a", NAMES[:3]), lab.dataset("b", NAMES[3:])
    edit(b, [NAMES[4]], Edit(drop=True))
    edit(b, [NAMES[5]], Edit(values={"task": "cup", "metadata/grade": 3}))
    was = dict(zip(*(vlapipe.open_dataset(b).column(name).tolist() for name in ("id", "split")), strict=True))
    other = {"train": "val", "val": "train"}[was[NAMES[6]]]
    edit(b, [NAMES[6]], Edit(values={"split": other}))
    done = merge(a, [b])
    assert done.changes["added as dropped"] == [NAMES[4]]
    merged = vlapipe.open_dataset(a)
    assert ids(a) == [name for name in NAMES if name != NAMES[4]]
    row = merged.row(merged.index_of(NAMES[5]))
    assert (row["task"], row["metadata/grade"]) == ("cup", 3)
    assert merged.row(merged.index_of(NAMES[6]))["split"] == other
    with (lab.raw("b") / NAMES[6] / "robot.csv").open("a") as file:
        file.write("5000,0.5\n")
    report = lab.ingest(lab.raw("b"), a)
    assert report.changes is not None
    assert report.changes["replaced"] == [NAMES[6]]
    merged = vlapipe.open_dataset(a)
    assert merged.row(merged.index_of(NAMES[6]))["split"] == other
    edit(a, [NAMES[4]], Edit(restore=True))
    restored = vlapipe.open_dataset(a)
    assert restored.episode(NAMES[4])["robot/q"].tolist() == lab.whole().episode(NAMES[4])["robot/q"].tolist()
    assert verify(a).lines()[-1].endswith("all good")


@pytest.mark.slow
def test_what_was_dropped_or_edited_here_stands(lab: Lab) -> None:
    a, b = lab.dataset("a", NAMES[:4]), lab.dataset("b", NAMES[2:])
    edit(a, [NAMES[2]], Edit(drop=True))
    edit(a, [NAMES[3]], Edit(values={"task": "cup"}))
    edit(b, [NAMES[3]], Edit(values={"task": "jar"}))
    merge(a, [b])
    assert ids(a) == [name for name in NAMES if name != NAMES[2]]
    merged = vlapipe.open_dataset(a)
    assert merged.row(merged.index_of(NAMES[3]))["task"] == "cup"


@pytest.mark.parametrize("name", NAMES[4:6])  # of which one trains and one validates
def test_edit_of_an_episode_that_was_removed_here_holds_for_the_one_that_comes(lab: Lab, name: str) -> None:
    a, b = lab.dataset("a", [*NAMES[:3], name]), lab.dataset("b", NAMES[3:])
    whole = lab.whole()
    split = {"train": "val", "val": "train"}[whole.row(whole.index_of(name))["split"]]
    for data in (a, whole.path):
        edit(data, [name], Edit(values={"split": split}))
    shutil.rmtree(lab.raw("a") / name)
    lab.ingest(lab.raw("a"), a, prune=True)
    merge(a, [b])
    assert_one_ingest(vlapipe.open_dataset(a), vlapipe.open_dataset(whole.path))


def test_later_ingests_of_either_source_open_nothing(lab: Lab) -> None:
    a, b = lab.dataset("a", NAMES[:3]), lab.dataset("b", NAMES[3:])
    merge(a, [b])
    for name in "ab":
        for table in lab.raw(name).glob("*/robot.csv"):
            status = table.stat()
            table.write_bytes(b"x" * status.st_size)  # no reader would take it
            os.utime(table, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert lab.ingest(lab.raw(name), a).was_finished
    assert vlapipe.open_dataset(a).generation == 2


def test_findings_gaps_and_rejects_come_along(lab: Lab) -> None:
    for number, name in enumerate(NAMES):
        rows = [i for i in range(12) if number not in (4, 5) or i not in range(4, 8)]  # two episodes have a gap
        lines = [f"{1000 + 100 * number + i / 10},{i}" for i in rows]
        (lab.all / name / "gripper.csv").write_text("\n".join(["t,g", *lines, ""]))
    schema = SCHEMA + GRIPPER
    (lab.all / NAMES[6] / "robot.csv").write_text("t,q\n1,x\n")
    a, b = lab.dataset("a", NAMES[:3], schema), lab.dataset("b", NAMES[3:], schema)
    done = merge(a, [b])
    assert done.changes["set aside"] == [NAMES[6]]
    merged, whole = vlapipe.open_dataset(a), lab.whole(schema)
    assert_one_ingest(merged, whole)
    assert len(gaps(merged)) == 2
    assert merged.manifest.read_rejects(a) == whole.manifest.read_rejects(whole.path)
    found = [
        sorted((f["code"], f["episode_index"] is None) for f in d.manifest.read_findings(d.path))
        for d in (merged, whole)
    ]
    assert found[0] == found[1]
    assert found[0]
    assert lab.ingest(lab.raw("b"), a, schema).was_finished  # it is not read again, either


def test_datasets_in_parts_merge(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_EPISODES", 3)
    a, b = lab.dataset("a", NAMES[:4]), lab.dataset("b", NAMES[4:])
    merge(a, [b])
    merged = vlapipe.open_dataset(a)
    assert [part.num_episodes for part in merged.manifest.all_parts] == [3, 3, 2]
    assert_one_ingest(merged, lab.whole())
    assert merged.episodes.to_pylist() == lab.whole().episodes.to_pylist()


@pytest.mark.slow
def test_cameras_merge(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        raw = tmp_path / name / "raw"
        make_episode(raw / "insert_red" / f"episode_20260101_00000{number}", seed=number, num_rows=40)
        ingest(IngestConfig(source=raw, out=tmp_path / f"data-{name}"))
    merge(tmp_path / "data-a", [tmp_path / "data-b"])
    merged, other = vlapipe.open_dataset(tmp_path / "data-a"), vlapipe.open_dataset(tmp_path / "data-b")
    name = "insert_red/episode_20260101_000001"
    assert merged.episode(name).jpeg("View2", 3) == other.episode(name).jpeg("View2", 3)
    assert merged.manifest.streams == other.manifest.streams


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('columns = ["q"]', 'columns = ["q"]\ndtype = "float64"', "streams.robot.fields.q.dtype: expected float32"),
        ("action_rows = 2", "action_rows = 3", "sample.action_rows: expected 2"),
    ],
)
def test_datasets_that_store_other_things_are_refused_in_one_line(lab: Lab, old: str, new: str, told: str) -> None:
    a, b = lab.dataset("a", NAMES[:3]), lab.dataset("b", NAMES[3:], SCHEMA.replace(old, new))
    with pytest.raises(UsageError) as error:
        merge(a, [b])
    assert str(error.value).startswith(f"{b}: {told}, as {a} has it, found ")
    assert "ingest its recordings" in str(error.value)


def test_other_format_and_the_dataset_itself_are_refused(lab: Lab) -> None:
    a = lab.dataset("a", NAMES[:3])
    lab.ingest(lab.all, lab.root / "b", shard_format="npz")
    with pytest.raises(UsageError, match=r"--format: expected zarr, as .* has it, found npz"):
        merge(a, [lab.root / "b"])
    with pytest.raises(UsageError, match="is the dataset itself"):
        merge(a, [a])


def test_thresholds_and_split_of_the_schema_may_differ(lab: Lab) -> None:
    a, b = lab.dataset("a", NAMES[:3]), lab.dataset("b", NAMES[3:], "# another lab\n" + schema_text(val=0.0))
    merge(a, [b])
    merged = vlapipe.open_dataset(a)
    assert merged.column("split").tolist()[3:] == ["train"] * 5  # as their own dataset split them


def test_shards_are_copied_to_another_file_system_and_their_bytes_compared(lab: Lab, elsewhere: Path) -> None:
    b = lab.dataset("b", NAMES[3:])
    shutil.copytree(lab.dataset("a", NAMES[:3]), elsewhere / "a")
    shutil.copytree(b, elsewhere / "b")
    file = vlapipe.open_dataset(b).manifest.shard_files[1]
    (b / file).chmod(0o644)
    whole = (b / file).read_bytes()
    (b / file).write_bytes(bytes(len(whole)))
    with pytest.raises(DamageError, match=Path(file).name):
        merge(elsewhere / "a", [b])
    assert verify(elsewhere / "a").lines()[-1].endswith("all good")  # nothing is left
    (b / file).write_bytes(whole)
    assert merge(elsewhere / "a", [b]).shards == {"linked": 0, "copied": 5, "already there": 0}
    assert_one_ingest(vlapipe.open_dataset(elsewhere / "a"), lab.whole())


def test_shard_whose_name_is_taken_gets_another_number(lab: Lab) -> None:
    a, b = lab.dataset("a", NAMES[:3]), lab.dataset("b", NAMES[3:])
    file = vlapipe.open_dataset(b).manifest.shard_files[0]
    (a / file).write_bytes(b"another")
    merge(a, [b])
    names = vlapipe.open_dataset(a).manifest.shard_files
    assert file not in names
    assert file.replace("shard-00000", "shard-00001") in names
    assert_one_ingest(vlapipe.open_dataset(a), lab.whole())


@pytest.mark.slow
def test_merged_shards_are_repaired_from_their_source_and_from_their_dataset(lab: Lab) -> None:
    a, b = lab.dataset("a", NAMES[:6]), lab.dataset("b", NAMES[6:])
    merge(a, [b])
    for origin in (["--source", str(lab.raw("b")), "--workers", "1"], ["--from", str(b)]):
        file = a / vlapipe.open_dataset(b).manifest.shard_files[1]
        file.unlink()
        done = CliRunner().invoke(cli, ["repair", str(a), *origin])
        assert done.exit_code == 0, done.output
        assert verify(a).lines()[-1].endswith("all good")


def test_equal_recordings_of_two_names_are_two_episodes(lab: Lab) -> None:
    a = lab.dataset("a", NAMES[:3])
    shutil.copytree(lab.raw("a") / NAMES[0], lab.raw("b") / "ep99")
    b = lab.dataset("b", [])
    assert vlapipe.open_dataset(b).manifest.shard_files[0] == vlapipe.open_dataset(a).manifest.shard_files[0]
    merge(a, [b])
    merged = vlapipe.open_dataset(a)
    assert ids(a) == [*NAMES[:3], "ep99"]
    assert len(set(merged.manifest.shard_files)) == 4
    assert (merged.manifest.format_version, merged.manifest.totals["frames"]) == (1, 44)
    assert verify(a).lines()[-1].endswith("all good")


def test_gc_without_locks_leaves_a_link_that_was_made_just_now(lab: Lab) -> None:
    a, b = lab.dataset("a", NAMES[:3]), lab.dataset("b", NAMES[3:5])
    linked, copied = vlapipe.open_dataset(b).manifest.shard_files
    for file in (linked, copied):
        os.utime(b / file, (1, 1))
    (a / linked).hardlink_to(b / linked)
    shutil.copy2(b / copied, a / copied)
    assert [*remove_unlisted(a, older_than_s=60)] == [copied]


def test_dry_run_writes_nothing_and_says_the_same(lab: Lab) -> None:
    a, b = lab.dataset("a", NAMES[:3]), lab.dataset("b", NAMES[3:])
    before = sorted(path for path in lab.root.rglob("*"))
    told = CliRunner().invoke(cli, ["merge", str(a), str(b), "--dry-run"], catch_exceptions=False).output
    assert told == f"{a} would have 5 episodes added; 5 shards linked\n"
    assert sorted(path for path in lab.root.rglob("*")) == before
    report = json.loads(CliRunner().invoke(cli, ["merge", str(a), str(b), "--json"], catch_exceptions=False).output)
    assert (report["generation"], report["changes"]["added"], report["shards"]["linked"]) == (2, NAMES[3:], 5)


def test_metadata_of_other_keys_and_types_is_as_after_one_ingest(lab: Lab) -> None:
    for name in NAMES[4:]:
        (lab.all / name / "metadata.json").write_text(json.dumps({"by": ["bob"], "n": "many", "place": 2}))
    a, b = lab.dataset("a", NAMES[:4]), lab.dataset("b", NAMES[4:])
    merge(a, [b])
    merged, whole = vlapipe.open_dataset(a), lab.whole()
    assert isinstance(merged.episodes, pa.Table)
    assert merged.episodes.to_pylist() == whole.episodes.to_pylist()
    assert merged.episode_fields.field("metadata/by").equals(whole.episode_fields.field("metadata/by"), True)
