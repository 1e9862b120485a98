"""A run on several datasets logs what it drew of each, and validates each by itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from factories import make_dataset
from launching import options, run_ranks

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.train.checkpoint.files import FOLDER
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.loader import Loader
from vlapipe.train.loop import train
from vlapipe.train.report.metrics import METRICS_FILE, read_metrics

STATE_ONLY = {"policy": "tiny_policy:TinyPolicy", "policy_args": {}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two datasets of other sizes; both have episodes in both splits."""
    root = tmp_path_factory.mktemp("several")
    schema = (Path(vlapipe.__file__).parent / "schemas/robots/meca500.toml").read_text()
    (root / "schema.toml").write_text(schema + "\n[split]\nval = 0.5\n")
    for name, num_episodes, num_rows in (("lab", 6, 60), ("field", 4, 40)):
        raw = make_dataset(root / "raw" / name, num_episodes=num_episodes, num_rows=num_rows)
        ingest(IngestConfig(source=raw, out=root / name, schema=str(root / "schema.toml"), shard_bytes=500_000))
        assert set(vlapipe.open_dataset(root / name).column("split").tolist()) == {"train", "val"}
    return [root / "lab", root / "field"]


def values(folders: list[Path], out: Path, **changes: Any) -> dict[str, Any]:
    several = options(folders[0], out, eval_every=3, save_every=3, **(STATE_ONLY | changes))
    return several | {"data": [str(folder) for folder in folders]}


def lines(out: Path) -> list[dict[str, Any]]:
    return read_metrics(out / METRICS_FILE)


def drawn(folders: list[Path], num_samples: int, **arguments: Any) -> list[float]:
    """Each dataset's share of the first samples."""
    datasets = [vlapipe.open_dataset(folder) for folder in folders]
    loader = Loader(datasets, batch_size=1, endless=True, num_workers=0, **arguments)
    of_field = sum(int(b["episode_index"][0]) >= len(datasets[0]) for b, _ in zip(loader, range(num_samples)))  # noqa: B905
    return [1 - of_field / num_samples, of_field / num_samples]


@pytest.mark.parametrize("num_ranks", [1, 4])
def test_log_has_the_mix_that_all_ranks_drew_so_far(folders: list[Path], tmp_path: Path, num_ranks: int) -> None:
    mix = {"lab": 0.3, "field": 0.7}
    wanted = values(folders, tmp_path / "run", mix=mix, grad_accum=2)
    if num_ranks == 1:
        train(TrainConfig.of(**wanted))
    else:
        assert {rank.code for rank in run_ranks(wanted, num_ranks=num_ranks)} == {0}
    for line in lines(tmp_path / "run"):
        expected = drawn(folders, line["step"] * 4 * num_ranks, mix=mix)
        assert [line["mix/lab"], line["mix/field"]] == pytest.approx(expected)


def test_log_counts_on_after_a_resume_of_datasets_that_have_moved(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mix = {str(folders[0]): 0.3, "field": 0.7}
    train(TrainConfig.of(**values(folders, tmp_path / "whole", mix=mix)))
    said = capsys.readouterr().err
    assert "datasets lab, field mean the same: nothing is converted\nmix of datasets: lab 30.0 % (" in said
    shutil.copytree(tmp_path / "whole", tmp_path / "torn")
    shutil.rmtree(tmp_path / "torn" / FOLDER / "step-00000006")
    moved = [tmp_path / "elsewhere" / folder.name for folder in folders]
    for old, new in zip(folders, moved, strict=True):
        shutil.copytree(old, new)
    train(TrainConfig.from_sources(None, {"out": tmp_path / "torn", "resume": True, "data": list(map(str, moved))}))
    said = capsys.readouterr().err
    assert "resumed after step 3" in said
    assert "mix is" not in said
    names = ("step", "train/loss", "mix/lab", "mix/field", "val/loss", "val/loss/lab", "val/loss/field")
    whole, torn = ([[line.get(n) for n in names] for line in lines(tmp_path / run)] for run in ("whole", "torn"))
    assert torn == whole


def test_each_dataset_is_validated_by_itself(folders: list[Path], tmp_path: Path) -> None:
    """A run that learns nothing has the loss of each dataset alone, and the mean over all frames of both."""
    still = {"learning_rate": 0.0, "max_steps": 1}
    train(TrainConfig.of(**values(folders, tmp_path / "both", **still)))
    [both] = lines(tmp_path / "both")
    alone, frames = {}, {}
    for folder in folders:
        out = tmp_path / folder.name
        train(TrainConfig.of(**options(folder, out, **STATE_ONLY, **still)))
        alone[folder.name] = lines(out)[-1]["val/loss"]
        assert not any(name.startswith(("val/loss/", "mix/")) for name in lines(out)[-1])
        padded = [b["action_is_pad"] for b in Loader(vlapipe.open_dataset(folder), split="val", shuffle=False)]
        frames[folder.name] = sum(int((~pad).sum()) for pad in padded)
    for name, loss in alone.items():
        assert both[f"val/loss/{name}"] == pytest.approx(loss, rel=1e-5)
    expected = sum(alone[name] * frames[name] for name in alone) / sum(frames.values())
    assert both["val/loss"] == pytest.approx(expected, rel=1e-5)


def test_few_batches_of_each_dataset_are_read_and_val_loss_counts_frames(folders: list[Path], tmp_path: Path) -> None:
    datasets = [vlapipe.open_dataset(folder) for folder in folders]
    policy = {"policy": "policies_under_test:LateEpisodes", "policy_args": {"first": len(datasets[0])}}
    train(TrainConfig.of(**values(folders, tmp_path / "few", eval_batches=3, max_steps=1, **policy)))
    [line] = lines(tmp_path / "few")
    assert (line["val/loss/lab"], line["val/loss/field"]) == (0, 1)
    frames = [Loader(dataset, split="val").num_frames for dataset in datasets]
    assert frames[0] > frames[1] > 6
    assert line["val/loss"] == pytest.approx(frames[1] / sum(frames))


def test_best_checkpoint_may_be_the_best_of_one_dataset(folders: list[Path], tmp_path: Path) -> None:
    changes = {"best_metric": "val/loss/field", "keep_checkpoints": 1, "max_steps": 9, "learning_rate": 0.3}
    train(TrainConfig.of(**values(folders, tmp_path / "run", **changes)))
    measured = {line["step"]: line["val/loss/field"] for line in lines(tmp_path / "run") if "val/loss" in line}
    best = min(measured, key=lambda step: measured[step])
    kept = {int(path.name.removeprefix("step-")) for path in (tmp_path / "run" / FOLDER).iterdir()}
    assert {best, 9} == kept


def test_mix_of_a_config_names_datasets_by_folder_and_is_saved_by_path(folders: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "mix.toml"
    data = json.dumps([str(folder) for folder in folders])
    file.write_text(f"data = {data}\nout = '{tmp_path / 'run'}'\nmix = {{ lab = 0.7, field = 0.3 }}\n")
    config = TrainConfig.from_sources(file, {})
    assert config.to_dict()["data"]["mix"] == {str(folders[0]): 0.7, str(folders[1]): 0.3}
