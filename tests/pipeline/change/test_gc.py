"""gc removes generations and what only they need; verify and repair know every generation; log tells of all."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_lab import ingest_lab, make_lab, schema_text

import vlapipe
from vlapipe.cli import cli
from vlapipe.pipeline.change.edit import Edit, edit
from vlapipe.pipeline.repair.origin import FromCopy
from vlapipe.pipeline.repair.repair import repair
from vlapipe.pipeline.shards.verify.verify import verify
from vlapipe.schemas.errors import DamageError, UsageError

NAMES = [f"ep{i:02d}" for i in range(4)]
SCHEMA = schema_text()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three generations: an ingest, a recording that changed, an episode that was dropped."""
    raw = make_lab(tmp_path / "raw", dict.fromkeys(NAMES))
    ingest_lab(raw, tmp_path / "data", SCHEMA, shard_bytes=20)
    with (raw / NAMES[0] / "robot.csv").open("a") as file:
        file.write("5000,0.5\n")
    ingest_lab(raw, tmp_path / "data", SCHEMA, shard_bytes=20)
    edit(tmp_path / "data", [NAMES[1]], Edit(drop=True), note="shaky")
    return tmp_path / "data"


def command(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(cli, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == code
    return done.output


def files(data: Path) -> set[str]:
    return {path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()}


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    file.write_bytes(bytes(content))


def test_gc_removes_what_no_kept_generation_needs(data: Path) -> None:
    old = vlapipe.open_dataset(data, generation=1)
    replaced = old.manifest.shards[0]["file"]
    held = old.arrays(0)["robot/q"]
    values = np.array(held)
    before = files(data)
    said = command("gc", data, "--keep", 2, "--older-than", 0, "--dry-run")
    assert said.startswith("would remove 1 generation: ")
    assert files(data) == before
    assert command("gc", data, "--keep", 2, "--older-than", 0).startswith("removed 1 generation: ")
    gone = before - files(data)
    assert {replaced, "generations/000001.json"} <= gone
    assert not any(name.startswith("shards/") for name in gone - {replaced})
    assert not verify(data).faults
    np.testing.assert_array_equal(held, values)  # mapped before, so still there
    with pytest.raises(UsageError, match="no generation 1: it has 2 to 4"):
        vlapipe.open_dataset(data, generation=1)
    assert len(vlapipe.open_dataset(data, generation=2)) == len(NAMES)
    assert command("gc", data, "--keep", 2, "--older-than", 0).startswith("nothing to do: ")


def test_gc_leaves_what_was_the_newest_generation_within_the_time(data: Path) -> None:
    def age(number: int, hours: float) -> None:
        when = time.time() - hours * 3600
        os.utime(data / "generations" / f"{number:06d}.json", (when, when))

    said = command("gc", data, "--keep", 1)
    assert said == "nothing to do: 3 generations, each to be kept; 2 of them for --older-than\n"
    age(2, 25)  # took the place of generation 1 a day ago
    age(3, 23)
    assert command("gc", data, "--keep", 1, "--older-than", "26h").startswith("nothing to do: ")
    assert command("gc", data, "--keep", 1).startswith("removed 1 generation: ")
    assert command("gc", data, "--keep", 1, "--older-than", "30min").startswith("removed 1 generation: ")
    assert not verify(data).faults
    done = CliRunner().invoke(cli, ["gc", str(data), "--older-than", "2"])
    assert done.exit_code == 2
    assert "'2' is no time; write for example 90s, 30min, 12h, 1d or 2w" in done.output


def test_dropped_episode_survives_gc_and_can_be_restored(data: Path) -> None:
    command("gc", data, "--keep", 1, "--older-than", 0)
    command("edit", data, "--restore", NAMES[1])
    opened = vlapipe.open_dataset(data)
    assert sorted(opened.column("id").tolist()) == NAMES
    assert opened.episode(NAMES[1])["robot/q"][0] == pytest.approx(1)


def test_what_a_killed_command_left_is_told_and_removed(data: Path) -> None:
    shutil.copy(next((data / "shards").iterdir()), data / "shards" / "shard-00099-deadbeef.zarr.zip")
    (data / "statistics-deadbeef.parquet").write_bytes(b"half")
    (data / ".ingest" / "ingest-deadbeef").mkdir(parents=True)
    (data / ".ingest" / "lock").touch()
    assert {fault.file for fault in verify(data).faults} == {
        "shards/shard-00099-deadbeef.zarr.zip",
        "statistics-deadbeef.parquet",
        ".ingest",
    }
    command("gc", data, "--older-than", 0)
    assert not verify(data).faults
    assert not (data / ".ingest").exists()


def test_one_flipped_bit_in_any_file_of_any_generation_is_found(data: Path, tmp_path: Path) -> None:
    names = sorted(name for name in files(data) - {".ingested.json"} if (data / name).stat().st_size)
    assert {"generations/000001.json", "generations/000002.json", "generations/000003.json"} <= set(names)
    assert sum(name.startswith(".log/") for name in names) == 3
    for name in names:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(data, copy)
        flip(copy / name)
        found = verify(copy)
        assert [(fault.kind, fault.file) for fault in found.faults] == [("altered", name)], name
        done = repair(copy, FromCopy(copy, data))
        assert not done.after.faults, (name, done.lines())
        assert (copy / name).read_bytes() == (data / name).read_bytes()


def test_missing_file_of_an_older_generation_is_found_with_its_generation(data: Path) -> None:
    file = vlapipe.open_dataset(data, generation=1).manifest.shards[0]["file"]
    (data / file).unlink()
    (data / "generations" / "000002.json").unlink()
    lines = {fault.file: str(fault) for fault in verify(data, share=0).faults}
    assert lines == {
        file: f"missing: {file}: generation 1: no such file",
        "generations/000002.json": "missing: generations/000002.json: no such file",
    }


def test_manifest_that_is_behind_is_a_note_and_the_newest_generation_is_opened(data: Path) -> None:
    shutil.copy(data / "generations" / "000002.json", data / "manifest.json")
    found = verify(data)
    assert not found.faults
    assert "manifest.json is that of an earlier generation" in found.notes[0]
    assert vlapipe.open_dataset(data).generation == 3
    command("edit", data, "--drop", NAMES[1])  # nothing to do, but for that
    assert (data / "manifest.json").read_bytes() == (data / "generations" / "000003.json").read_bytes()


def test_altered_newest_generation_is_not_opened(data: Path) -> None:
    flip(data / "generations" / "000003.json")
    with pytest.raises(DamageError, match=r"generations/000003\.json: its bytes differ"):
        vlapipe.open_dataset(data)


def test_lost_manifest_is_made_again_from_its_generation(data: Path, tmp_path: Path) -> None:
    (data / "manifest.json").unlink()
    assert vlapipe.open_dataset(data).generation == 3
    assert "missing: manifest.json" in command("verify", data, code=1)
    said = command("repair", data, "--source", tmp_path / "raw")
    assert "repaired: manifest.json (was missing)" in said


def test_shards_of_every_generation_are_built_again_from_recordings(data: Path, tmp_path: Path) -> None:
    whole = {path.name: path.read_bytes() for path in (data / "shards").iterdir()}
    first = vlapipe.open_dataset(data, generation=1).manifest.shards[0]["file"]
    for path in list((data / "shards").iterdir()):
        path.unlink()
    said = command("repair", data, "--source", tmp_path / "raw", code=1)
    assert said.count("\nrepaired: shards/") + said.startswith("repaired: shards/") == len(whole) - 1
    assert f"not repaired: {first}: " in said  # its recording has changed since
    now = {path.name: path.read_bytes() for path in (data / "shards").iterdir()}
    assert now == {name: content for name, content in whole.items() if name != Path(first).name}


def test_log_says_who_what_and_why(data: Path) -> None:
    said = command("log", data)
    assert said.index("generation 3  ") < said.index("generation 2  ") < said.index("generation 1  ")
    assert "drop: 1 dropped (ep01)" in said
    assert "note: shaky" in said
    assert "append: 1 replaced (ep00)" in said
    entries = json.loads(command("log", data, "--json"))
    assert [entry["generation"] for entry in entries] == [1, 2, 3]
    assert all(entry["user"] and entry["when"] and entry["vlapipe_version"] == vlapipe.__version__ for entry in entries)
    assert entries[1]["host"]
    assert entries[1]["command"]
    command("gc", data, "--keep", 1, "--older-than", 0, "--note", "no space")
    assert "removed by gc" in command("log", data)
    assert [entry["what"] for entry in json.loads(command("log", data, "--json"))][1:] == [
        "append",
        "drop",
        "gc",
    ]


def test_log_of_a_first_ingest_says_what_its_file_tells(tmp_path: Path) -> None:
    raw = make_lab(tmp_path / "raw", dict.fromkeys(NAMES))
    ingest_lab(raw, tmp_path / "data", SCHEMA)
    (entry,) = json.loads(command("log", tmp_path / "data", "--json"))
    assert (entry["generation"], entry["what"], entry["changes"]) == (1, "ingest", {"added": 4})


def test_diff_of_two_generations(data: Path) -> None:
    said = command("diff", f"{data}@1", f"{data}@3", code=1)
    assert "ep01" in said
    assert "equal" in command("diff", f"{data}@3", data)
