"""Ingest into a finished dataset: what is new is added, what changed is replaced, and nothing else is read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from factories import make_dataset, make_episode
from tiny_lab import ingest_lab, make_lab, schema_text

import vlapipe
from vlapipe.cli import cli
from vlapipe.pipeline.change.edit import Edit, edit
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.manifest.history import entries
from vlapipe.pipeline.shards.verify.verify import verify
from vlapipe.pipeline.show.difference import difference_of
from vlapipe.schemas.errors import DamageError, UsageError

SCHEMA = schema_text(val=0.3)
OLD = [f"ep{i:02d}" for i in range(6)]
NEW = [f"ep{i:02d}" for i in range(6, 10)]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return make_lab(tmp_path / "raw", {name: {"by": "ann"} for name in OLD})


@pytest.fixture
def data(raw: Path, tmp_path: Path) -> Path:
    ingest_lab(raw, tmp_path / "data", SCHEMA)
    return tmp_path / "data"


def add(raw: Path, names: list[str], metadata: Any = None, root: Path | None = None) -> None:
    """Write more recordings; their numbers go on where those of the first ones end."""
    more = make_lab((root or raw).parent / "more", dict.fromkeys([*OLD, *names], metadata))
    for name in names:
        shutil.copytree(more / name, raw / name)
    shutil.rmtree(more)


def run(raw: Path, data: Path, **options: Any) -> IngestReport:
    return ingest_lab(raw, data, SCHEMA, **options)


def ids(data: Path, generation: int | None = None) -> list[str]:
    names: list[str] = vlapipe.open_dataset(data, generation=generation).column("id").tolist()
    return names


def change(raw: Path, name: str) -> None:
    with (raw / name / "robot.csv").open("a") as file:
        file.write("5000,0.5\n")


def assert_equal(a: Path, b: Path) -> None:
    """The same episodes, schema, options and statistics. Findings about episodes together are those of each ingest."""
    report = difference_of(vlapipe.open_dataset(a), vlapipe.open_dataset(b))
    counts = report.pop("counts")
    assert (counts["tasks"], counts["splits"]) == ([], [])
    assert not any(report["episodes"][kind] for kind in ("added", "removed", "renamed", "changed"))
    assert not report["options"]
    assert not any(report["schema"][kind] for kind in ("streams", "fields", "text"))
    assert not any(report["statistics"].values())
    assert not any(report["rejects"].values())


def statistics(dataset: Dataset) -> dict[str, Any]:
    return dataset.manifest.statistics


def test_new_recordings_become_the_next_generation_and_the_earlier_one_stays_readable(raw: Path, data: Path) -> None:
    before = {
        path.name: path.read_bytes() for path in data.rglob("*") if path.is_file() and path.name != "manifest.json"
    }
    add(raw, NEW, {"by": "bob"})
    report = run(raw, data)
    assert (report.generation, report.changes and report.changes["added"]) == (2, NEW)
    assert ids(data) == [*OLD, *NEW]
    assert ids(data, generation=1) == OLD
    now = {path.name: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert before.items() <= now.items()
    assert not (data / ".ingest").exists()
    assert verify(data).lines()[-1].endswith("all good")


def test_a_dataset_that_grew_equals_one_ingest_of_everything(raw: Path, data: Path, tmp_path: Path) -> None:
    add(raw, NEW, {"by": "bob", "try": 3})
    run(raw, data)
    run(raw, tmp_path / "whole")
    grown, whole = vlapipe.open_dataset(data), vlapipe.open_dataset(tmp_path / "whole")
    assert_equal(data, tmp_path / "whole")
    assert grown.column("split").tolist() == whole.column("split").tolist()
    assert {path: each["count"] for path, each in statistics(grown).items()} == {
        path: each["count"] for path, each in statistics(whole).items()
    }
    for path, each in statistics(whole).items():
        assert all(statistics(grown)[path][name] == each[name] for name in ("min", "max", "q01", "q50", "q99"))
        for name in ("mean", "std"):
            assert statistics(grown)[path][name] == pytest.approx(each[name], rel=1e-12)
    assert set(whole.column_names) == set(grown.column_names)


def test_cameras_and_sensors_grow_too(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=2, num_rows=40)
    ingest(IngestConfig(source=raw, out=tmp_path / "data"))
    make_episode(raw / "insert_red" / "episode_20260101_000009", seed=9, num_rows=45)
    ingest(IngestConfig(source=raw, out=tmp_path / "data"))
    ingest(IngestConfig(source=raw, out=tmp_path / "whole"))
    grown, whole = vlapipe.open_dataset(tmp_path / "data"), vlapipe.open_dataset(tmp_path / "whole")
    assert_equal(tmp_path / "data", tmp_path / "whole")
    name = "insert_red/episode_20260101_000009"
    assert grown.episode(name).jpeg("View2", 3) == whole.episode(name).jpeg("View2", 3)


def test_recordings_that_have_not_changed_are_not_read(raw: Path, data: Path) -> None:
    table = raw / OLD[0] / "robot.csv"
    status = table.stat()
    table.write_bytes(b"x" * status.st_size)  # no reader would take it
    os.utime(table, ns=(status.st_atime_ns, status.st_mtime_ns))
    add(raw, NEW[:1])
    assert run(raw, data).num_found == 1
    assert ids(data) == [*OLD, NEW[0]]


def test_other_dates_of_the_same_bytes_are_nothing_to_do_and_are_remembered(raw: Path, data: Path) -> None:
    for name in OLD:
        os.utime(raw / name / "robot.csv", (1, 1))
    assert run(raw, data).was_finished
    assert vlapipe.open_dataset(data).generation == 1
    (raw / OLD[0] / "robot.csv").write_bytes(b"x" * (raw / OLD[0] / "robot.csv").stat().st_size)
    os.utime(raw / OLD[0] / "robot.csv", (1, 1))
    assert run(raw, data).was_finished  # by size and date alone


def test_other_metadata_is_a_change_although_the_streams_are_the_same(raw: Path, data: Path) -> None:
    (raw / OLD[1] / "metadata.json").write_text(json.dumps({"by": "eve"}))
    report = run(raw, data)
    assert report.changes is not None
    assert report.changes["replaced"] == [OLD[1]]
    assert vlapipe.open_dataset(data).row(ids(data).index(OLD[1]))["metadata/by"] == "eve"


def test_changed_recording_is_replaced(raw: Path, data: Path, tmp_path: Path) -> None:
    change(raw, OLD[2])
    report = run(raw, data)
    assert report.changes is not None
    assert (report.changes["replaced"], report.changes["added"]) == ([OLD[2]], [])
    assert sorted(ids(data)) == OLD
    rows = [vlapipe.open_dataset(data, generation=g).episode(OLD[2]).row["robot/rows"] for g in (1, 2)]
    assert rows == [12, 13]
    run(raw, tmp_path / "whole")
    assert_equal(data, tmp_path / "whole")
    assert run(raw, data).was_finished


def test_gone_recordings_are_kept_unless_prune_is_given(raw: Path, data: Path, tmp_path: Path) -> None:
    shutil.rmtree(raw / OLD[0])
    schema = tmp_path / "data.toml"
    command = ["ingest", "--dataset", str(raw), "--out", str(data), "--schema", str(schema)]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert (done.exit_code, done.output.startswith("nothing to do: ")) == (0, True)
    assert "kept 1 episode whose recordings are gone; --prune removes such episodes" in done.output
    done = CliRunner().invoke(cli, [*command, "--prune", "--note", "too dark"], catch_exceptions=False)
    assert f"generation 2 of {data}: 1 removed" in done.output
    assert ids(data) == OLD[1:]
    run(raw, tmp_path / "whole")
    assert_equal(data, tmp_path / "whole")
    assert entries(data)[-1].note == "too dark"


def test_recordings_of_another_folder_are_added(raw: Path, data: Path, tmp_path: Path) -> None:
    other = make_lab(tmp_path / "other", {"ep77": None})
    assert run(other, data).num_gone == len(OLD)
    assert ids(data) == [*OLD, "ep77"]
    assert run(raw, data).was_finished
    assert run(other, data).was_finished


def test_rejected_recording_is_read_again_only_when_it_changed(raw: Path, data: Path) -> None:
    bad = raw / "ep90"
    bad.mkdir()
    (bad / "robot.csv").write_text("t,q\n1,one\n2,2\n")
    report = run(raw, data)
    assert [reject["episode"] for reject in report.rejects] == ["ep90"]
    assert vlapipe.open_dataset(data).manifest.rejects["count"] == 1
    assert (run(raw, data).was_finished, vlapipe.open_dataset(data).generation) == (True, 2)
    shutil.copy(raw / OLD[0] / "robot.csv", bad / "robot.csv")
    run(raw, data)
    opened = vlapipe.open_dataset(data)
    assert (opened.manifest.rejects["count"], opened.column("id").tolist()) == (0, [*OLD, "ep90"])


def test_recording_that_became_bad_leaves_and_the_older_generation_has_it(raw: Path, data: Path) -> None:
    (raw / OLD[3] / "robot.csv").write_text("t,q\n1,one\n2,2\n")
    report = run(raw, data)
    assert report.has_errors
    assert OLD[3] not in ids(data)
    assert OLD[3] in ids(data, generation=1)
    assert vlapipe.open_dataset(data, generation=1).episode(OLD[3])["robot/q"].shape[0] == 12


def test_file_of_several_episodes_that_grew_is_read_again_whole(tmp_path: Path) -> None:
    schema = schema_text(val=0.0, episodes='split_column = "part"').replace("folders", "folders")
    raw = tmp_path / "raw"

    def write(name: str, parts: int) -> None:
        (raw / name).mkdir(parents=True, exist_ok=True)
        lines = [f"{1000 + 100 * part + i / 10},{part + i / 100},p{part}" for part in range(parts) for i in range(12)]
        (raw / name / "robot.csv").write_text("\n".join(["t,q,part", *lines, ""]))

    write("ep1", 2)
    write("ep2", 1)
    ingest_lab(raw, tmp_path / "data", schema)
    assert ids(tmp_path / "data") == ["ep1/p0", "ep1/p1", "ep2/p0"]
    write("ep1", 3)
    write("ep3", 1)
    report = ingest_lab(raw, tmp_path / "data", schema)
    assert report.changes is not None
    assert (report.changes["replaced"], report.changes["added"]) == (["ep1/p0", "ep1/p1"], ["ep1/p2", "ep3/p0"])
    assert sorted(ids(tmp_path / "data")) == ["ep1/p0", "ep1/p1", "ep1/p2", "ep2/p0", "ep3/p0"]
    assert ingest_lab(raw, tmp_path / "data", schema).was_finished


def test_edits_outlive_a_recording_that_is_replaced(raw: Path, data: Path) -> None:
    splits = dict(zip(ids(data), vlapipe.open_dataset(data).column("split").tolist(), strict=True))
    trains = [name for name in OLD if splits[name] == "train"]
    edit(data, [trains[0]], Edit(values={"split": "val", "instruction": "lift it"}))
    edit(data, [trains[1]], Edit(drop=True))
    change(raw, trains[0])
    change(raw, trains[1])
    run(raw, data)
    opened = vlapipe.open_dataset(data)
    row = opened.row(opened.index_of(trains[0]))
    assert (row["split"], row["instruction"], row["robot/rows"]) == ("val", "lift it", 13)
    assert trains[1] not in ids(data)
    assert opened.stats["robot/q"].count == 12 * (len(trains) - 2)


@pytest.mark.parametrize("options", [{"shard_format": "npz"}, {"shard_bytes": 1000}, {"where": "by == 'ann'"}])
def test_other_options_are_refused(raw: Path, data: Path, options: dict[str, Any]) -> None:
    add(raw, NEW, {"by": "ann"})
    with pytest.raises(UsageError, match="already holds a dataset made from something else: --"):
        run(raw, data, **options)


def test_damaged_dataset_does_not_grow(raw: Path, data: Path) -> None:
    next((data / "shards").iterdir()).unlink()
    add(raw, NEW)
    with pytest.raises(DamageError, match=r"missing: shards/.*\(vlapipe repair makes it again; then run this again\)"):
        run(raw, data)


def test_generation_that_is_not_there_is_named(data: Path) -> None:
    with pytest.raises(UsageError, match=r"no generation 3: it has 1 \(vlapipe log lists them\)"):
        vlapipe.open_dataset(data, generation=3)


def test_older_dataset_without_a_seal_grows(raw: Path, data: Path) -> None:
    for name in ("manifest.json", ".ingested.json"):
        document = json.loads((data / name).read_bytes())
        del document["sha256"]
        (data / name).write_text(json.dumps(document, indent=1))
    add(raw, NEW)
    run(raw, data)
    assert ids(data) == [*OLD, *NEW]
    assert not verify(data).faults
