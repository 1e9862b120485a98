"""Entries of any mix of widths, and values that are not finite, from raw arrays through statistics to training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_loop import config, lines

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.train.checkpoint.saved_policy import load_policy
from vlapipe.train.data.loader import Loader
from vlapipe.train.loop import train

SHAPES = {
    "arm": (7,),
    "skin": (76,),
    "grid": (8, 8),
    "pad": (8, 9),
    "grip": (),
    "one": (1, 1),
    "touch": (4, 4, 4),
    "force": (),
}
NUM_ROWS = 40


@dataclass(frozen=True)
class Recording:
    """A dataset, and what was written for each of its fields, a raw episode after the other."""

    dataset: Dataset
    raw: dict[str, list[NDArray[np.float64]]]

    def of_train(self, field: str) -> NDArray[np.float64]:
        splits = self.dataset.column("split").tolist()
        return np.concatenate([v for v, split in zip(self.raw[field], splits, strict=True) if split == "train"])


def record(
    root: Path,
    *,
    state: tuple[str, ...],
    sensors: dict[str, str],
    action: tuple[str, ...] = ("arm",),
    spoil: dict[str, Any] | None = None,
    num_episodes: int = 4,
) -> Recording:
    """Random walks; ``spoil`` says of some fields which of their values, by index, are not finite."""
    raw: dict[str, list[NDArray[np.float64]]] = {name: [] for name in SHAPES}
    for i in range(num_episodes):
        rng = np.random.default_rng(i)
        folder = root / "raw" / "task" / f"ep_{i}"
        folder.mkdir(parents=True)
        arrays = {"t": np.arange(NUM_ROWS) / 20}
        for k, (name, shape) in enumerate(SHAPES.items()):
            arrays[name] = rng.normal(0, 1 + k, (NUM_ROWS, *shape)).cumsum(axis=0) + 10 * k
            for place, value in (spoil or {}).get(name, {}).items():
                arrays[name][place] = value
            raw[name].append(arrays[name])
        for stream in ("robot", "sensor"):
            np.savez(folder / f"{stream}.npz", **arrays)
    streams = ""
    for stream in ("robot", "sensor"):
        streams += (
            f'[streams.{stream}]\nkind = "npz"\nfiles = ["{stream}.npz"]\nrate_hz = 20\ntime = {{ array = "t" }}\n'
        )
        for name, shape in SHAPES.items():
            streams += f'[streams.{stream}.fields.{name}]\narray = "{name}"\ndtype = "float64"\nshape = {list(shape)}\n'
    listed = ", ".join(f'{name} = "sensor/{field}"' for name, field in sensors.items())
    severity = '[checks.severity]\n"npz.not_finite" = "warning"\n"npz.out_of_range" = "warning"\n' if spoil else ""
    (root / "mixed.toml").write_text(
        f'name = "mixed"\nanchor = "robot"\n[episodes]\nfolders = ["ep_*"]\n[split]\nval = 0.5\n{streams}'
        f'[action]\nkind = "next"\nof = {[f"robot/{name}" for name in action]}\n'
        f"[sample]\nstate = {[f'robot/{name}' for name in state]}\nsensors = {{ {listed} }}\n"
        f"state_rows = 3\nsensor_rows = 4\naction_rows = 2\n{severity}"
    )
    report = ingest(IngestConfig(source=root / "raw", out=root / "data", schema=str(root / "mixed.toml")))
    assert report.num_episodes == num_episodes, report.rejects
    dataset = vlapipe.open_dataset(root / "data")
    assert set(dataset.column("split").tolist()) == {"train", "val"}
    return Recording(dataset, raw)


def normalized(recording: Recording, key: str) -> torch.Tensor:
    """What the built-in policy's encoder is given of an entry, for every training frame's newest row."""
    loader = Loader(recording.dataset, batch_size=10_000, shuffle=False, num_workers=0)
    [batch] = loader
    policy = vlapipe.train.policies.regression.RegressionPolicy(loader.spec, dim=8, depth=1, num_heads=1)
    normalizer = policy.series_normalizers[policy._series_keys.index(key)]
    values: torch.Tensor = normalizer(batch[key])
    assert values.shape == batch[key].shape
    return values[:, -1]


@pytest.mark.parametrize(
    ("state", "sensors"),
    [
        (("arm", "skin"), {"grid": "grid"}),
        (("skin", "arm", "pad"), {"pad": "pad", "skin": "skin"}),
        (("skin",), {"touch": "touch", "force": "force", "one": "one"}),
        (("grid", "grip", "skin", "one"), {}),
        (("arm", "touch"), {"grid": "grid", "pad": "pad"}),
    ],
)
def test_any_mix_of_widths_trains_and_is_normalized_column_by_column(
    tmp_path: Path, state: tuple[str, ...], sensors: dict[str, str]
) -> None:
    recording = record(tmp_path, state=state, sensors=sensors)
    run = tmp_path / "run"
    train(config(tmp_path / "data", run, max_steps=2, eval_batches=0))
    assert all(np.isfinite(line["train/loss"]) for line in lines(run))
    spec = Loader(recording.dataset).spec
    assert spec.state == (3, sum(int(np.prod(SHAPES[name])) for name in state))
    begin = 0
    for name in state:
        values = recording.of_train(name).reshape(-1, int(np.prod(SHAPES[name])))
        place = slice(begin, begin := begin + values.shape[1])
        moments = spec.moments["observation.state"]
        mean, std = (np.broadcast_to(m, (spec.state[1],))[place] for m in (moments.mean, moments.std))
        by_column = values.shape[1] <= 64
        np.testing.assert_allclose(mean, values.mean(axis=0) if by_column else values.mean(), rtol=1e-5)
        np.testing.assert_allclose(std, values.std(axis=0) if by_column else values.std(), rtol=1e-5)
    for entry, name in sensors.items():
        values, moments = recording.of_train(name), spec.moments[f"observation.sensors.{entry}"]
        by_column = np.prod(SHAPES[name]) <= 64
        np.testing.assert_allclose(moments.mean, np.atleast_1d(values.mean(axis=0 if by_column else None)), rtol=1e-5)
        scaled = normalized(recording, f"observation.sensors.{entry}")
        assert scaled.abs().mean() == pytest.approx(0.8, abs=0.35)
    loaded = load_policy(run)
    batch = next(iter(Loader(recording.dataset, batch_size=3)))
    assert loaded.act(batch).shape == (3, 2, 7)  # type: ignore[operator]


SPOILT = {
    "skin": {(5, 3): np.nan, (6, 0): np.inf},
    "grid": {(..., 2, 2): np.nan, (7, 0, 0): -np.inf},
    "force": {9: np.nan},
    "grip": {12: 1e200},
    "arm": {(20, 1): np.nan, (21, 2): 1e39},
}


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_values_that_are_not_finite_do_not_reach_statistics_weights_or_actions(tmp_path: Path) -> None:
    recording = record(
        tmp_path, state=("arm", "skin", "grip"), sensors={"grid": "grid", "force": "force", "pad": "pad"}, spoil=SPOILT
    )
    dataset, run = recording.dataset, tmp_path / "run"
    train(config(tmp_path / "data", run, max_steps=2, eval_batches=0))
    assert all(np.isfinite(line["train/loss"]) for line in lines(run))
    weights = load_policy(run).state_dict()
    assert all(values.isfinite().all() for values in weights.values() if values.is_floating_point())

    num_train = dataset.column("split").tolist().count("train")
    stats = dataset.stats
    assert stats["robot/skin"].count == num_train * (NUM_ROWS * 76 - 2)
    assert stats["sensor/grid"].count.tolist()[:2] == [num_train * (NUM_ROWS - 1), num_train * NUM_ROWS]  # type: ignore[union-attr]
    assert stats["sensor/grid"].count.tolist()[18] == 0  # type: ignore[union-attr]
    assert stats["sensor/force"].count == num_train * (NUM_ROWS - 1)
    arm = recording.of_train("arm")
    arm[~(np.abs(arm) < 1e38)] = np.nan
    np.testing.assert_allclose(stats["robot/arm"].mean, np.nanmean(arm, axis=0), rtol=1e-9)

    spec = Loader(dataset).spec
    finite = {key.rpartition(".")[2]: moments.is_finite for key, moments in spec.moments.items()}
    assert finite == {"state": False, "grid": False, "force": False, "pad": True, "action": True}
    # "next": the actions of rows 19 and 20 would be what is not finite; a batch marks them, and has zeros there.
    [batch] = Loader(dataset, batch_size=10_000, shuffle=False, num_workers=0)
    rows = batch["frame_index"][:, None] + torch.arange(2)
    lacks = (rows == 19) | (rows == 20)
    assert lacks.any()
    assert batch["action"].isfinite().all()
    assert batch["action_is_pad"][lacks].all()
    assert not batch["action_is_pad"][(rows < 19) | ((rows > 20) & (rows < NUM_ROWS - 1))].any()
    # An observation is as it was recorded, and the encoder is given the mean in its place.
    newest = batch["observation.sensors.force"][:, -1]
    assert newest.isnan().equal(batch["frame_index"] == 9)
    scaled = normalized(recording, "observation.sensors.force")
    assert (scaled[newest.isnan()] == 0).all()
    assert scaled.isfinite().all()


def test_act_refuses_what_is_not_finite_where_training_had_every_value(tmp_path: Path) -> None:
    recording = record(tmp_path, state=("arm",), sensors={"force": "force"}, spoil={"force": {9: np.nan}})
    train(config(tmp_path / "data", tmp_path / "run", max_steps=1))
    policy = load_policy(tmp_path / "run")
    batch = next(iter(Loader(recording.dataset, batch_size=3, shuffle=False)))
    batch["observation.sensors.force"][0, -1] = torch.nan
    assert policy.act(batch).isfinite().all()  # type: ignore[operator]
    batch["observation.state"][1, -1, 2] = torch.nan
    with pytest.raises(UsageError, match=r"act: observation\.state: expected finite numbers, found NaN or infinity"):
        policy.act(batch)  # type: ignore[operator]
    batch["observation.state_is_pad"][1] = True  # what an episode does not have may be anything
    batch["observation.state"][1, -1, 2] = 0.0
    batch["observation.state"][1, 0] = torch.nan
    assert policy.act(batch).isfinite().all()  # type: ignore[operator]
