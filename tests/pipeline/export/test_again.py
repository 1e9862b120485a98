"""An export that is killed, stopped, repeated or meets something else: finished by the same command, or refused."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import vlapipe
from vlapipe.cli import cli
from vlapipe.pipeline.export import lerobot, lerobot_tables
from vlapipe.pipeline.export.export import export
from vlapipe.schemas.errors import DamageError, UsageError

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(vlapipe.__file__).parents[1])}

# Ends its own process, as kill -9 does, after the record of that name is written.
KILLED = """
import os, signal, sys
from vlapipe.pipeline.export import lerobot_tables
from vlapipe.pipeline.export.export import export
from vlapipe.pipeline.export.work_folder import WorkFolder
lerobot_tables.DATA_FILE_BYTES = 1
keep = WorkFolder.keep
def keep_and_end(self, name, record):
    keep(self, name, record)
    if name == sys.argv[4]:
        for folder in (self.path, self.path.parent / "data" / "chunk-000"):
            if folder.is_dir():
                (folder / ".vlapipe-tmp-1-left").write_bytes(b"x")
        os.kill(os.getpid(), signal.SIGKILL)
WorkFolder.keep = keep_and_end
export(sys.argv[1], sys.argv[2], to=sys.argv[3], fps=20, video=sys.argv[5] or None, workers=1)
"""


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def killed(data: Path, out: Path, to: str, after: str, video: str = "") -> None:
    command = [sys.executable, "-c", KILLED, str(data), str(out), to, after, video]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == -9, done.stderr


def command(*arguments: object, before: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vlapipe", "export", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
        preexec_fn=before,
    )


def printed(*arguments: object) -> str:
    """What the command prints, run in this process."""
    done = CliRunner().invoke(cli, ["export", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


def test_killed_export_goes_on_after_its_finished_files(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")  # AV1, because x264 does not give the same bytes each time if threads share the heap
    monkeypatch.setattr(lerobot_tables, "DATA_FILE_BYTES", 1)
    killed(tiny_dataset, tmp_path / "out", "lerobot", "frames-000-001", "av1")
    assert not (tmp_path / "out" / "meta").exists()
    finished = sorted((tmp_path / "out" / "data").rglob("*.parquet"))
    stamps = [path.stat().st_mtime_ns for path in finished]
    parts = sorted((tmp_path / "out" / ".vlapipe-export" / "video").rglob("*.mp4"))
    made = {path: path.stat().st_ino for path in parts}
    assert len(finished) == 2
    assert len(made) >= 4
    report = export(tiny_dataset, tmp_path / "out", fps=20, video="av1", workers=1)
    assert report.num_resumed == 2
    assert [path.stat().st_mtime_ns for path in finished] == stamps
    export(tiny_dataset, tmp_path / "whole", fps=20, video="av1", workers=2)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_killed_export_to_hdf5_goes_on_after_its_finished_episodes(tiny_dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    killed(tiny_dataset, tmp_path / "out.hdf5", "hdf5", "demo_2")
    assert not (tmp_path / "out.hdf5").exists()
    report = export(tiny_dataset, tmp_path / "out.hdf5", to="hdf5", fps=20)
    assert report.num_resumed == 3
    export(tiny_dataset, tmp_path / "whole.hdf5", to="hdf5", fps=20, workers=1)
    assert (tmp_path / "out.hdf5").read_bytes() == (tmp_path / "whole.hdf5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.hdf5", "whole.hdf5"]


def test_finished_file_that_was_lost_meanwhile_is_made_again(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot_tables, "DATA_FILE_BYTES", 1)
    killed(tiny_dataset, tmp_path / "out", "lerobot", "frames-000-002")
    (tmp_path / "out" / lerobot_tables.data_path((0, 1))).write_bytes(b"torn")
    assert export(tiny_dataset, tmp_path / "out", fps=20).num_resumed == 1
    export(tiny_dataset, tmp_path / "whole", fps=20)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_finished_export_says_so_and_a_lost_file_of_it_is_made_again(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = [printed(tiny_dataset, out, "--report", tmp_path / "report.json") for _ in range(2)]
    assert "exported 4 of 4 episodes: " in said[0]
    assert "View1: " in said[0]
    assert said[1].startswith(f"nothing to do: {out} holds 4 episodes of the same dataset and options")
    assert json.loads((tmp_path / "report.json").read_text())["was_finished"] is True
    before = tree(out)
    (out / "meta" / "stats.json").unlink()
    assert not export(tiny_dataset, out).was_finished
    assert tree(out) == before


@pytest.mark.parametrize("to", ["lerobot", "hdf5"])
def test_limit_of_the_disk_exits_5_and_the_same_command_goes_on(tiny_dataset: Path, tmp_path: Path, to: str) -> None:
    out = tmp_path / ("out.hdf5" if to == "hdf5" else "out")

    def few_bytes_a_file() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    export(tiny_dataset, tmp_path / "warm", fps=20)  # shards are unpacked now
    done = command(tiny_dataset, out, "--to", to, "--fps", 20, before=few_bytes_a_file)
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "no file may become so large here" in last
    assert "the same command then goes on" in last
    assert not list(tmp_path.rglob(".vlapipe-tmp-*"))
    export(tiny_dataset, out, to=to, fps=20)


def test_something_else_is_refused_and_left_as_it_is(tiny_dataset: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds something else: thesis\.txt"):
        export(tiny_dataset, mine)
    with pytest.raises(UsageError, match="lies inside the dataset"):
        export(tiny_dataset, tiny_dataset / "lerobot")
    with pytest.raises(UsageError, match="is a file"):
        export(tiny_dataset, mine / "thesis.txt")
    assert tree(mine) == {"thesis.txt": b"mine"}
    export(tiny_dataset, tmp_path / "out", fps=20)
    with pytest.raises(UsageError, match=r"already holds another export: --fps was 20\.0 and is 10\.0"):
        export(tiny_dataset, tmp_path / "out", fps=10)
    killed(tiny_dataset, tmp_path / "half", "lerobot", "frames-000-001")
    with pytest.raises(UsageError, match=r"unfinished export of something else: --fps was 20\.0 and is 10\.0"):
        export(tiny_dataset, tmp_path / "half", fps=10)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to": "rlds"}, "choose from lerobot, hdf5"),
        ({"video": "vp9"}, "choose from h264, av1"),
        ({"fps": 0}, "--fps 0: expected"),
        ({"workers": 0}, "expected 1 or more"),
        ({"where": "tusk == 1"}, "did you mean"),
        ({"where": "task == 'none'"}, "fits none of 4 episodes"),
        ({"cameras": ["View9"]}, "the dataset has View1, View2"),
    ],
)
def test_mistakes_write_nothing(tiny_dataset: Path, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        export(tiny_dataset, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_command_tells_mistakes_in_one_line_with_their_exit_codes(tiny_dataset: Path, tmp_path: Path) -> None:
    for dataset, code, words in ((tmp_path, 3, "not a vlapipe dataset"), (tiny_dataset, 2, "no folder")):
        done = command(dataset, tmp_path / "out", *(("--report", tmp_path / "no" / "r.json") if code == 2 else ()))
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (code, 1), done.stderr
        assert words in done.stderr
    assert not (tmp_path / "out").exists()


def test_file_that_reads_back_otherwise_is_damage(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(pq.ParquetWriter):  # type: ignore[misc]
        def write_table(self, table: pa.Table, **options: object) -> None:
            column = table.schema.get_field_index("frame_index")
            other = pa.array([7] * len(table), pa.int64())
            super().write_table(table.set_column(column, table.schema.field(column), other), **options)

    monkeypatch.setattr(lerobot.pq, "ParquetWriter", Wrong)
    with pytest.raises(DamageError, match="read back otherwise than it was written, in row group 0"):
        export(tiny_dataset, tmp_path / "out", fps=20)
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_output_does_not_depend_on_the_number_of_threads(tiny_dataset: Path, tmp_path: Path) -> None:
    for workers in (1, 3):
        export(tiny_dataset, tmp_path / f"of_{workers}", workers=workers)
    assert tree(tmp_path / "of_1") == tree(tmp_path / "of_3")
