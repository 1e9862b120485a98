"""Datasets that declare what differs are converted: a batch has the first dataset's numbers, wherever they lie."""

from __future__ import annotations

import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import simplejpeg
from datasets_to_join import make

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.joining.dataset_comparison import compare_datasets
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.window_size import Window

FIRST = {
    'unit = "m"': 'unit = "m", gripper = { open = 4, closed = 0 }',
    'joint = { columns = ["a", "b"], unit = "rad"': (
        'joint = { columns = ["a", "b"], unit = "rad", period = 6.283185307179586'
    ),
}
OTHER = {
    'unit = "m"': 'unit = "%", gripper = { open = 0, closed = 100 }',  # the opposite sense
    'joint = { columns = ["a", "b"], unit = "rad"': 'joint = { columns = ["a", "b"], unit = "deg", period = 360',
    'unit = "N"': 'unit = "mN"',
    "threshold = 0.02, above = 1, below = 0": "threshold = 99.5, above = 0, below = 1",
}
SCALED = {
    **dict.fromkeys("ab", (180 / math.pi, 0.0)),
    **dict.fromkeys("xyz", (1000.0, 0.0)),
    "g": (-25.0, 100.0),
}
KEYS = ("observation.state", "observation.sensors.force", "action", "action_is_pad", "observation.state_is_pad")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make(tmp_path_factory.mktemp("first"), edits=FIRST)


def rows_of(*datasets: Dataset, **options: Any) -> dict[str, np.ndarray[Any, Any]]:
    batches = list(Loader(datasets, split=None, shuffle=False, num_workers=0, **options))
    return {key: np.concatenate([batch[key].numpy() for batch in batches]) for key in KEYS}


