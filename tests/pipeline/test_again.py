"""Running the same command again: nothing to do if finished, a next generation if the input changed, resuming."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from factories import make_dataset, make_episode

import vlapipe
from vlapipe.pipeline.build.output_folder import open_output
from vlapipe.pipeline.discover.discovery import discover
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.pipeline.shards.manifest.manifest import MADE_FROM
from vlapipe.schemas.errors import NotADatasetError, UsageError, VlapipeError
from vlapipe.schemas.registry import load_schema

FIRST = "insert_red/episode_20260101_000000"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vlapipe", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(vlapipe.__file__).parents[1])},
    )


def run(source: Path, out: Path, **options: object) -> IngestReport:
    return ingest(IngestConfig(source=source, out=out, **options))  # type: ignore[arg-type]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "raw", num_episodes=2, num_rows=40)


@pytest.fixture
def out(raw: Path, tmp_path: Path) -> Path:
    run(raw, tmp_path / "data")
    return tmp_path / "data"


def test_finished_ingest_has_nothing_to_do_and_exits_0(raw: Path, out: Path, tmp_path: Path) -> None:
    (raw / FIRST / "robot_states.csv").write_text("")
    shutil.rmtree(out)
    assert command("ingest", "--dataset", raw, "--out", out).returncode == 1  # an episode was set aside
    (out / "notes.txt").write_text("mine")
    before = tree(out)
    report = tmp_path / "report.json"
    done = command("ingest", "--dataset", raw, "--out", out, "--workers", 1, "--report", report)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"nothing to do: {out} holds 1 episode of the same source and options, 1 set aside\n"
    assert tree(out) == before
    values = json.loads(report.read_text())
    assert (values["was_finished"], values["num_episodes"], values["num_frames"]) == (True, 1, 36)
    assert [reject["episode"] for reject in values["rejects"]] == [FIRST]
    with pytest.raises(VlapipeError, match="--strict: "):
        run(raw, out, strict=True)


def _edited(raw: Path) -> None:
    with (raw / FIRST / "metadata.json").open("a") as file:
        file.write(" ")


def _instructed(raw: Path) -> None:
    metadata = json.loads((raw / FIRST / "metadata.json").read_text())
    (raw / FIRST / "metadata.json").write_text(json.dumps(metadata | {"instruction": "lift it"}))


def _touched(raw: Path) -> None:
    os.utime(raw / FIRST / "robot_states.csv", (1, 1))


def _added(raw: Path) -> None:
    make_episode(raw / "insert_red" / "episode_20260101_000009", seed=9, num_rows=40)


def _removed(raw: Path) -> None:
    shutil.rmtree(raw / FIRST)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_edited, "nothing to do: {} holds 2 episodes"),  # a blank: the metadata says the same
        (_instructed, "generation 2 of {}: 1 replaced"),
        (_touched, "nothing to do: {} holds 2 episodes"),
        (_added, "generation 2 of {}: 1 added"),
        (_removed, "nothing to do: {} holds 2 episodes"),
    ],
)
def test_changed_source_makes_the_next_generation(
    raw: Path, out: Path, change: Callable[[Path], None], said: str
) -> None:
    change(raw)
    done = command("ingest", "--dataset", raw, "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert said.format(out) in done.stdout


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"shard_format": "npz"}, "--codec was .* and is .*; --format was zarr and is npz"),
        ({"shard_bytes": 1000}, "--shard-size was 256000000 bytes and is 1000 bytes"),
        ({"image_size": (16, 16)}, "--image-size was not given and is 16x16"),
        ({"image_storage": "raw"}, "--image-storage was recorded and is raw"),
        ({"schema": "two_joint"}, r"--schema was meca500 \(.*\) and is two_joint \("),
    ],
)
def test_changed_options_are_named(raw: Path, out: Path, option: dict[str, object], said: str) -> None:
    (raw / FIRST / "joint_states.csv").write_text("for two_joint")
    with pytest.raises(UsageError, match=said):
        run(raw, out, **option)


def test_file_that_no_stream_asks_for_changes_nothing(raw: Path, out: Path) -> None:
    (raw / FIRST / "notes.txt").write_text("mine")
    assert run(raw, out).was_finished


def test_dataset_that_lost_a_shard_is_made_whole_by_the_same_command(raw: Path, out: Path) -> None:
    before = tree(out)
    next((out / "shards").iterdir()).unlink()
    assert not run(raw, out).was_finished
    assert tree(out) == before


def test_run_killed_after_its_manifest_stood_is_tidied(raw: Path, out: Path) -> None:
    before = tree(out)
    (out / ".ingest").mkdir()
    (out / ".ingest" / "lock").write_text("")
    (out / "shards" / "shard-00007-deadbeef.npz").write_text("of a run before")
    assert run(raw, out).was_finished
    assert tree(out) == before


def killed(raw: Path, tmp_path: Path) -> Path:
    """A folder with shards and no manifest."""
    broken = raw / "insert_red" / "episode_20260101_000002"
    make_episode(broken, seed=2, num_rows=40)
    (broken / "robot_states.csv").write_text("")
    with pytest.raises(VlapipeError):
        run(raw, tmp_path / "data", strict=True, shard_bytes=1, workers=1)
    shutil.rmtree(broken)
    return tmp_path / "data"


@pytest.mark.parametrize("arguments", ["inspect {}", "cache show {}", "cache clear {}"])
def test_every_command_calls_an_unfinished_folder_unfinished(raw: Path, tmp_path: Path, arguments: str) -> None:
    unfinished = killed(raw, tmp_path)
    done = command(*arguments.format(unfinished).split())
    assert done.returncode == 3
    assert done.stderr.strip().count("\n") == 0
    assert f"{unfinished}: unfinished: " in done.stderr
    assert "(run the same vlapipe ingest command again)" in done.stderr


def test_training_calls_an_unfinished_folder_unfinished(raw: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from vlapipe.train.config import TrainConfig
    from vlapipe.train.loop import train

    with pytest.raises(NotADatasetError, match=r"unfinished: .*run the same vlapipe ingest command again"):
        train(TrainConfig.of(data=(killed(raw, tmp_path),), out=tmp_path / "run", wandb="disabled"))


def test_unfinished_folder_that_an_ingest_holds_is_waited_for(raw: Path, tmp_path: Path) -> None:
    from vlapipe.pipeline.plan.plan import make_plan
    from vlapipe.schemas.registry import load_schema

    schema = load_schema("meca500")
    plan = make_plan(discover(raw, schema), schema, shard_bytes=1, options={})
    with (
        open_output(tmp_path / "data", plan),
        pytest.raises(NotADatasetError, match=r"unfinished: an ingest is writing there \(wait for it\)"),
    ):
        vlapipe.open_dataset(tmp_path / "data")
    with pytest.raises(NotADatasetError, match=r"unfinished: it has shards and no manifest\.json"):
        vlapipe.open_dataset(tmp_path / "data")


def test_same_command_finishes_an_unfinished_folder(raw: Path, tmp_path: Path) -> None:
    assert run(raw, killed(raw, tmp_path), shard_bytes=1).num_episodes == 2


def test_folder_that_lost_its_manifest_is_made_whole_by_the_same_command(raw: Path, out: Path) -> None:
    before = tree(out)
    (out / "manifest.json").unlink()
    with pytest.raises(NotADatasetError, match=r"unfinished: .*run the same vlapipe ingest command again"):
        vlapipe.open_dataset(out)
    run(raw, out)
    assert tree(out) == before


def test_shards_of_which_nothing_is_known_are_kept(raw: Path, out: Path) -> None:
    (out / "manifest.json").unlink()
    (out / ".ingested.json").unlink()
    before = tree(out)
    with pytest.raises(NotADatasetError, match=r"unfinished: .*\(copy it again with its hidden files, or .* new --out"):
        vlapipe.open_dataset(out)
    with pytest.raises(UsageError, match="holds something else"):
        run(raw, out)
    assert tree(out) == before


def test_shards_without_a_manifest_of_another_source_are_kept(out: Path, tmp_path: Path) -> None:
    (out / "manifest.json").unlink()
    before = tree(out)
    other = make_dataset(tmp_path / "other", num_episodes=1)
    with pytest.raises(UsageError, match="made from something else"):
        run(other, out)
    assert tree(out) == before


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda shard: shard.unlink(),
    "cut short": lambda shard: (shard.chmod(0o644), os.truncate(shard, 1000)),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_inspect_names_a_shard_that_is_missing_or_cut_short(raw: Path, out: Path, case: str) -> None:
    assert command("inspect", out).returncode == 0
    shard = next((out / "shards").iterdir())
    size = shard.stat().st_size
    DAMAGE[case](shard)
    done = command("inspect", out)
    assert done.returncode == 1
    kind, found = ("missing", "no such file") if case == "missing" else ("truncated", "found 1,000")
    expected = "" if case == "missing" else f"expected {size:,} bytes, "
    assert f"damaged: {kind}: shards/{shard.name}: episodes 0 to 1: {expected}{found}" in done.stdout
    assert "vlapipe repair makes them again" in done.stdout
    done = command("inspect", out, "--json")
    assert done.returncode == 1
    (entry,) = json.loads(done.stdout)["damage"]
    assert (entry["kind"], entry["file"], entry["shard"]) == (kind, f"shards/{shard.name}", 0)
    assert entry["episodes"] == [0, 1]
    assert (entry["expected_bytes"], entry["found_bytes"]) == (size, None if case == "missing" else 1000)


@pytest.mark.parametrize("name", ["gaps-*.parquet", "episodes-*.parquet", "manifest.json"])
@pytest.mark.parametrize("how", ["one bit", "cut short"])
def test_altered_table_or_manifest_is_named_and_made_whole_by_the_same_command(
    raw: Path, out: Path, name: str, how: str
) -> None:
    (file,) = out.glob(name)
    whole = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file() and ".cache" not in path.parts}
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 16
    file.chmod(0o644)
    file.write_bytes(bytes(data) if how == "one bit" else bytes(data[: len(data) // 2]))
    said = command("inspect", out)
    if how == "one bit" or name != "manifest.json":
        assert said.returncode == 1
        assert file.name in said.stdout + said.stderr
    done = command("ingest", "--dataset", raw, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "nothing to do" not in done.stdout
    assert {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()} == whole


def test_a_dataset_of_an_older_vlapipe_is_known_again(raw: Path, out: Path) -> None:
    """It called JPEG files as they were recorded ``jpeg``, and knew no quality."""
    made_from = out / MADE_FROM
    document = json.loads(made_from.read_text())
    del document["options"]["--image-quality"]
    document["options"]["--image-storage"] = "jpeg"
    del document["sha256"]
    made_from.write_text(json.dumps(document))
    assert run(raw, out).was_finished


def test_recordings_known_by_the_digests_of_an_older_vlapipe_are_not_read_again(raw: Path, out: Path) -> None:
    """It put the name of every file into one digest, which this one makes only where its own differs."""
    found = discover(raw, load_schema("meca500"))
    document = json.loads((out / MADE_FROM).read_text())
    for raw_episode in found.episodes:
        files = sorted((file.path, file.num_bytes, file.mtime_ns) for file in raw_episode.every_file)
        digest = hashlib.sha256(json.dumps([raw_episode.task, files]).encode()).hexdigest()[:16]
        assert document["episodes"][raw_episode.id] != digest
        document["episodes"][raw_episode.id] = digest
    del document["sha256"]
    (out / MADE_FROM).write_text(json.dumps(document))
    assert run(raw, out).was_finished
    next((raw / "insert_red").rglob("*.jpg")).unlink()
    report = run(raw, out)
    assert not report.was_finished
    assert report.changes is not None
    assert len(report.changes["replaced"]) == 1
