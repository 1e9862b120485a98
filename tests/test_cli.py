"""The commands as users type them: output, exit codes, and no traceback for a user's mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from factories import make_episode

import vlapipe
from vlapipe.pipeline.show.inspection import inspect_dataset


def vlapipe_command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vlapipe", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(vlapipe.__file__).parents[1]), **environment},
    )


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


MISTAKES: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    "dataset that does not exist": (("ingest", "--dataset", "{tmp}/gone", "--out", "{tmp}/o"), 2, ("no such folder",)),
    "neither dataset nor episode": (("ingest", "--out", "{tmp}/o"), 2, ("--dataset", "--dir")),
    "no output": (("ingest", "--dataset", "{raw}"), 2, ("--out is missing", "--dry-run")),
    "schema typo": (
        ("ingest", "--dataset", "{raw}", "--dry-run", "--schema", "mecca500"),
        2,
        ("did you mean 'meca500'",),
    ),
    "unknown format": (("ingest", "--dataset", "{raw}", "--dry-run", "--format", "hdf5"), 2, ("zarr, npz",)),
    "unknown codec": (("ingest", "--dataset", "{raw}", "--dry-run", "--codec", "gzip"), 2, ("choose from",)),
    "no workers": (("ingest", "--dataset", "{raw}", "--dry-run", "--workers", "0"), 2, ("expected 1 or more",)),
    "image size of nothing": (
        ("ingest", "--dataset", "{raw}", "--dry-run", "--image-size", "0x224"),
        2,
        ("--image-size 0x224", "for example 224x224"),
    ),
    "unknown image storage": (
        ("ingest", "--dataset", "{raw}", "--dry-run", "--image-storage", "gif"),
        2,
        ("choose from recorded, jpeg, png, raw",),
    ),
    "output with other files": (("ingest", "--dataset", "{raw}", "--out", "{tmp}"), 2, ("holds something else",)),
    "inspect of no dataset": (("inspect", "{tmp}"), 3, ("not a vlapipe dataset",)),
    "inspect of a missing folder": (("inspect", "{tmp}/gone"), 3, ("no such folder",)),
    "inspect of a missing episode": (("inspect", "{data}", "--episode", "99"), 2, ("no episode 99",)),
    "unknown schema to show": (("schema", "show", "roband"), 2, ("did you mean 'robond'",)),
    "infer of a missing folder": (("schema", "infer", "{tmp}/gone"), 2, ("no such folder",)),
    "infer of nothing": (("schema", "infer", "{tmp}"), 2, ("no table of numbers",)),
    "check of a missing folder": (("schema", "check", "meca500", "{tmp}/gone"), 2, ("no such folder",)),
    "check by a schema with a typo": (("schema", "check", "{tmp}/typo.toml", "{raw}"), 2, ("'streems' a misspelling",)),
    "train without a dataset": (("train", "--out", "{tmp}/run"), 2, ("--data is missing",)),
    "train on no dataset": (("train", "--data", "{tmp}", "--out", "{tmp}/run"), 3, ("not a vlapipe dataset",)),
    "train into a full folder": (("train", "--data", "{data}", "--out", "{tmp}"), 2, ("give a new folder",)),
    "resume of no run": (("train", "--data", "{data}", "--out", "{tmp}/run", "--resume"), 2, ("checkpoint",)),
    "unknown policy": (
        ("train", "--data", "{data}", "--out", "{tmp}/run", "--policy", "regresion"),
        2,
        ("mean 'regression'",),
    ),
    "policy that cannot be imported": (
        ("train", "--data", "{data}", "--out", "{tmp}/run", "--policy", "no_such_module:Policy"),
        2,
        ("no_such_module",),
    ),
    "unknown precision": (
        ("train", "--data", "{data}", "--out", "{tmp}/run", "--precision", "fp8"),
        2,
        ("auto, bf16, fp32",),
    ),
    "unknown key in the config": (
        ("train", "--data", "{data}", "--out", "{tmp}/run", "--config", "{tmp}/config.toml"),
        2,
        ("mean 'batch_size'",),
    ),
    "demo into a full folder": (("demo", "{tmp}"), 2, ("not empty",)),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake_ends_in_one_line_with_its_cure(case: str, tiny_raw: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    arguments, code, words = MISTAKES[case]
    if arguments[0] == "train":
        pytest.importorskip("torch")
    (tmp_path / "mine.txt").write_text("x")
    (tmp_path / "config.toml").write_text("batch_sise = 8")
    (tmp_path / "typo.toml").write_text('schema_version = 1\nname = "x"\nanchor = "robot"\n[streems.robot]\n')
    places = {"{tmp}": str(tmp_path), "{raw}": str(tiny_raw), "{data}": str(tiny_dataset)}
    filled = []
    for argument in arguments:
        for name, place in places.items():
            argument = argument.replace(name, place)
        filled.append(argument)
    assert_one_line(vlapipe_command(*filled), code, *words)


def test_train_without_torch_says_what_to_install(tiny_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    package = Path(vlapipe.__file__).parents[1]
    done = vlapipe_command(
        "train", "--data", tiny_dataset, "--out", tmp_path / "run", PYTHONPATH=f"{tmp_path}{os.pathsep}{package}"
    )
    assert_one_line(done, 2, "torch", "pip install '.[train]' -c constraints.txt")


def test_training_prints_how_the_loss_fell_and_where_everything_is(tiny_dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run = tmp_path / "run"
    options = ("--max-steps", 3, "--batch_size", 4, "--wandb", "disabled", "--precision", "fp32", "--grad-accum", 2)
    done = vlapipe_command("train", "--data", tiny_dataset, "--out", run, *options)
    assert done.returncode == 0, done.stderr
    assert "trained 3 of 3 steps" in done.stdout
    assert "train loss" in done.stdout
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert {"train/loss", "train/step", "train/grad_norm", "system/gpu_mem_GB", "system/cpu_mem_%"} <= set(lines[0])
    resumed = vlapipe_command("train", "--out", run, "--resume", "--max-steps", 4)
    assert resumed.returncode == 0, resumed.stderr
    assert "trained 4 of 4 steps" in resumed.stdout


@pytest.mark.real
def test_robond_trains_ten_steps(real: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    source, data = real / "robond", tmp_path / "data"
    assert vlapipe_command("ingest", "--dataset", source, "--schema", "robond", "--out", data).returncode == 0
    done = vlapipe_command(
        "train", "--data", data, "--out", tmp_path / "run", "--max-steps", 10, "--batch-size", 8, "--wandb", "disabled"
    )
    assert done.returncode == 0, done.stderr
    assert "trained 10 of 10 steps" in done.stdout
    assert "nothing is validated" in done.stderr


def test_misspelt_option_is_answered_with_the_right_one(tiny_raw: Path) -> None:
    done = vlapipe_command("ingest", "--datset", tiny_raw)
    assert done.returncode == 2
    assert "--dataset" in done.stderr
    assert "Traceback" not in done.stderr


def test_manifest_of_a_newer_format_exits_4(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": "vlapipe", "format_version": 99}')
    assert_one_line(vlapipe_command("inspect", tmp_path), 4, "99", "update vlapipe")


def test_underscore_spelling_of_an_option_works(tiny_raw: Path) -> None:
    done = vlapipe_command("ingest", "--dataset", tiny_raw, "--dry_run", "--shard_size", "1MB")
    assert done.returncode == 0, done.stderr
    assert "nothing was written" in done.stdout


def test_images_are_stored_as_asked_for(tiny_raw: Path, tmp_path: Path) -> None:
    options = ("--image-size", "20x10", "--image-storage", "raw")
    done = vlapipe_command("ingest", "--dataset", tiny_raw, "--out", tmp_path / "data", *options)
    assert done.returncode == 0, done.stderr
    assert vlapipe.open_dataset(tmp_path / "data").episode(0)["View1/pixels"].shape == (9, 10, 20, 3)
    done = vlapipe_command("ingest", "--dataset", tiny_raw, "--dry-run", "--image-size", "224")
    assert done.returncode == 2
    assert "write for example 224x224 (width, height)" in done.stderr


def test_rejected_episodes_exit_1_and_are_printed_and_reported(tmp_path: Path) -> None:
    for i in range(2):
        make_episode(tmp_path / "raw" / f"episode_{i}", seed=i, num_rows=30)
    (tmp_path / "raw" / "episode_1" / "robot_states.csv").write_text("joint_1\n1\n")
    done = vlapipe_command(
        "ingest", "--dataset", tmp_path / "raw", "--out", tmp_path / "data", "--report", tmp_path / "report.json"
    )
    assert done.returncode == 1, done.stderr
    assert "ingested 1 of 2 episodes" in done.stdout
    assert "error: episode_1/robot_states.csv:1: origin_timestamp: expected a column" in done.stdout
    assert "-- in 1 episode, 12 places" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["rejects"][0]["reasons"]) == 12
    shown = vlapipe_command("inspect", tmp_path / "data")
    assert shown.returncode == 0
    assert "1 episode set aside" in shown.stdout


def test_one_episode_is_ingested_by_dir(tmp_path: Path) -> None:
    make_episode(tmp_path / "monday", num_rows=30)
    done = vlapipe_command("ingest", "--dir", tmp_path / "monday", "--out", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert "ingested 1 of 1 episode:" in done.stdout


SHOWN = (
    "4 episodes",
    "joint_position (rows, 6) float32 deg",
    "aline (rows, 1025)",
    "32x24 JPEG",
    "insert the needle into the red target",
    "train",
    "val",
    "action/value[6]",
    "no episode was set aside",
)


def test_inspect_shows_what_a_person_asks_first(tiny_dataset: Path) -> None:
    shown = vlapipe_command("inspect", tiny_dataset)
    assert shown.returncode == 0, shown.stderr
    for words in SHOWN:
        assert words in shown.stdout, words


def test_inspect_json_is_the_same_report_as_data(tiny_dataset: Path) -> None:
    done = vlapipe_command("inspect", tiny_dataset, "--json")
    report = json.loads(done.stdout)
    assert report == json.loads(json.dumps(inspect_dataset(vlapipe.open_dataset(tiny_dataset))))
    assert report["streams"]["robot"]["rate_hz"] == pytest.approx(100, rel=0.01)
    assert report["streams"]["sensor"]["rate_hz"] == pytest.approx(650, rel=0.01)
    assert report["episodes"] == sum(split["episodes"] for split in report["splits"].values())
    assert report["frames"] == sum(task["frames"] for task in report["tasks"])


@pytest.mark.parametrize("which", ["1", "-1", "insert_red/episode_20260101_000002"])
def test_inspect_shows_one_episode_by_number_or_id(tiny_dataset: Path, which: str) -> None:
    done = vlapipe_command("inspect", tiny_dataset, "--episode", which, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["streams"]["robot"]["rows"] == report["arrays"]["robot/joint_position"]["shape"][0]
    assert vlapipe_command("inspect", tiny_dataset, "--episode", which).returncode == 0


def test_schema_commands_list_and_show(tmp_path: Path) -> None:
    listed = vlapipe_command("schema", "list").stdout
    assert {line.split()[0] for line in listed.splitlines()} >= {"meca500", "robond", "two_joint", "mecademic_log"}
    (tmp_path / "copy.toml").write_text(vlapipe_command("schema", "show", "robond").stdout)
    assert vlapipe_command("schema", "show", tmp_path / "copy.toml").returncode == 0


def test_infer_asks_for_a_rate_that_nothing_states_and_takes_its_guess_when_told(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    rows = "".join(f"{i % 7 * 0.25},{i % 5 * 0.5}\n" for i in range(30))
    (tmp_path / "raw" / "log.csv").write_text(f"x,y\n{rows}")
    asked = vlapipe_command("schema", "infer", tmp_path / "raw")
    assert asked.returncode == 1
    (question,) = [line for line in asked.stderr.splitlines() if line.startswith("question: ")]
    assert question.startswith("question: robot: how many rows a second")
    assert "(rate_hz = 10), or" in question
    assert question.endswith("?")
    taken = vlapipe_command("schema", "infer", tmp_path / "raw", "--accept")
    assert (taken.returncode, taken.stdout) == (0, asked.stdout)
    assert question.replace("question: ", "taken: ") in taken.stderr.splitlines()
    assert taken.stderr.splitlines()[-1].startswith("next: vlapipe ingest")


def test_schema_that_infer_writes_ingests_what_it_looked_at(tiny_raw: Path, tmp_path: Path) -> None:
    done = vlapipe_command("schema", "infer", tiny_raw, "--out", tmp_path / "mine.toml")
    assert done.returncode == 0, done.stderr
    assert "robot clock: unit s: the numbers count from 1970" in done.stderr
    assert f"--schema {tmp_path / 'mine.toml'}" in done.stderr
    printed = vlapipe_command("schema", "infer", tiny_raw).stdout
    assert printed == (tmp_path / "mine.toml").read_text()
    checked = vlapipe_command("schema", "check", tmp_path / "mine.toml", tiny_raw)
    assert checked.returncode == 0, checked.stdout
    done = vlapipe_command("ingest", "--dataset", tiny_raw, "--dry-run", "--schema", tmp_path / "mine.toml")
    assert done.returncode == 0, done.stdout


def test_schema_check_exits_1_and_explains_what_does_not_fit(tiny_raw: Path) -> None:
    done = vlapipe_command("schema", "check", "two_joint", tiny_raw)
    assert done.returncode == 1
    assert done.stderr == ""
    assert "did you mean 'robot_states.csv'?" in done.stdout


def test_infer_says_what_its_schema_cannot_read_and_writes_it(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    rows = "".join(f"{i / 100:.2f},{i % 7}.5\n" for i in range(50))
    (tmp_path / "raw" / "log.csv").write_text("t,joint_1\n" + rows.replace("0.20,6.5", "0.20,6.5,1"))
    done = vlapipe_command("schema", "infer", tmp_path / "raw", "--out", tmp_path / "mine.toml")
    assert done.returncode == 1
    assert "fault: log.csv:22" in done.stderr
    assert (tmp_path / "mine.toml").read_text().startswith("# Guessed by")


def test_closed_pipe_says_nothing(tiny_dataset: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(vlapipe.__file__).parents[1])}
    writer = subprocess.Popen(
        [sys.executable, "-m", "vlapipe", "inspect", str(tiny_dataset), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.close()  # before anything is written
    assert writer.stderr.read() == b""
    writer.wait()


def test_episode_whose_id_is_a_number_is_found_by_it(tmp_path: Path) -> None:
    for name, seed in (("1", 1), ("2", 2), ("10", 10)):
        make_episode(tmp_path / "raw" / name, seed=seed, instruction=f"episode {name}")
    schema = tmp_path / "s.toml"
    schema.write_text(
        vlapipe_command("schema", "show", "meca500").stdout.replace("folders = [", 'folders = ["?", "??", ')
    )
    assert (
        vlapipe_command("ingest", "--dataset", tmp_path / "raw", "--schema", schema, "--out", tmp_path / "d").returncode
        == 0
    )
    shown = json.loads(vlapipe_command("inspect", tmp_path / "d", "--episode", "2", "--json").stdout)
    assert shown["instruction"] == "episode 2"
    assert "episode 1" in vlapipe_command("inspect", tmp_path / "d", "--episode", "0").stdout  # no id: a number


def test_report_without_a_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    done = vlapipe_command("ingest", "--dataset", tmp_path, "--dry-run", "--report", tmp_path / "no" / "r.json")
    assert done.returncode == 2
    assert "make it first" in done.stderr
