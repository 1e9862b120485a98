"""Any file name: names that are not text are reported and left out, all others are ingested, and no output breaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from factories import make_dataset, make_episode

import vlapipe
from vlapipe.pipeline.discover.discovery import discover
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.pipeline.show.inspection import inspect_dataset
from vlapipe.schemas.errors import UsageError, printable
from vlapipe.schemas.registry import load_schema

LATIN = os.fsdecode(b"caf\xe9")


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "vlapipe", *map(str, arguments)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(vlapipe.__file__).parents[1]), **environment},
    )


def run(source: Path, out: Path, **options: object) -> IngestReport:
    return ingest(IngestConfig(source=source, out=out, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("environment", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_names_that_are_no_text_are_one_finding_and_all_else_is_ingested(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    raw, out, report = make_dataset(tmp_path / "raw", num_episodes=2), tmp_path / "data", tmp_path / "report.json"
    make_episode(raw / "insert_red" / f"episode_{LATIN}", seed=5)
    (raw / "insert_red" / "episode_20260101_000000" / f"notes_{LATIN}.txt").write_text("x")
    make_episode(raw / "insert_red" / "episode_b\x1b[31m\nred", seed=6)
    done = command("ingest", "--dataset", raw, "--out", out, "--report", report, **environment)
    said = done.stdout.decode()
    assert (done.returncode, done.stderr) == (1, b"")
    assert "ingested 3 of 3 episodes" in said
    assert "error: insert_red/episode_20260101_000000/notes_caf\\xe9.txt: " in said
    assert "as in insert_red/episode_caf\\xe9 and 1 more like it (rename it) [file.bad_name]" in said
    assert "\x1b" not in said
    (finding,) = [f for f in json.loads(report.read_text())["findings"] if f["code"] == "file.bad_name"]
    assert (finding["count"], finding["file"]) == (2, "insert_red/episode_20260101_000000/notes_caf\\xe9.txt")
    ids = vlapipe.open_dataset(out).episodes.column("id").to_pylist()
    assert ids[-1] == "insert_red/episode_b\\x1b[31m\\nred"
    for arguments in ((out,), (out, "--json"), (out, "--episode", ids[-1])):
        shown = command("inspect", *arguments, **environment)
        assert (shown.returncode, shown.stderr, b"\x1b" in shown.stdout) == (0, b"", False)


def test_dataset_and_output_below_a_folder_that_is_no_text(tmp_path: Path) -> None:
    raw, out = tmp_path / LATIN / "raw", tmp_path / LATIN / "data"
    make_dataset(raw, num_episodes=2)
    done = command("ingest", "--dataset", raw, "--out", out, "--report", tmp_path / f"{LATIN}.json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads((tmp_path / f"{LATIN}.json").read_text())["num_episodes"] == 2
    dataset = vlapipe.open_dataset(out)
    assert len(dataset.episode(0)["robot/timestamp"])  # unpacks into the dataset
    for arguments in (
        ("inspect", out),
        ("inspect", out, "--json"),
        ("cache", "show", out),
        ("cache", "show", out, "--json"),
    ):
        shown = command(*arguments)
        assert (shown.returncode, shown.stderr) == (0, b""), arguments
    assert command("ingest", "--dataset", raw, "--out", out).stdout.startswith(b"nothing to do: ")
    missing = command("ingest", "--dataset", tmp_path / LATIN / "gone", "--dry-run")
    assert (missing.returncode, b"caf\\xe9/gone: no such folder" in missing.stderr) == (2, True)


def test_single_episode_whose_folder_is_no_text(tmp_path: Path) -> None:
    make_episode(tmp_path / f"episode_{LATIN}")
    run(tmp_path / f"episode_{LATIN}", tmp_path / "data", single_episode=True)
    assert vlapipe.open_dataset(tmp_path / "data").episode(0).id == "episode_caf\\xe9"


def test_ids_that_come_to_the_same_text_stay_apart(tmp_path: Path) -> None:
    make_episode(tmp_path / "raw" / "episode_a\nb", seed=1, num_rows=30)
    make_episode(tmp_path / "raw" / "episode_a\\nb", seed=2, num_rows=30)
    run(tmp_path / "raw", tmp_path / "data")
    ids = vlapipe.open_dataset(tmp_path / "data").episodes.column("id").to_pylist()
    assert [name[:14] for name in ids] == ["episode_a\\nb~" + name[13] for name in ids]
    assert len(set(ids)) == 2


def test_camera_folder_and_its_images_with_control_characters(tmp_path: Path) -> None:
    episode = make_episode(tmp_path / "raw" / "episode_1")
    (episode / "images" / "View1").rename(episode / "images" / "View\n1\x07")
    (episode / "images" / "View2" / "no\ntime.jpg").write_bytes(b"x")
    report = run(tmp_path / "raw", tmp_path / "data")
    messages = [reason["message"] for reject in report.rejects for reason in reject["reasons"]]
    assert any("no\\ntime.jpg" in message for message in messages)
    assert all(message.isprintable() for message in messages)


def test_long_names_are_kept_and_paths_too_long_to_open_are_named(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=1)
    long = "episode_" + "x" * 247
    make_episode(raw / long, seed=3, num_rows=30)
    folder = os.open(raw, os.O_RDONLY)
    for _ in range(17):
        os.mkdir("d" * 250, dir_fd=folder)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    report = run(raw, tmp_path / "data")
    assert report.num_episodes == 2
    assert long in vlapipe.open_dataset(tmp_path / "data").episodes.column("id").to_pylist()
    (finding,) = [finding for finding in report.findings if finding["code"] == "file.bad_name"]
    assert finding["count"] == 1
    inspect_dataset(vlapipe.open_dataset(tmp_path / "data"))


def test_instruction_with_half_a_character_sets_its_episode_aside(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=2)
    (raw / "insert_red" / "episode_20260101_000000" / "metadata.json").write_text('{"instruction": "go \\ud83d"}')
    report = run(raw, tmp_path / "data")
    assert [reason["code"] for reason in report.rejects[0]["reasons"]] == ["metadata.unreadable"]
    assert report.num_episodes == 1


def test_folder_of_which_no_name_is_text_says_so(tmp_path: Path) -> None:
    make_episode(tmp_path / "raw" / f"episode_{LATIN}")
    with pytest.raises(UsageError, match=r"1 names there are no UTF-8 text or too long, such as episode_caf\\xe9"):
        discover(tmp_path / "raw", load_schema("meca500"))


def test_schema_commands_name_it_too(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=1)
    (raw / f"{LATIN}.txt").write_text("x")
    done = command("schema", "check", "meca500", raw)
    assert done.returncode == 1
    assert b"error: caf\\xe9.txt: no UTF-8 text, or too long (rename it)" in done.stdout
    done = command("schema", "infer", raw)
    assert b"left out: 1 names that are no UTF-8 text or too long, such as caf\\xe9.txt" in done.stderr


def test_printable_keeps_text_of_any_language() -> None:
    assert printable("회전 カメラ　é x\u00a0y 😀") == "회전 カメラ　é x\u00a0y 😀"
    assert printable("a\tb\r\u202ec\udcff\ud83d") == "a\\tb\\r\\u202ec\\xff\\ud83d"


FOLDERS_NOT_MATCHED = "expected a folder called episode_"


def test_folders_with_an_episode_under_another_name_are_counted_and_named(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=2)
    for i, name in enumerate(("run_1", "Episode_2", "insert_red/ep3")):
        make_episode(raw / name, seed=7 + i, num_rows=30)
    make_episode(raw / "insert_red" / "episode_20260101_000000" / "backup", seed=11, num_rows=30)  # in an episode
    make_episode(raw / "run_1" / "old", seed=12, num_rows=30)  # in one that is counted
    for options in (("--dry-run",), ("--out", tmp_path / "data")):
        done = command("ingest", "--dataset", raw, *options)
        said = done.stdout.decode()
        assert done.returncode == 0
        assert f"warning: Episode_2: {FOLDERS_NOT_MATCHED}" in said
        assert "as in insert_red/ep3, run_1 and 2 more like it" in said
    report = run(raw, tmp_path / "again")
    (finding,) = [finding for finding in report.findings if finding["code"] == "episode.not_matched"]
    assert (finding["count"], finding["severity"], report.num_episodes) == (3, "warning", 2)
    done = command("schema", "check", "meca500", raw)
    assert (done.returncode, f"warning: Episode_2: {FOLDERS_NOT_MATCHED}".encode() in done.stdout) == (0, True)


def test_dataset_whose_own_folder_is_an_episode_is_named(tmp_path: Path) -> None:
    make_episode(tmp_path / "raw", num_rows=30)
    make_episode(tmp_path / "raw" / "episode_1", seed=1, num_rows=30)
    report = run(tmp_path / "raw", tmp_path / "data")
    assert [f["file"] for f in report.findings if f["code"] == "episode.not_matched"] == ["raw"]


def test_no_episode_says_that_there_are_some_under_other_names(tmp_path: Path) -> None:
    make_episode(tmp_path / "raw" / "run_1", num_rows=30)
    with pytest.raises(UsageError, match=r"no episode in .*; 1 others hold an episode's files, such as run_1"):
        discover(tmp_path / "raw", load_schema("meca500"))
    schema = (tmp_path / "s.toml", Path(vlapipe.__file__).parent / "schemas" / "robots" / "meca500.toml")
    schema[0].write_text(schema[1].read_text() + '\n[checks.severity]\n"episode.not_matched" = "error"\n')
    make_episode(tmp_path / "raw" / "episode_1", seed=1, num_rows=30)
    assert run(tmp_path / "raw", tmp_path / "data", schema=str(schema[0])).has_errors