def assert_alike(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for key in KEYS:
        assert np.allclose(found[key], expected[key], rtol=1e-5, atol=2e-5), key


STORED: dict[str, dict[str, Any]] = {
    "packed": {},
    "mapped in place": {"codec": "none"},
    "npz": {"shard_format": "npz"},
}


@pytest.mark.parametrize("kind", ["delta", "absolute"])
@pytest.mark.parametrize("stored", STORED)
def test_units_and_grippers_are_the_first_datasets_in_samples_and_statistics(
    tmp_path: Path, stored: str, kind: str
) -> None:
    of_kind = {'kind = "delta"': f'kind = "{kind}"', 'of = ["robot/joint"]': 'of = ["robot/joint", "robot/grip"]'}
    first = make(tmp_path / "first", edits=FIRST | of_kind, **STORED[stored])
    other = make(tmp_path / "other", edits=OTHER | of_kind, scaled=SCALED, **STORED[stored])
    assert other.stats["robot/joint"].mean[0] > 60  # degrees, for who reads it alone
    alone = rows_of(first)
    both = rows_of(first, other)
    half = len(alone["action"])
    assert_alike({key: both[key][:half] for key in KEYS}, alone)
    assert_alike({key: both[key][half:] for key in KEYS}, alone)
    again = rows_of(first, other)  # from the cache
    assert all((again[key] == both[key]).all() for key in KEYS)
    one, two = Loader(first).spec.moments, Loader([first, other]).spec.moments
    for key in one:
        assert np.allclose(one[key].mean, two[key].mean, rtol=1e-4, atol=1e-5), key
        assert np.allclose(one[key].std, two[key].std, rtol=1e-4, atol=1e-5), key
    view = Loader([first, other]).datasets[1]
    for path, ours in first.stats.items():
        for name in ("min", "max", "q01", "q50", "q99"):
            assert np.allclose(getattr(view.stats[path], name), getattr(ours, name), rtol=0.02, atol=0.02), (path, name)
    recorded = other.episode(0)["robot/joint"]
    assert (view.episode(0)["robot/joint"] == recorded).all()  # raw arrays stay as they were recorded


def test_rows_are_converted_the_same_before_and_after_unpacking(first: Dataset, tmp_path: Path) -> None:
    other = make(tmp_path, edits=OTHER, scaled=SCALED)
    view = Loader([first, other], split=None).datasets[1]
    packed, unpacked = view.sample_rows(0), view.sample_arrays(0)
    assert packed is not None
    for name in ("observation.state", "observation.sensors.force", "action"):
        stop = int(view.row(0)["robot/rows"])
        assert (packed.read(name, 0, stop) == unpacked[name][:stop]).all(), name


def test_view_goes_to_other_processes_and_into_other_groups(first: Dataset, tmp_path: Path) -> None:
    other = make(tmp_path, edits=OTHER, scaled=SCALED)
    view = Loader([first, other], split=None).datasets[1]
    expected = rows_of(view)
    assert_alike(rows_of(pickle.loads(pickle.dumps(view))), expected)  # noqa: S301
    assert_alike(expected, rows_of(first))
    # Joined with the other one as the first, the view gets the other's numbers back.
    in_degrees = rows_of(other)
    both = rows_of(other, view)
    half = len(in_degrees["action"])
    assert np.allclose(both["observation.state"][half:], in_degrees["observation.state"], rtol=1e-5, atol=2e-3)
    assert np.allclose(both["action"][half:], in_degrees["action"], rtol=1e-4, atol=2e-3)


def test_table_shows_what_differs_and_what_is_done(first: Dataset, tmp_path: Path) -> None:
    other = make(tmp_path / "other", edits=OTHER | {"period_s = 0.1": "period_s = 0.2"}, scaled=SCALED, rate_hz=25)
    found = compare_datasets([first, other])
    done = {row.what: (row.found, row.done) for row in found.differences}
    assert done["observation.state: joint"] == (("2 in rad", "2 in deg"), "converted")
    assert done["observation.state: grip"][1] == "converted"
    assert done["action: joint repeats"] == (("after 6.28319, 6.28319", "after 360, 360"), "converted")
    assert done["action: period_s"] == (("0.1 s", "0.2 s"), "refused")
    assert done["observation.state and action: rate"] == (
        ("50 Hz (state 0.04 s, chunk 0.16 s)", "25 Hz (state 0.08 s, chunk 0.32 s)"),
        "refused",
    )
    text = str(found)
    assert text.splitlines()[0] == f"datasets {', '.join(found.names)} differ:"
    assert all(line in text for line in ("2 in rad", "2 in deg  ", "converted", "refused"))
    assert len(text.splitlines()) == 2 + len(found.differences)
    assert str(compare_datasets([first, first])).endswith("mean the same: nothing is converted")


@pytest.mark.parametrize("declared", ["", 'unit = "rad"'])
def test_numbers_of_another_size_are_warned_of_if_no_unit_says_why(tmp_path: Path, declared: str) -> None:
    unit = {', unit = "rad"': f", {declared}" if declared else ""}
    plain = make(tmp_path / "plain", edits=unit)
    large = make(tmp_path / "large", edits=unit, scaled=dict.fromkeys("ab", (180 / math.pi, 0)))
    with pytest.warns(UserWarning, match=r"joint: numbers go up to 3\.\d+ in plain/data and up to 2\d\d in large/data"):
        loader = Loader([plain, large])
    assert [(row.what, row.done) for row in loader.comparison.differences] == [("joint: numbers", "look unlike")]
    other = make(tmp_path / "other", edits=unit, scaled=dict.fromkeys("ab", (3.0, 5.0)))
    assert compare_datasets([plain, other]).warnings == ()


def test_tables_of_several_datasets_are_read_a_few_times_whatever_is_compared(
    first: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make(tmp_path, edits=OTHER, scaled=SCALED)
    fresh = [vlapipe.open_dataset(dataset.path) for dataset in (first, other)]
    read: list[list[str]] = []
    real = pq.ParquetFile.read

    def counted(*args: Any, **options: Any) -> Any:
        read.append(options.get("columns", []))
        return real(*args, **options)

    monkeypatch.setattr(pq.ParquetFile, "read", counted)
    Loader(fresh, split=None)
    assert len(read) <= 3 * len(fresh), read  # the split, what is compared, what is drawn


def test_one_error_names_all_refusals_and_their_cures(first: Dataset, tmp_path: Path) -> None:
    edits = OTHER | {'kind = "delta"': 'kind = "absolute"', ', unit = "N"': ""}
    other = make(tmp_path, edits={k: v for k, v in edits.items() if k != 'unit = "N"'}, scaled=SCALED, rate_hz=25)
    with pytest.raises(UsageError) as refusal:
        Loader([first, other])
    for part in ("action: kind: expected delta", "force: numbers: expected 3 in N", "rate: expected 50 Hz"):
        assert part in refusal.value.problem
    for part in ("choose one [action] for all", "declare unit", "state_s, action_s", "or train on each alone"):
        assert part in refusal.value.cure
    assert "joint: expected" not in refusal.value.problem  # its units are converted


def test_one_action_for_all_joins_delta_with_absolute(first: Dataset, tmp_path: Path) -> None:
    other = make(tmp_path, edits=OTHER | {'kind = "delta"': 'kind = "absolute"'}, scaled=SCALED)
    action = {"kind": "absolute", "append": {"gripper": {"field": "robot/grip"}}}
    window = Window(action=action)
    alone, both = rows_of(first, window=window), rows_of(first, other, window=window)
    half = len(alone["action"])
    assert_alike({key: both[key][half:] for key in KEYS}, alone)


def test_windows_in_seconds_mean_the_same_time_at_any_rate(first: Dataset, tmp_path: Path) -> None:
    other = make(tmp_path, edits=FIRST, rate_hz=25)
    with pytest.raises(UsageError, match="rate: expected 50 Hz"):
        Loader([first, other])
    window = Window(state_s=0.24, action_s=0.4, state_rows=3, action_rows=5)
    for batch in Loader([first, other], split=None, window=window, num_workers=0):
        is_inside = batch["observation.state"][:, 0, 0] > 0  # no row of the window is the episode's first
        whole = is_inside & ~batch["action_is_pad"].any(1)
        state, action = batch["observation.state"][whole], batch["action"][whole]
        steps = state[:, :, 0] - state[:, -1:, 0]  # each column is the time
        assert np.allclose(steps, [[-0.16, -0.08, 0.0]], atol=1e-4)
        assert np.allclose(action[:, :, 0], 0.1, atol=0.021)  # delta over 0.1 s: 5 rows of one, 2 or 3 of the other


CAMERA = """
name = "camera"
[episodes]
folders = ["ep_*"]
[split]
val = 0
[streams.robot]
kind = "csv"
files = ["robot.csv"]
time = { column = "t" }
fields = { joint = { columns = ["a"] } }
[streams.front]
kind = "images"
files = ["front/*.jpg"]
CHANNELS
"""


def make_camera(root: Path, colour: tuple[int, int, int], channels: str = "") -> Dataset:
    """Four episodes with two images each, nearly of one colour."""
    for i in range(4):
        (root / "raw" / f"ep_{i}" / "front").mkdir(parents=True)
        rows = "".join(f"{k / 10:.1f},{k + i}\n" for k in range(12))
        (root / "raw" / f"ep_{i}" / "robot.csv").write_text("t,a\n" + rows)
        for k in range(2):
            image = np.full((32, 32, 3), colour, dtype=np.uint8)
            image[8 * k : 8 * k + 16, i : i + 16] += 20
            jpeg = simplejpeg.encode_jpeg(image, quality=95)
            (root / "raw" / f"ep_{i}" / "front" / f"{k / 2:.1f}.jpg").write_bytes(jpeg)
    (root / "schema.toml").write_text(CAMERA.replace("CHANNELS", channels))
    ingest(IngestConfig(source=root / "raw", out=root / "data", schema=str(root / "schema.toml")))
    return vlapipe.open_dataset(root / "data")


def test_swapped_colours_are_warned_of_unless_the_schema_declares_them(tmp_path: Path) -> None:
    right, swapped = make_camera(tmp_path / "right", (40, 60, 90)), make_camera(tmp_path / "swapped", (90, 60, 40))
    said_so = "camera front: red and blue look swapped in swapped/data: .*9. 6. 4., and 4. 6. 9."
    with pytest.warns(UserWarning, match=said_so):
        Loader([right, swapped])
    said: list[str] = []
    Loader([right, swapped], say=said.append)
    assert len(said) == 1
    assert compare_datasets([right, swapped]).differences[-1].done == "look swapped"
    declared = make_camera(tmp_path / "declared", (90, 60, 40), 'channels = "bgr"')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader = Loader([right, declared], shuffle=False, num_workers=0)
    [row] = loader.comparison.differences
    assert (row.what, row.found, row.done) == ("observation.images.front: channels", ("rgb", "bgr"), "converted")
    means = [batch["observation.images.front"].float().mean((0, 1, 3, 4)) for batch in loader]
    assert all(mean[0] < mean[1] < mean[2] for mean in means)


def test_other_colours_of_another_lab_are_not_warned_of(tmp_path: Path) -> None:
    datasets = [make_camera(tmp_path / name, colour) for name, colour in (("a", (40, 60, 90)), ("b", (120, 110, 60)))]
    assert compare_datasets(datasets).warnings == ()
    grey = [make_camera(tmp_path / name, colour) for name, colour in (("c", (90, 88, 85)), ("d", (85, 88, 90)))]
    assert compare_datasets(grey).warnings == ()


def test_one_dataset_is_converted_to_the_unit_of_each_that_it_is_joined_with(tmp_path: Path) -> None:
    """The cache has an entry for each of its units."""
    in_rad, in_turns, in_deg = (
        make(tmp_path / unit, edits={'unit = "rad"': f'unit = "{unit}"'}, scaled=dict.fromkeys("ab", (factor, 0)))
        for unit, factor in (("rad", 1), ("turn", 0.5 / math.pi), ("deg", 180 / math.pi))
    )
    degrees = rows_of(in_deg)["observation.state"][..., :2]
    for _ in range(2):
        for first, factor in ((in_rad, math.pi / 180), (in_turns, 1 / 360)):
            both = rows_of(first, in_deg)["observation.state"][..., :2]
            assert np.allclose(both[len(degrees) :], degrees * factor, rtol=1e-5)
    assert (rows_of(in_deg)["observation.state"][..., :2] == degrees).all()
