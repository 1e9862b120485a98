"""A large dataset is stored in parts. Here a part is full with three episodes, so that small datasets are large."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tiny_lab import ingest_lab, make_lab, schema_text

import vlapipe
from vlapipe.cli import cli
from vlapipe.pipeline.change.collect import collect
from vlapipe.pipeline.change.edit import Edit, edit
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.manifest import parts as limits
from vlapipe.pipeline.shards.manifest.manifest import Manifest
from vlapipe.pipeline.shards.verify.verify import verify
from vlapipe.pipeline.show.difference import difference_of
from vlapipe.pipeline.show.inspection import inspect_dataset
from vlapipe.schemas.errors import DamageError

SCHEMA = schema_text(val=0.3)
SMALL_SHARD = 20  # bytes: each episode is a shard
NAMES = [f"ep{i:02d}" for i in range(10)]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return make_lab(tmp_path / "raw", {name: {"by": "ann", "n": i} for i, name in enumerate(NAMES)}, num_rows=20)


@pytest.fixture
def whole(raw: Path, tmp_path: Path) -> Path:
    """A dataset of one part."""
    ingest(raw, tmp_path / "whole")
    return tmp_path / "whole"


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_EPISODES", 3)


@pytest.fixture
def data(raw: Path, whole: Path, small_parts: None, tmp_path: Path) -> Path:
    """The same dataset in four parts."""
    del whole, small_parts
    ingest(raw, tmp_path / "data")
    return tmp_path / "data"


def ingest(raw: Path, out: Path, **options: Any) -> Any:
    return ingest_lab(raw, out, SCHEMA, shard_bytes=SMALL_SHARD, workers=1, **options)


def add(raw: Path, names: list[str], metadata: Any = None) -> None:
    more = make_lab(raw.parent / "more", dict.fromkeys([*NAMES, *names], metadata), num_rows=20)
    for name in names:
        shutil.copytree(more / name, raw / name)
    shutil.rmtree(more)


def sizes(dataset: Dataset) -> list[int]:
    return [part.num_episodes for part in dataset.manifest.all_parts]


def assert_same(a: Dataset, b: Dataset) -> None:
    """The same rows, shards, totals and statistics; those of the mean and deviation but for rounding."""
    assert a.episodes.to_pylist() == b.episodes.to_pylist()
    assert a.column_names == b.column_names
    assert list(a.manifest.shards) == list(b.manifest.shards)
    assert a.manifest.totals == b.manifest.totals
    assert a.manifest.read_findings(a.path) == b.manifest.read_findings(b.path)
    for path, each in a.manifest.statistics.items():
        for name, value in each.items():
            assert b.manifest.statistics[path][name] == pytest.approx(value, rel=1e-12)
    report = difference_of(a, b)
    assert report["equal"], report


def test_large_first_ingest_is_in_parts_and_reads_as_one_dataset(data: Path, whole: Path) -> None:
    in_parts, one = vlapipe.open_dataset(data), vlapipe.open_dataset(whole)
    assert (sizes(in_parts), sizes(one)) == ([3, 3, 3, 1], [10])
    assert (in_parts.manifest.format_version, one.manifest.format_version) == (5, 1)
    assert_same(in_parts, one)
    for index in range(10):
        assert in_parts.row(index) == one.row(index)
        assert in_parts.episode(index)["robot/q"].tolist() == one.episode(index)["robot/q"].tolist()
    assert verify(data).lines()[-1].endswith("all good")
    reports = [inspect_dataset(dataset, where="n > 2") for dataset in (in_parts, one)]
    for report in reports:
        del report["path"], report["statistics"]
    assert reports[0] == reports[1]


def test_manifest_lists_tables_and_not_shards(data: Path) -> None:
    text = (data / "manifest.json").read_text()
    assert "shard-00000" not in text
    assert text.count('"shards-') == 4


def test_append_to_parts_is_one_ingest_of_everything(raw: Path, data: Path, tmp_path: Path) -> None:
    add(raw, ["ep10", "ep11", "ep12", "ep13"], {"by": "bob", "n": 1})
    report = ingest(raw, data)
    assert report.changes["added"] == ["ep10", "ep11", "ep12", "ep13"]
    ingest(raw, tmp_path / "again")
    grown = vlapipe.open_dataset(data)
    assert sizes(grown) == [3, 3, 3, 3, 2]
    assert_same(grown, vlapipe.open_dataset(tmp_path / "again"))
    assert verify(data).lines()[-1].endswith("all good")


def test_append_writes_the_last_part_and_reads_no_sums_of_others(raw: Path, data: Path) -> None:
    before = vlapipe.open_dataset(data).manifest.parts
    assert before is not None
    moments = data / before[0]["moments"]["file"]
    moments.write_bytes(bytes(len(moments.read_bytes())))
    add(raw, ["ep10"])
    ingest(raw, data)
    after = vlapipe.open_dataset(data).manifest.parts
    assert after is not None
    assert after[:3] == before[:3]
    assert after[3] != before[3]
    assert [fault.file for fault in verify(data).damage] == [moments.name]


def test_append_to_a_large_dataset_writes_as_much_as_to_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_EPISODES", 5)
    written = []
    for count in (7, 37):  # each leaves two episodes in the last part
        raw = make_lab(tmp_path / f"raw{count}", {f"ep{i:02d}": None for i in range(count)})
        out = tmp_path / f"data{count}"
        ingest(raw, out)
        before = {path.name for path in out.iterdir()}
        shutil.copytree(raw / "ep00", raw / "ep99")
        ingest(raw, out)
        tables = [path for path in out.iterdir() if path.suffix == ".parquet" and path.name not in before]
        sums = [path for path in tables if path.name.startswith("statistics-")]
        written.append(sum(path.stat().st_size for path in tables if path not in sums))
        assert len(tables) == 4, tables  # episodes, shards and moments of the last part, and sums; no gaps as before
    assert written[1] == pytest.approx(written[0], rel=0.02)


def test_dropped_and_restored_episode_changes_its_part_alone_and_comes_back_to_the_last_bit(data: Path) -> None:
    before = vlapipe.open_dataset(data)
    edit(data, ["ep04"], Edit(drop=True))
    dropped = vlapipe.open_dataset(data)
    assert sizes(dropped) == [3, 2, 3, 1]
    assert before.manifest.parts is not None
    assert dropped.manifest.parts is not None
    assert [a == b for a, b in zip(before.manifest.parts, dropped.manifest.parts, strict=True)] == [True, False] + [
        True
    ] * 2
    assert dropped.column("id").tolist() == [name for name in NAMES if name != "ep04"]
    assert dropped.column("episode_index").tolist() == list(range(9))
    assert dropped.episode("ep05")["robot/q"].tolist() == before.episode("ep05")["robot/q"].tolist()
    edit(data, ["ep04"], Edit(restore=True))
    restored = vlapipe.open_dataset(data)
    assert restored.episodes.equals(before.episodes)
    assert restored.manifest.statistics == before.manifest.statistics


def test_part_without_an_episode_or_a_dropped_one_vanishes(raw: Path, data: Path, tmp_path: Path) -> None:
    for name in ("ep03", "ep04", "ep05"):
        shutil.rmtree(raw / name)
    ingest(raw, data, prune=True)
    assert sizes(vlapipe.open_dataset(data)) == [3, 3, 1]
    ingest(raw, tmp_path / "again")
    assert not difference_of(vlapipe.open_dataset(data), vlapipe.open_dataset(tmp_path / "again"))["episodes"]["added"]
    assert verify(data).lines()[-1].endswith("all good")


def test_large_dataset_in_one_part_keeps_its_tables_when_it_grows(raw: Path, whole: Path, small_parts: None) -> None:
    del small_parts
    before = vlapipe.open_dataset(whole)
    add(raw, ["ep10"])
    ingest(raw, whole)
    now = vlapipe.open_dataset(whole)
    assert sizes(now) == [10, 1]
    assert now.manifest.all_parts[0].episodes == before.manifest.episodes
    assert now.column("id").tolist() == [*NAMES, "ep10"]
    assert vlapipe.open_dataset(whole, generation=1).column("id").tolist() == NAMES
    assert [entry["file"] for entry in now.manifest.shards][:10] == before.manifest.shard_files
    assert verify(whole).lines()[-1].endswith("all good")


def test_metadata_of_other_types_and_keys_is_one_column(raw: Path, data: Path, tmp_path: Path) -> None:
    add(raw, ["ep10", "ep11", "ep12"], {"by": ["cid"], "n": "many", "place": "b2"})
    ingest(raw, data)
    ingest(raw, tmp_path / "again")
    grown, again = vlapipe.open_dataset(data), vlapipe.open_dataset(tmp_path / "again")
    assert grown.episode_fields.field("metadata/by").equals(again.episode_fields.field("metadata/by"), True)
    assert grown.episodes.to_pylist() == again.episodes.to_pylist()
    assert grown.row(11) == again.row(11)
    assert grown.row(0)["metadata/place"] is None


def test_damaged_table_of_shards_is_found_and_repaired(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "copy")
    part = vlapipe.open_dataset(data).manifest.all_parts[1]
    assert part.shards is not None
    table = data / str(part.shards["file"])
    table.write_bytes(table.read_bytes()[:-9])
    (data / "shards" / "strange").touch()
    found = verify(data)
    assert [(fault.kind, fault.file) for fault in found.faults] == [("truncated", table.name)]
    assert any(table.name in note for note in found.notes)
    with pytest.raises(DamageError, match=table.name):
        list(vlapipe.open_dataset(data).manifest.shards)
    shard = vlapipe.open_dataset(tmp_path / "copy").manifest.shards[4]["file"]
    (data / shard).unlink()  # can be known of only when the table is whole
    done = CliRunner().invoke(cli, ["repair", str(data), "--from", str(tmp_path / "copy"), "--remove-unlisted"])
    assert done.exit_code == 0, done.output
    assert (data / shard).read_bytes() == (tmp_path / "copy" / shard).read_bytes()
    assert verify(data).faults == []


def test_gc_of_parts_keeps_the_tables_of_kept_generations(raw: Path, data: Path) -> None:
    edit(data, ["ep00"], Edit(drop=True))
    add(raw, ["ep10"])
    ingest(raw, data)
    old = Manifest.read(data, 1)
    assert old.parts is not None
    collect(data, keep=1)
    assert not (data / old.parts[0]["episodes"]["file"]).exists()
    assert (data / old.parts[1]["episodes"]["file"]).exists()
    assert verify(data).lines()[-1].endswith("all good")
    assert len(vlapipe.open_dataset(data)) == 10


def test_diff_of_neighbours_names_what_changed(raw: Path, data: Path) -> None:
    add(raw, ["ep10"])
    with (raw / "ep01" / "robot.csv").open("a") as file:
        file.write("5000,0.5\n")
    ingest(raw, data)
    report = difference_of(vlapipe.open_dataset(data, generation=1), vlapipe.open_dataset(data))
    assert report["episodes"]["added"] == ["ep10"]
    assert [entry["id"] for entry in report["episodes"]["changed"]] == ["ep01"]
    assert report["episodes"]["same"] == 9
