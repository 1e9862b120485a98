"""W&B knows the run, its options and its data, offline too. Whatever fails there, every step is made."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import MAIN as TRAIN
from launching import SMALL, environment, options
from test_loop import config, lines

from vlapipe.train.build import build
from vlapipe.train.loop import train

pytest.importorskip("wandb")
sys.path.append(str(Path(__file__).parent))
import wandb_files

MAIN = """
import json, sys, train_main
from vlapipe.train.report import sinks
sinks._CLOSE_S = 2.0
train_main.main()
"""

IMPATIENT = """
import train_main
from vlapipe.train.report import wandb_run
wandb_run._ONLINE_S = 2.0
train_main.main()
"""


def run_with_wandb(data: Path, out: Path, number: int) -> tuple[int, str]:
    """Exit code and stderr, by way of files: a helper that hangs would keep pipes open."""
    policy = {"policy": "policies_under_test:HurtsWandb", "policy_args": SMALL | {"signal_number": number}}
    values = options(data, out, wandb="offline", save_every=3, eval_every=99, **policy)
    command = [sys.executable, "-c", MAIN, json.dumps(values)]
    paths = [out.with_name(name) for name in ("stdout", "stderr")]
    with paths[0].open("w") as stdout, paths[1].open("w") as stderr:
        try:
            done = subprocess.run(command, env=environment(), stdout=stdout, stderr=stderr, timeout=600, check=False)
        finally:
            with contextlib.suppress(ProcessLookupError, IndexError):  # one that hangs would outlive the test
                os.kill(int(paths[0].read_text().splitlines()[0]), signal.SIGKILL)
    return done.returncode, paths[1].read_text()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the helper process in /proc")
@pytest.mark.parametrize(
    ("number", "why"), [(signal.SIGKILL, r"\w+Error"), (signal.SIGSTOP, "it does not finish within 2 s")]
)
def test_helper_process_that_dies_or_hangs_does_not_stop_training(
    tiny_dataset: Path, tmp_path: Path, number: int, why: str
) -> None:
    code, errors = run_with_wandb(tiny_dataset, tmp_path / "run", number)
    assert code == 0, errors
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]
    assert errors.count("training goes on, and metrics.jsonl has all metrics") == 1
    assert re.search(f"^wandb: {why}.*; training goes on", errors, re.MULTILINE), errors
    assert "Traceback" not in errors


def test_offline_run_has_every_metric_the_whole_config_and_the_dataset_as_input(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train(config(tiny_dataset, out, max_steps=2, wandb="offline"))
    for step, line in zip(wandb_files.history(out), lines(out), strict=True):
        assert {name: step["_step" if name == "step" else name] for name in line} == line
    saved = wandb_files.config(out)
    assert {name: saved[name] for name in json.loads((out / "config.json").read_text())} == json.loads(
        (out / "config.json").read_text()
    )
    assert saved["data"]["batch_size"] == 8
    [artifact] = wandb_files.records(out, "artifact")
    digest = hashlib.sha256((tiny_dataset / "manifest.json").read_bytes()).hexdigest()
    assert saved["dataset_digest"] == digest
    assert json.loads(artifact.metadata) == {"digest": digest, "paths": [str(tiny_dataset)]}
    assert (artifact.type, artifact.use_after_commit) == ("dataset", True)  # an input of the run, once it is synced
    [entry] = artifact.manifest.contents
    assert entry.ref == (tiny_dataset / "manifest.json").as_uri()
    assert not entry.local_path  # nothing is uploaded


def test_resumed_run_is_the_same_run_and_goes_on_in_its_curve(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(config(tiny_dataset, out, max_steps=2, wandb="offline"))
    time.sleep(1.0)  # W&B names the files by the second
    train(config(tiny_dataset, out, max_steps=3, wandb="offline", resume=True))
    first, second = wandb_files.run_ids(out)
    assert first == second == (out / "wandb_run_id").read_text()
    assert [step["_step"] for step in wandb_files.history(out)] == [1, 2, 3]


def test_name_of_a_dataset_that_wandb_refuses_does_not_matter(tiny_dataset: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "lab data #1 %é", tmp_path / "run"
    data.symlink_to(tiny_dataset)
    train(config(data, out, max_steps=1, wandb="offline"))
    [artifact] = wandb_files.records(out, "artifact")
    assert artifact.name == "lab_data__1___"


def test_without_a_network_the_run_is_kept_offline(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    values = options(tiny_dataset, out, wandb="online", max_steps=2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"http://127.0.0.1:{server.getsockname()[1]}"
    done = subprocess.run(
        [sys.executable, "-c", IMPATIENT, json.dumps(values)],
        env=environment(WANDB_BASE_URL=closed, WANDB_API_KEY="0" * 40),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if "kept offline" in line]
    assert len(said) == 1
    assert said[0].startswith("wandb: no connection, so this run is kept offline (later, 'wandb sync ")
    assert [step["_step"] for step in wandb_files.history(out)] == [1, 2], done.stderr


@pytest.mark.slow
def test_without_a_key_the_run_is_kept_offline(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, str(TRAIN), json.dumps(options(tiny_dataset, out, wandb="online", max_steps=1))],
        env=environment(WANDB_API_KEY="", NETRC=str(tmp_path / "none"), WANDB_CONFIG_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("wandb: no API key, so this run is kept offline") == 1
    assert [step["_step"] for step in wandb_files.history(out)] == [1]


def test_wandb_that_is_not_installed_or_broken_costs_a_line(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with build(config(tiny_dataset, tmp_path / "run", wandb="offline")) as run:
        assert run.log.outputs is not None
        assert run.log.outputs.sinks == []
    assert "wandb is not installed: metrics go to metrics.jsonl only" in capsys.readouterr().err
