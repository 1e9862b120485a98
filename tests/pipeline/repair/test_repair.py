"""A repair gives back the bytes that were there, or says why it cannot and leaves everything as it is."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from damaging import flip, lab_dataset, rewrite, shards_of, tree

from vlapipe.cli import cli
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.repair.from_source import FromSource
from vlapipe.pipeline.repair.origin import FromCopy
from vlapipe.pipeline.repair.repair import repair
from vlapipe.pipeline.shards.verify.verify import verify
from vlapipe.schemas.errors import UsageError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    lab_dataset(root)
    return root


@pytest.fixture
def lab(made: Path, tmp_path: Path) -> Path:
    """The folder of ``raw`` and ``data``, with the dates of the recordings."""
    for name in ("raw", "data"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments)])


def from_source(lab: Path, **options: Any) -> FromSource:
    return FromSource(lab / "data", lab / "raw", workers=1, **options)


def test_command_repairs_and_then_verifies(lab: Path) -> None:
    before = tree(lab / "data")
    shard = flip(shards_of(lab / "data")[1])
    done = command("repair", lab / "data", "--source", lab / "raw")
    assert done.exit_code == 0, done.output
    first, last = done.output.splitlines()
    assert first == f"repaired: shards/{shard.name} (was altered)"
    assert last.endswith("all good")
    assert tree(lab / "data") == before
    assert shard.stat().st_mode & 0o777 == 0o444


def test_whole_dataset_is_left_alone(lab: Path) -> None:
    done = command("repair", lab / "data", "--source", lab / "raw")
    assert (done.exit_code, done.output.splitlines()[0]) == (0, "nothing to repair")


def test_changed_recording_is_refused_with_what_changed_and_nothing_is_replaced(lab: Path) -> None:
    table = lab / "raw" / "ep2" / "robot.csv"
    table.write_text(table.read_text().replace("2.01", "2.05"))
    shard = flip(shards_of(lab / "data")[1])
    other = flip(shards_of(lab / "data")[3])
    before = tree(lab / "data")
    done = command("repair", lab / "data", "--source", lab / "raw")
    assert done.exit_code == 1
    refused = f"not repaired: shards/{shard.name}: {lab / 'raw'} gives other bytes: 1 episode changed, such as ep2"
    assert any(line.startswith(refused) for line in done.output.splitlines()), done.output
    assert f"repaired: shards/{other.name} (was altered)" in done.output
    after = tree(lab / "data")
    assert [name for name in after if after[name] != before[name]] == [f"shards/{other.name}"]
    assert [fault.shard for fault in verify(lab / "data").faults] == [1]


def test_recordings_with_other_dates_serve_as_well(lab: Path) -> None:
    for file in (lab / "raw").rglob("*"):
        os.utime(file, (1, 1))
    before = tree(lab / "data")
    shards_of(lab / "data")[0].unlink()
    assert not repair(lab / "data", from_source(lab)).after.faults
    assert tree(lab / "data") == before


def test_only_the_damaged_shards_recordings_are_read(lab: Path) -> None:
    shards_of(lab / "data")[0].unlink()
    for number in range(2, 8):  # of the other shards
        table = lab / "raw" / f"ep{number}" / "robot.csv"
        table.chmod(0o644)
        rewrite(table, b"\0" * table.stat().st_size)
    assert not repair(lab / "data", from_source(lab)).after.faults


@pytest.mark.parametrize("name", ["manifest.json", "episodes-*.parquet", "rejects.jsonl", ".ingested.json"])
def test_each_other_file_is_made_again_from_the_recordings(lab: Path, name: str) -> None:
    before = tree(lab / "data")
    (file,) = (lab / "data").glob(name)
    rewrite(file, b"x") if name == "rejects.jsonl" else flip(file, at=0.3)  # an empty file, as nothing was rejected
    flip(shards_of(lab / "data")[2])
    done = repair(lab / "data", from_source(lab))
    assert not done.after.faults, done.lines()
    assert tree(lab / "data") == before


def test_manifest_whose_schema_is_lost_needs_the_schema(lab: Path, made: Path) -> None:
    before = tree(lab / "data")
    (lab / "data" / "manifest.json").unlink()
    with pytest.raises(UsageError, match="--schema FILE, or repair with --from COPY"):
        repair(lab / "data", from_source(lab))
    assert not repair(lab / "data", from_source(lab, schema=str(made / "data.toml"))).after.faults
    assert tree(lab / "data") == before


def test_manifest_of_another_dataset_is_not_taken(lab: Path, tmp_path: Path) -> None:
    shutil.copytree(lab / "data", tmp_path / "copy")
    other = lab_dataset(tmp_path / "other", num_episodes=6)
    shutil.copy(other / "manifest.json", tmp_path / "copy" / "manifest.json")
    (lab / "data" / "manifest.json").unlink()
    done = repair(lab / "data", FromCopy(lab / "data", tmp_path / "copy"))
    assert [fault.kind for fault in done.after.faults] == ["missing"]
    assert "manifest.json" in done.refused


def test_file_that_is_damaged_in_the_copy_too_is_refused(lab: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(lab / "data", tmp_path / "copy"))
    for folder in (lab / "data", copy):
        flip(shards_of(folder)[0])
    shards_of(lab / "data")[1].unlink()
    before = shards_of(lab / "data")[0].read_bytes()
    done = command("repair", lab / "data", "--from", copy)
    assert done.exit_code == 1
    assert "has other bytes too" in done.output
    assert [fault.shard for fault in verify(lab / "data").faults] == [0]
    assert shards_of(lab / "data")[0].read_bytes() == before


def test_unlisted_file_is_told_and_removed_only_if_asked(lab: Path) -> None:
    left = lab / "data" / "shards" / "shard-00009-01234567.zarr.zip"
    left.write_bytes(b"of an earlier ingest")
    done = command("repair", lab / "data", "--source", lab / "raw")
    assert done.exit_code == 1
    assert f"stale: shards/{left.name}" in done.output
    assert left.exists()
    done = command("repair", lab / "data", "--source", lab / "raw", "--remove-unlisted")
    assert (done.exit_code, left.exists()) == (0, False)
    assert f"removed: shards/{left.name}" in done.output


def test_leftovers_of_a_killed_repair_are_swept_by_the_next(lab: Path) -> None:
    before = tree(lab / "data")
    (lab / "data" / ".ingest" / "repair" / "shards").mkdir(parents=True)
    (lab / "data" / ".ingest" / "repair" / "shards" / "half").write_bytes(b"half")
    (lab / "data" / "manifest.json").unlink()
    shutil.copytree(lab / "data", lab / "copy")
    rewrite(lab / "copy" / "manifest.json", before["manifest.json"])
    assert not repair(lab / "data", FromCopy(lab / "data", lab / "copy")).after.faults
    assert tree(lab / "data") == before


def test_two_commands_do_not_write_at_the_same_time(lab: Path) -> None:
    (lab / "data" / ".ingest").mkdir()
    with (lab / "data" / ".ingest" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another command is writing there"):
            repair(lab / "data", from_source(lab))


OPTIONS: dict[str, dict[str, Any]] = {
    "npz, small images": {"shard_format": "npz", "image_size": (16, 8), "shard_bytes": 1},
    "pixels of some": {"image_storage": "raw", "where": 'instruction != "none"', "codec": "lz4", "shard_bytes": 1},
    "one episode": {"single_episode": True},
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_of_the_ingest_are_those_that_the_dataset_states(tiny_raw: Path, tmp_path: Path, case: str) -> None:
    source = next(tiny_raw.rglob("metadata.json")).parent if "single_episode" in OPTIONS[case] else tiny_raw
    data = tmp_path / "data"
    ingest(IngestConfig(source=source, out=data, workers=1, **OPTIONS[case]))
    before = tree(data)
    flip(shards_of(data)[0])
    assert not repair(data, FromSource(data, source, workers=1)).after.faults
    assert tree(data) == before


@pytest.mark.parametrize("given", [[], ["--source", ".", "--from", "."]])
def test_exactly_one_origin_is_needed(lab: Path, given: list[str]) -> None:
    done = command("repair", lab / "data", *given)
    assert "give either --source DIR or --from COPY" in str(done.exception)


@pytest.mark.parametrize("option", ["--source", "--from"])
def test_origin_that_does_not_exist_is_told(lab: Path, option: str) -> None:
    done = command("repair", lab / "data", option, lab / "gone")
    assert f"{option} {lab / 'gone'}: no such folder" in str(done.exception)


def test_json_holds_both_looks(lab: Path) -> None:
    shards_of(lab / "data")[0].unlink()
    done = command("repair", lab / "data", "--source", lab / "raw", "--json")
    said = json.loads(done.output)
    assert [fault["kind"] for fault in said["repaired"]] == ["missing"]
    assert (said["before"]["is_whole"], said["after"]["is_whole"], said["refused"]) == (False, True, {})
