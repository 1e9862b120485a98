"""Statistics of real recordings: several datasets together, one broken reading, joints that only flicker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.dataset import Dataset, open_dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.sample_spec import SampleSpec
from vlapipe.train.policies.nn.normalize import Normalizer, flickering, with_normalization

Columns = dict[str, NDArray[np.float64]]
STATE = "observation.state"
NUM_ROWS = 200

SCHEMA = """
name = "arm"
anchor = "robot"
[episodes]
folders = ["episode_*"]
[split]
val = 0
[streams.robot]
kind = "csv"
files = ["robot.csv"]
time = {{ column = "t", unit = "s" }}
[streams.robot.fields.joints]
columns = ["j{{1..4}}"]
{joints}
[streams.robot.fields.force]
columns = ["force"]
unit = "N"
[action]
kind = "next"
of = ["robot/joints"]
[sample]
state = ["robot/joints", "robot/force"]
"""


def recording(seed: int) -> Columns:
    """Four joints that move by about 0.4 rad, and a force of 1 N with noise."""
    rng, t = np.random.default_rng(seed), np.arange(NUM_ROWS) / 30
    joints = {f"j{i}": 0.6 * np.sin(t * (i + 1) / 2 + rng.uniform(0, 6)) for i in range(1, 5)}
    return {"t": t, **joints, "force": 1 + 0.01 * rng.normal(size=NUM_ROWS)}


def record(
    root: Path,
    edit: Callable[[Columns], None] = lambda _: None,
    *,
    edited: int = 1,
    joints: str = 'unit = "rad"',
    seed: int = 0,
) -> Dataset:
    """A dataset of two episodes, of which ``edit`` changes the first ``edited`` ones."""
    for i in range(2):
        columns = recording(seed + i)
        if i < edited:
            edit(columns)
        folder = root / "raw" / "task" / f"episode_{i}"
        folder.mkdir(parents=True)
        rows = [",".join(columns), *(",".join(map(repr, row)) for row in np.stack([*columns.values()], 1).tolist())]
        (folder / "robot.csv").write_text("\n".join([*rows, ""]))
    (root / "arm.toml").write_text(SCHEMA.format(joints=joints))
    report = ingest(IngestConfig(source=root / "raw", out=root / "data", schema=str(root / "arm.toml"), workers=1))
    assert report.num_episodes == 2, report.rejects
    return open_dataset(root / "data")


def spec_of(*datasets: Dataset) -> SampleSpec:
    return Loader(datasets, num_workers=0).spec


def values_of(dataset: Dataset) -> NDArray[np.float32]:
    """Every state row of the dataset."""
    parts = [dataset.episode(i) for i in range(2)]
    return np.concatenate([np.concatenate([p["robot/joints"], p["robot/force"].reshape(-1, 1)], axis=1) for p in parts])


def test_limits_of_several_datasets_are_exact_and_quantiles_nearly(tmp_path: Path) -> None:
    def low(columns: Columns) -> None:
        columns["j2"] -= 3.0

    datasets = [record(tmp_path / "a", low), record(tmp_path / "b", seed=7)]
    moments = spec_of(*datasets).moments[STATE]
    rows = np.concatenate([values_of(dataset) for dataset in datasets])
    assert moments.min is not None
    assert moments.max is not None
    np.testing.assert_array_equal(moments.min, rows.min(0))
    np.testing.assert_array_equal(moments.max, rows.max(0))
    np.testing.assert_allclose(moments.mean, rows.mean(0, dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(moments.std, rows.std(0, dtype=np.float64), rtol=1e-5)
    found, expected = moments.q99, np.quantile(rows, 0.99, axis=0)
    np.testing.assert_allclose(found, expected, atol=0.15)


SPIKES: Mapping[str, float] = {"a bus glitch": 65535.0, "a negative one": -1e6, "infinity's neighbour": 1e30}


@pytest.mark.parametrize("value", SPIKES.values(), ids=SPIKES)
@pytest.mark.parametrize("kind", ["mean_std", "quantiles", "min_max"])
def test_one_spike_does_not_ruin_a_joint(tmp_path: Path, kind: str, value: float) -> None:
    def spike(columns: Columns) -> None:
        columns["j3"][20] = value

    spec = with_normalization(spec_of(record(tmp_path, spike)), {STATE: kind, "action": kind})
    clean = np.sqrt(np.mean(recording(0)["j1"] ** 2))
    for key in (STATE, "action"):
        assert spec.moments[key].std[2] > 1000
        normalizer = Normalizer.of(spec, key)
        assert 0.5 * clean < normalizer.std[2] < 2 * clean
        assert normalizer.varies.all() or key == STATE
        row = torch.zeros(normalizer.std.shape)
        row[2] = value
        assert normalizer(row)[2].abs() == 10  # a target that far out has no more weight than that
        row[2] = 0.3
        torch.testing.assert_close(normalizer.invert(normalizer(row)), row)


def test_contacts_in_one_row_of_a_hundred_are_no_spikes(tmp_path: Path) -> None:
    def contacts(columns: Columns) -> None:
        columns["force"][::50] = 50.0  # 4 of 400 rows

    spec = spec_of(record(tmp_path, contacts))
    q99 = spec.moments[STATE].q99
    assert q99 is not None
    assert q99[4] < 1.1
    normalizer = Normalizer.of(spec, STATE)
    assert normalizer.std[4] > 4
    assert 9 < normalizer(torch.tensor([0, 0, 0, 0, 50.0]))[4] < 11


def flicker(columns: Columns) -> None:
    columns["j4"] = 1.5690 + 2.5e-4 * np.where(np.arange(NUM_ROWS) % 3 == 0, -1, 1)


def held(columns: Columns) -> None:
    columns["j4"] = np.random.default_rng(0).normal(0.0, 3e-4, NUM_ROWS)


@pytest.mark.parametrize("edit", [flicker, held], ids=["two encoder steps", "noise about zero"])
@pytest.mark.parametrize("kind", ["mean_std", "quantiles", "min_max"])
def test_a_joint_that_only_flickers_counts_as_constant(
    tmp_path: Path, edit: Callable[[Columns], None], kind: str
) -> None:
    spec = with_normalization(spec_of(record(tmp_path, edit, edited=2)), {STATE: kind, "action": kind})
    for key in (STATE, "action"):
        normalizer = Normalizer.of(spec, key, limit=10)
        assert normalizer.varies[:4].tolist() == [True, True, True, False]
        off = torch.zeros(normalizer.std.shape)
        off[3] = float(spec.moments[key].mean[3]) + 0.02
        assert normalizer(off)[3].abs() < 0.1
        assert abs(float(normalizer.invert(normalizer(off))[3]) - float(spec.moments[key].mean[3])) < 1e-3
    assert flickering(spec) == [
        f"{STATE}: columns counted as constant, since they only flicker: 3 (normalize_floor)",
        "action: columns counted as constant, since they only flicker: 3 (normalize_floor)",
    ]


def test_the_floor_can_be_set(tmp_path: Path) -> None:
    spec = spec_of(record(tmp_path, flicker, edited=2))
    assert Normalizer.of(with_normalization(spec, {}, 0.0), "action").varies.all()
    assert not Normalizer.of(with_normalization(spec, {}, 0.9), "action").varies.all()
    with pytest.raises(UsageError, match="normalize_floor: expected a number from 0 to 1, found 7"):
        with_normalization(spec, {}, 7)


def test_a_joint_that_moves_by_a_hundredth_of_the_others_is_trained(tmp_path: Path) -> None:
    def little(columns: Columns) -> None:
        columns["j4"] *= 0.01

    assert Normalizer.of(spec_of(record(tmp_path, little, edited=2)), "action").varies.all()


def test_columns_without_a_unit_are_compared_only_if_they_hardly_leave_their_mean(tmp_path: Path) -> None:
    def mixed(columns: Columns) -> None:  # millimetres beside radians, in one field
        columns["j1"] *= 3000
        columns["j4"] *= 0.5

    assert Normalizer.of(spec_of(record(tmp_path / "mixed", mixed, joints="", edited=2)), "action").varies.all()
    spec = spec_of(record(tmp_path / "flicker", flicker, joints="", edited=2))
    assert Normalizer.of(spec, "action").varies.tolist() == [True, True, True, False]
    units = 'unit = ["mm", "rad", "rad", "rad"]'
    assert Normalizer.of(spec_of(record(tmp_path / "units", mixed, joints=units, edited=2)), "action").varies.all()


def test_the_statistics_and_the_choice_come_back_from_a_checkpoint(tmp_path: Path) -> None:
    spec = with_normalization(spec_of(record(tmp_path)), {STATE: "quantiles", "action": "min_max"}, 0.01)
    again = SampleSpec.from_json(spec.to_json())
    assert again.normalize == {STATE: "quantiles", "action": "min_max"}
    for key, moments in spec.moments.items():
        for name, values in vars(moments).items():
            np.testing.assert_array_equal(getattr(again.moments[key], name), values)
    old = spec.to_json()
    for name in ("normalize", "optional", "newest", "action_form"):
        del old[name]
    old["moments"] = {k: {n: m[n] for n in ("mean", "std", "is_finite")} for k, m in old["moments"].items()}
    older = SampleSpec.from_json(old)
    assert older.moments[STATE].q01 is None
    assert Normalizer.of(older, STATE, limit=10).varies.all()
