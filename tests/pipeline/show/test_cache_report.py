"""`vlapipe cache` reports what is unpacked, and removes nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from factories import make_dataset

import vlapipe
from vlapipe.cli import cli
from vlapipe.pipeline.ingest import IngestConfig, ingest


def run(*args: object) -> str:
    result = CliRunner().invoke(cli, ["cache", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def data(tiny_dataset: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "data"
    shutil.copytree(tiny_dataset, copy, ignore=shutil.ignore_patterns(".cache"))
    return copy


def test_show_says_how_many_shards_of_how_many_and_whether_they_are_in_use(data: Path) -> None:
    assert run("show", data).splitlines() == [
        f"{data}/.cache: nothing is unpacked",
        f"  {data}: 0 of 4 shards unpacked",
    ]
    dataset = vlapipe.open_dataset(data)
    held = [dataset.arrays(0), dataset.arrays(2)]
    num_bytes = sum(path.stat().st_size for path in (data / ".cache").iterdir())
    [entry] = json.loads(run("show", data, "--json"))["datasets"]
    last_used = entry.pop("last_used")
    assert entry == {
        "dataset": str(data), "num_shards": 4, "num_unpacked": 2, "num_fetched": 0, "num_in_use": 2,
        "num_bytes": num_bytes,
    }  # fmt: skip
    assert f"2 of 4 shards unpacked, 3.4 MB, last used {last_used}, 2 in use" in run("show", data)
    del held, dataset
    assert "2 of 4 shards unpacked, 3.4 MB, last used" in run("show", data)
    assert "none in use" in run("show", data)


def test_clear_removes_what_nobody_uses_and_nothing_else(data: Path) -> None:
    dataset = vlapipe.open_dataset(data)
    folder = data / ".cache"
    dataset.arrays(0)
    [in_use] = names(folder)
    vlapipe.open_dataset(data).arrays(1)
    vlapipe.open_dataset(data).arrays(2)
    others = ["notes.txt", f"vlapipe-{'0' * 32}.mapped", f"vlapipe-{'a' * 32}.mapped.bak"]
    for name in others:
        (folder / name).write_text("somebody else's")
    (folder / f".vlapipe-{'b' * 32}.mapped").write_bytes(bytes(1000))  # what a killed process leaves
    removed = [path for path in folder.glob("vlapipe-*.mapped") if path.name not in (in_use, *others)]
    num_bytes = sum(path.stat().st_size for path in removed) + 1000
    assert run("clear", data) == (
        f"{folder}: 2 shards removed, {num_bytes / 1e6:.1f} MB freed; 1 shard in use, not removed\n"
    )
    assert names(folder) == sorted([in_use, *others])
    assert len(dataset.arrays(0)["action/value"])


def test_folder_that_datasets_share_is_shown_and_cleared_by_dataset(
    data: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(IngestConfig(source=make_dataset(tmp_path / "raw", num_episodes=1), out=tmp_path / "other"))
    shared = tmp_path / "shared"
    monkeypatch.setenv("VLAPIPE_CACHE_DIR", str(shared))
    monkeypatch.setenv("VLAPIPE_CACHE_SIZE", "5MB")
    vlapipe.open_dataset(data).arrays(0)
    [of_data] = names(shared)
    vlapipe.open_dataset(tmp_path / "other").arrays(0)
    report = json.loads(run("show", "--json"))
    assert (report["folder"], report["limit_bytes"]) == (str(shared), 5_000_000)
    assert [(e["dataset"], e["num_unpacked"]) for e in report["datasets"]] == [
        (str(data), 1),
        (str(tmp_path / "other"), 1),
    ]
    assert "1 shard removed" in run("clear", tmp_path / "other")
    assert names(shared) == [of_data]
    assert "of 5.0 MB allowed" in run("show", "--cache-dir", shared)
    assert "1 shard removed" in run("clear", "--cache-dir", shared)
    assert names(shared) == []
    assert "nothing is unpacked" in run("show")
