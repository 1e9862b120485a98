"""A run's folder: made, removed, locked, restarted after a kill, and resumed from another folder on its own data."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from making_checkpoints import edit_state
from test_loop import SMALL, config, exact, lines

from vlapipe.pipeline.shards.format.atomic import TEMP_PREFIX
from vlapipe.schemas.errors import NotADatasetError, UsageError
from vlapipe.train.checkpoint.files import FOLDER, latest_checkpoint
from vlapipe.train.checkpoint.run_folder import run_folder, save_config
from vlapipe.train.config import CONFIG_FILE, TrainConfig
from vlapipe.train.loop import train

ROOT = Path(__file__).resolve().parents[3]


def killed_before_its_first_checkpoint(data: Path, out: Path) -> None:
    """What a run leaves that gets SIGKILL in its first save."""
    train(config(data, out))
    shutil.move(out / FOLDER / "step-00000006", out / FOLDER / f"{TEMP_PREFIX}1-step-00000006")
    (out / f"{TEMP_PREFIX}1-metrics").touch()
    (out / "wandb").mkdir()
    (out / "wandb_run_id").write_text("abc")


@pytest.mark.parametrize("resume", [True, False])
def test_run_killed_before_its_first_checkpoint_begins_again_with_either_spelling(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], resume: bool
) -> None:
    out = tmp_path / "run"
    killed_before_its_first_checkpoint(tiny_dataset, out)
    before = exact(out)
    if resume:
        result = train(TrainConfig.from_sources(None, {"out": out, "resume": True}))
    else:
        result = train(config(tiny_dataset, out))
    said = f"--out {out}: an earlier run ended before its first checkpoint; it begins again"
    assert said in capsys.readouterr().err
    assert result.step == 6
    assert exact(out) == before
    assert not list(out.rglob(f"{TEMP_PREFIX}*"))
    assert not (out / "wandb_run_id").exists()


def test_run_killed_in_its_first_step_begins_again(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    values = {
        "data": str(tiny_dataset), "out": str(out), "batch_size": 4, "wandb": "disabled", "policy_args": SMALL,
        "max_steps": 100_000,
    }  # fmt: skip
    main = Path(__file__).parents[1] / "train_main.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen([sys.executable, str(main), json.dumps(values)], env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (out / CONFIG_FILE).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(UsageError, match="another run is writing there"):
        train(config(tiny_dataset, out))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert train(TrainConfig.from_sources(None, {"out": out, "resume": True, "max_steps": 2})).step == 2


@pytest.mark.parametrize("name", ["thesis.txt", CONFIG_FILE, "metrics.jsonl", f"{FOLDER}/best.pt"])
@pytest.mark.parametrize("resume", [True, False])
def test_files_that_no_run_of_ours_left_are_not_written_over(
    tiny_dataset: Path, tmp_path: Path, name: str, resume: bool
) -> None:
    out = tmp_path / "run"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text('{"mine": 1}')
    if "/" in name:
        save_config(config(tiny_dataset, out))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=r"give a new folder"):
        train(config(tiny_dataset, out, resume=resume))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_failed_start_leaves_no_folder_that_it_made(tiny_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    for out in (tmp_path / "a" / "b" / "run", tmp_path / "before"):
        with pytest.raises(UsageError, match="no module"):
            train(config(tiny_dataset, out, policy="no_such_module:Policy"))
    assert [path.name for path in tmp_path.iterdir()] == ["before"]
    assert not list((tmp_path / "before").iterdir())


@pytest.fixture
def read_only_folder() -> Iterator[Path]:
    """A folder that may not be written to, whoever runs the tests."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        was_root = os.geteuid() == 0
        if was_root:
            os.seteuid(65534)  # root may write anywhere
        try:
            yield folder
        finally:
            if was_root:
                os.seteuid(0)
            folder.chmod(0o755)


@pytest.mark.parametrize("below", ["", "run"])
def test_folder_that_cannot_be_written_is_said_with_its_cure(read_only_folder: Path, below: str) -> None:
    out = read_only_folder / below
    asked = TrainConfig.of(data=Path("data"), out=out)
    with (
        pytest.raises(UsageError, match=r"cannot be written: Permission denied \(check its path and permissions\)"),
        run_folder(asked, print),
    ):
        pass


def test_run_is_resumed_from_another_folder(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").symlink_to(tiny_dataset)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    train(config(Path("data"), Path("run"), max_steps=1))
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert train(TrainConfig.from_sources(None, {"out": "../run", "resume": True, "max_steps": 2})).step == 2


def test_moved_dataset_is_asked_for_and_found_again(tiny_dataset: Path, tmp_path: Path) -> None:
    out, old, new = tmp_path / "run", tmp_path / "old", tmp_path / "new"
    shutil.copytree(tiny_dataset, old)
    train(config(old, out, max_steps=1))
    old.rename(new)
    resumed = {"out": out, "resume": True, "max_steps": 2}
    with pytest.raises(NotADatasetError, match=r"if the dataset has moved, say with --data where it is now"):
        train(TrainConfig.from_sources(None, resumed))
    assert train(TrainConfig.from_sources(None, resumed | {"data": new})).step == 2


def test_resume_on_another_dataset_is_refused_in_one_line(tiny_dataset: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "run", tmp_path / "other"
    train(config(tiny_dataset, out, max_steps=1))
    shutil.copytree(tiny_dataset, other)
    manifest = json.loads((other / "manifest.json").read_text())
    # As many frames of the same shapes: nothing but the digest can tell.
    manifest["shards"][0]["sha256"] = "0" * 64
    del manifest["sha256"]
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match=r"is not the dataset that this run began with \(say with --data"):
        train(TrainConfig.from_sources(None, {"data": other, "out": out, "resume": True, "max_steps": 2}))
    assert len(lines(out)) == 1


def test_checkpoint_of_a_version_that_kept_no_dataset_is_resumed(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(config(tiny_dataset, out, max_steps=1))
    newest = latest_checkpoint(out)
    assert newest is not None
    edit_state(newest, lambda state: state.pop("dataset"))
    assert train(config(tiny_dataset, out, max_steps=2, resume=True)).step == 2


@pytest.mark.slow
def test_demo_goes_on_with_a_run_that_was_killed_before_its_first_checkpoint(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "vlapipe"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m vlapipe "$@"\n')
    command.chmod(0o755)
    demo = tmp_path / "demo"
    demo.mkdir()
    (demo / ".recorded").touch()
    shutil.copytree(tiny_dataset, demo / "data")
    killed_before_its_first_checkpoint(demo / "data", demo / "run")
    done = subprocess.run(
        ["bash", "docs/demo.sh", str(demo)],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "trained 6 of 6 steps" in done.stdout


def test_folder_whose_path_is_no_text_is_refused_before_the_first_step(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / os.fsdecode(b"o\xff") / "run"
    with pytest.raises(UsageError, match="not UTF-8"):
        train(config(tiny_dataset, out, max_steps=1))
    assert not out.parent.exists()
