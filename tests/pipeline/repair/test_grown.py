"""Tables and manifests of a dataset that has grown are made again, generation by generation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from damaging import flip, rewrite, tree
from tiny_lab import ingest_lab, make_lab, schema_text

from vlapipe.cli import cli
from vlapipe.pipeline.shards.manifest import parts
from vlapipe.pipeline.shards.manifest.manifest import Manifest

SCHEMA = schema_text(val=0.3)
CHANGES = [
    ("edit", "--drop", "ep01", "ep04"),
    ("edit", "--set", "instruction=pick, place=up", "--set", "metadata/grade=3", "ep00", "ep03"),
    ("compact", "--shard-size", "1MB"),
    ("edit", "--restore", "ep04"),
    ("edit", "--split", "val", "ep00"),
]


def command(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(cli, [*map(str, arguments)])
    assert done.exit_code == code, done.output + str(done.exception)
    return done.output


def grow(root: Path) -> Path:
    """A dataset that recordings were added to twice, with other changes between; three are set aside."""
    data, recorded = root / "data", make_lab(root / "recorded", {f"ep{i:02d}": {"n": i} for i in range(9)})
    for number, name in enumerate(sorted(path.name for path in recorded.iterdir())):
        shutil.copytree(recorded / name, root / "raw" / name)
        if number % 3 == 2:
            (root / "raw" / name / "robot.csv").write_text("t,q\n1,1\n")
            ingest_lab(root / "raw", data, SCHEMA, shard_bytes=20, workers=1)
        if number == 5:
            for change in CHANGES:
                command(change[0], data, *change[1:])
    return data


def repair(data: Path, code: int = 0) -> list[str]:
    return command("repair", data, "--source", data.parent / "raw", "--workers", 1, code=code).splitlines()


def others(data: Path) -> list[Path]:
    """The files that are neither shards nor of the history nor empty."""
    files = [file for file in data.rglob("*") if file.is_file() and file.stat().st_size]
    return [file for file in files if file.parent.name not in ("shards", ".log")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grow(tmp_path_factory.mktemp("grown")).parent


@pytest.fixture
def grown(made: Path, tmp_path: Path) -> Path:
    """Dates of recordings stay, so that the dataset knows them."""
    for name in ("raw", "data"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path / "data"


def tables_of(data: Path, generation: int) -> list[Path]:
    """The tables that this generation is the first to list."""
    before, own = ({t["file"] for t in Manifest.read(data, n).tables} for n in (generation - 1, generation))
    return [data / name for name in sorted(own - before)]


@pytest.mark.slow
def test_every_table_and_generation_is_made_again_at_once(grown: Path) -> None:
    before = tree(grown)
    damaged = [file for file in others(grown) if file.name != "manifest.json"]
    assert len(damaged) > 25
    for file in damaged:
        flip(file, at=0.4)
    said = repair(grown)
    assert len([line for line in said if line.startswith("repaired: ")]) == len(damaged)
    assert tree(grown) == before


def test_damaged_tables_of_an_append_need_only_its_recordings(grown: Path) -> None:
    before = tree(grown)
    newest = len(list((grown / "generations").iterdir()))
    damaged = tables_of(grown, newest)
    assert {file.name.partition("-")[0] for file in damaged} >= {"episodes", "moments", "statistics", "rejects"}
    for file in damaged:
        flip(file, at=0.4)
    for number in range(6):  # of earlier ingests
        recording = grown.parent / "raw" / f"ep{number:02d}" / "robot.csv"
        rewrite(recording, b"\0" * recording.stat().st_size)
    said = repair(grown)
    assert [line.partition(" (")[0] for line in said[:-1]] == [f"repaired: {file.name}" for file in damaged]
    assert tree(grown) == before


def test_tables_of_edits_and_of_a_compaction_need_no_recording(grown: Path) -> None:
    before = tree(grown)
    shutil.rmtree(grown.parent / "raw")
    make_lab(grown.parent / "raw", {"ep99": {}})
    for generation in (3, 4, 5):
        for file in tables_of(grown, generation):
            file.unlink()
    (grown / "generations" / "000005.json").unlink()
    repair(grown)
    assert tree(grown) == before


def test_what_cannot_be_made_again_is_refused_with_the_reason(grown: Path) -> None:
    first = grown / Manifest.read(grown, 1).tables[0]["file"]
    table = grown.parent / "raw" / "ep00" / "robot.csv"
    table.write_text(table.read_text().replace("0.01", "0.09"))
    ingest_lab(grown.parent / "raw", grown, SCHEMA, shard_bytes=20, workers=1)  # replaces ep00
    newest = tables_of(grown, len(list((grown / "generations").iterdir())))
    (entry,) = (grown / ".log").glob("000003-*")
    before = tree(grown)
    for file in (first, *newest, entry):
        flip(file, at=0.4)
    said = "\n".join(repair(grown, code=1))
    assert f"not repaired: {first.name}: {grown.parent / 'raw'} gives other bytes: " in said
    assert f"not repaired: .log/{entry.name}: it tells time and place; --from COPY" in said
    assert all(f"repaired: {file.name} (" in said for file in newest)
    changed = {name for name, data in tree(grown).items() if data != before[name]}
    assert changed == {first.name, f".log/{entry.name}"}


def test_generation_before_is_gone_after_gc(grown: Path) -> None:
    command("gc", grown, "--keep", 1, "--older-than", 0)
    oldest = min(int(file.stem) for file in (grown / "generations").iterdir())
    table = grown / Manifest.read(grown, oldest).tables[0]["file"]
    flip(table)
    said = repair(grown, code=1)
    why = f"generation {oldest} was made from generation {oldest - 1}, which is gone"
    assert f"not repaired: {table.name}: {why}; --from COPY takes the file from a copy" in said


def test_generation_that_gc_made_is_made_again(grown: Path) -> None:
    command("gc", grown, "--keep", 2, "--older-than", 0)
    made_by_gc = max((grown / "generations").iterdir())
    command("edit", grown, "--drop", "ep06")
    before = tree(grown)
    made_by_gc.unlink()
    repair(grown)
    assert tree(grown) == before


def test_first_append_to_a_dataset_of_one_shard_is_made_again(tmp_path: Path) -> None:
    data, raw = tmp_path / "data", make_lab(tmp_path / "raw", {f"ep{i:02d}": {"n": i} for i in range(3)})
    ingest_lab(raw, data, SCHEMA, workers=1)  # keeps no sums, so the append reads its shard
    make_lab(raw, {"ep07": {"n": 7}})
    ingest_lab(raw, data, SCHEMA, workers=1)
    before = tree(data)
    for file in tables_of(data, 2):
        flip(file)
    repair(data)
    assert tree(data) == before


def test_tables_of_a_merge_need_the_other_dataset(grown: Path, tmp_path: Path) -> None:
    make_lab(tmp_path / "more", {"ep50": {"n": 50}})
    ingest_lab(tmp_path / "more", tmp_path / "other", SCHEMA, shard_bytes=20, workers=1)
    command("merge", grown, tmp_path / "other")
    newest = len(list((grown / "generations").iterdir()))
    table = tables_of(grown, newest)[0]
    flip(table)
    said = repair(grown, code=1)
    why = f"generation {newest} was made by vlapipe merge, which needs the other dataset"
    assert f"not repaired: {table.name}: {why}; --from COPY takes the file from a copy" in said


def test_tables_of_a_dataset_in_parts_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_EPISODES", 3)
    data, raw = tmp_path / "data", tmp_path / "raw"
    recorded = make_lab(tmp_path / "recorded", {f"ep{i:02d}": {"n": i} for i in range(9)})
    for number, name in enumerate(sorted(path.name for path in recorded.iterdir())):
        shutil.copytree(recorded / name, raw / name)
        if number in (6, 8):
            ingest_lab(raw, data, SCHEMA, shard_bytes=20, workers=1)
    before = tree(data)
    damaged = [file for file in data.glob("*.parquet") if "-" in file.name]
    assert len([file for file in damaged if file.name.startswith("shards-")]) > 3
    for file in damaged:
        flip(file)
    repair(data)
    assert tree(data) == before
