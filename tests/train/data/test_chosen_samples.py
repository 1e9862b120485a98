"""Samples that are chosen when training equal a naive reading of the raw files, in plain Python, value by value."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import vlapipe
from vlapipe import Loader, Window
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.actions.action_form import ActionForm
from vlapipe.train.data.actions.action_parts import Origin, Part
from vlapipe.train.data.actions.field_columns import Columns
from vlapipe.train.policies.observation import check_observation

SCHEMA = """
anchor = "arm"
[streams.arm]
kind = "csv"
files = ["arm.csv"]
time = {{ column = "t" }}
[streams.arm.fields]
q = {{ columns = ["q_{{1..2}}"] }}
turn = {{ columns = ["turn"], unit = "deg", period = 360 }}
[streams.leader]
kind = "csv"
files = ["leader.csv"]
time = {{ column = "t" }}
{leader}
[streams.leader.fields.position]
columns = ["p_{{1..2}}", "turn"]
unit = ["rad", "rad", "deg"]
period = [0, 0, 360]
[streams.tool]
kind = "csv"
files = ["tool.csv"]
time = {{ column = "t" }}
{tool}
[streams.tool.fields]
width = {{ columns = ["width"] }}
pose = {{ columns = ["x", "y", "z", "w"], quaternion = "xyzw" }}
count = {{ columns = ["count"], dtype = "int32" }}
[streams.imu]
kind = "csv"
files = ["imu.csv"]
optional = true
time = {{ column = "t" }}
[streams.imu.fields.gyro]
columns = ["g"]
[action]
kind = "column"
of = ["leader/position"]
[sample]
state = ["arm/q", "tool/width", "arm/turn"]
sensors = {{ gyro = "imu/gyro" }}
[split]
val = 0
"""
METHODS = [
    ("", ""),
    ('align = "nearest"', 'align = "linear"'),
    ('align = "linear"\ntolerance_s = 0.04', "tolerance_s = 0.1"),
]
LEADER, TOOL = {"p": "position"}, {"w": "width"}


def write(path: Path, columns: dict[str, np.ndarray]) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        rounded = [column if name == "t" else np.float32(column) for name, column in columns.items()]
        rows.writerows(zip(*[[repr(float(v)) for v in column] for column in rounded], strict=True))


def record(folder: Path, seed: int) -> None:
    """One episode whose four clocks have their own rates, offsets, jitter and a hole."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)

    def clock(rate: float, begin: float, seconds: float) -> np.ndarray:
        ticks = 1.7e9 + 100 * seed + begin + np.arange(int(seconds * rate)) / rate
        ticks += rng.uniform(-0.2, 0.2, len(ticks)) / rate
        return np.delete(ticks, slice(len(ticks) // 2, len(ticks) // 2 + 3))

    t = clock(20, 0, 3)
    turn = (np.cumsum(rng.normal(20, 15, len(t))) + 180) % 360 - 180
    write(folder / "arm.csv", {"t": t, "q_1": t % 97, "q_2": rng.normal(size=len(t)), "turn": turn})
    t = clock(25, 0.01, 2.8)
    turn = (np.cumsum(rng.normal(20, 15, len(t))) + 180) % 360 - 180
    write(folder / "leader.csv", {"t": t, "p_1": t % 97, "p_2": rng.normal(size=len(t)), "turn": turn})
    t = clock(11, -0.2, 3.1)
    pose = rng.normal(size=(len(t), 4)).cumsum(axis=0)
    pose /= np.linalg.norm(pose, axis=1, keepdims=True)
    numbers = dict(zip("xyzw", pose.T, strict=True))
    write(folder / "tool.csv", {"t": t, "width": rng.normal(size=len(t)), **numbers, "count": np.arange(len(t)) * 3.0})
    if seed % 3 != 2:
        t = clock(60, -0.1, 3.2)
        write(folder / "imu.csv", {"t": t, "g": rng.normal(size=len(t))})


@pytest.fixture(scope="module", params=range(len(METHODS)))
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path, int]:
    folder = tmp_path_factory.mktemp("chosen")
    for seed in range(4):
        record(folder / "raw" / "task" / f"e{seed}", seed)
    leader, tool = METHODS[request.param]
    (folder / "lab.toml").write_text(SCHEMA.format(leader=leader, tool=tool))
    ingest(IngestConfig(source=folder / "raw", out=folder / "data", schema=str(folder / "lab.toml")))
    return vlapipe.open_dataset(folder / "data"), folder / "raw", request.param


class Naive:
    """The tables of one episode, as they lie in the files."""

    def __init__(self, folder: Path, method: int) -> None:
        self.tables: dict[str, list[dict[str, float]]] = {}
        for path in folder.glob("*.csv"):
            with path.open(newline="") as file:
                self.tables[path.stem] = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
        self.arm = self.tables["arm"]
        self.clock = [row["t"] for row in self.arm]
        leader, tool = METHODS[method]
        self.align = {"leader": _key(leader, "align"), "tool": _key(tool, "align")}
        self.tolerance = {"leader": _key(leader, "tolerance_s"), "tool": _key(tool, "tolerance_s")}

    @cached_property
    def last_action(self) -> int:
        """The last anchor row at which the leader has a value."""
        return max(i for i, t in enumerate(self.clock) if self.at("leader", ["p_1"], t, "action"))

    def limit(self, stream: str) -> float:
        times = [row["t"] for row in self.tables[stream]]
        given = self.tolerance[stream]
        return float(given) if given else 5 * (times[-1] - times[0]) / (len(times) - 1)

    def at(self, stream: str, names: list[str], when: float, use: str) -> list[float] | None:
        """The values of columns at a time, ``None`` beyond the tolerance."""
        table, method = self.tables[stream], self.align[stream] or {"state": "last", "action": "first"}[use]
        before = [row for row in table if row["t"] <= when]
        after = [row for row in table if row["t"] >= when]
        if method == "last":
            found = [before[-1]] if before else []
        elif method == "first":
            found = [after[0]] if after else []
        elif method == "nearest":
            found = [min(before[-1:] + after[:1], key=lambda row: abs(row["t"] - when))]
        else:
            found = before[-1:] + after[:1]
        if not found or max(abs(row["t"] - when) for row in found) > self.limit(stream):
            return None
        one, other = found[0], found[-1]
        if one["t"] == other["t"]:
            return [np.float32(one[name]) for name in names]
        weight = (when - one["t"]) / (other["t"] - one["t"])
        return [_between(name, np.float32(one[name]), np.float32(other[name]), weight) for name in names]

    def state(self, row: int) -> list[float] | None:
        here = self.arm[row]
        width = self.at("tool", ["width"], here["t"], "state")
        return None if width is None else [np.float32(here["q_1"]), np.float32(here["q_2"]), *width, here["turn"]]

    def nearest(self, when: float) -> int:
        return min(range(len(self.clock)), key=lambda i: (abs(self.clock[i] - when), i))


def _key(text: str, key: str) -> str:
    lines = dict(line.split(" = ") for line in text.splitlines())
    return lines.get(key, "").strip('"')


def _between(name: str, one: float, other: float, weight: float) -> float:
    change = float(other) - float(one)
    if name == "turn":
        change -= 360 * round(change / 360)
    return float(one) + weight * change if weight < 0.5 else float(other) - (1 - weight) * change


def samples(loader: Loader, raw: Path, method: int, every: int = 1) -> Iterator[tuple[Naive, int, dict[str, Any]]]:
    """Every so many-th sample of the loader, with the naive episode and the frame's row."""
    ids = loader.dataset.column("id")
    naive = {name: Naive(raw / name, method) for name in ids}
    for batch in loader:
        for k in range(0, len(batch["task"]), every):
            sample = {key: value[k] for key, value in batch.items()}
            yield naive[ids[int(sample["episode_index"])]], int(sample["frame_index"]), sample


def assert_row(found: Any, is_pad: Any, expected: list[float] | None, exact: bool = True) -> None:
    found = np.asarray(found)
    assert bool(is_pad) == (expected is None)
    if expected is not None:
        wanted = np.array(expected, dtype=np.float32)
        assert np.array_equal(found, wanted) if exact else np.allclose(found, wanted, rtol=2e-6, atol=1e-5), (
            found,
            wanted,
        )


def test_state_and_action_of_several_streams_are_those_of_the_files(recorded: tuple[Dataset, Path, int]) -> None:
    dataset, raw, method = recorded
    num_found = num_missing = 0
    for naive, row, sample in samples(Loader(dataset, shuffle=False), raw, method):
        when = naive.clock[row]
        assert_row(sample["observation.state"][0], sample["observation.state_is_pad"][0], naive.state(row), method == 0)
        action = naive.at("leader", ["p_1", "p_2", "turn"], when, "action")
        assert_row(sample["action"][0], sample["action_is_pad"][0], action, method == 0)
        assert float(sample["timestamp"]) == pytest.approx(when - naive.clock[0], abs=1e-6)
        if "imu" not in naive.tables:
            assert sample["observation.sensors.gyro_is_pad"].all()
            assert not sample["observation.sensors.gyro"].any()
        else:
            newest = [r for r in naive.tables["imu"] if r["t"] <= when][-1]
            assert float(sample["observation.sensors.gyro"][0]) == np.float32(newest["g"])
        num_found += 1
        num_missing += int(sample["action_is_pad"].any())
    assert num_found > 150
    assert num_missing < num_found / 4


def test_action_of_a_leader_never_lies_before_its_state(recorded: tuple[Dataset, Path, int]) -> None:
    dataset, raw, method = recorded
    for naive, row, sample in samples(Loader(dataset, shuffle=False), raw, method):
        if method == 0 and not sample["action_is_pad"][0]:  # p_1 and q_1 are the rows' own times
            assert float(sample["action"][0, 0]) >= np.float32(naive.clock[row] % 97)


windows = st.fixed_dictionaries(
    {},
    optional={
        "state_rows": st.integers(1, 5),
        "sensor_rows": st.integers(1, 9),
        "action_rows": st.integers(1, 6),
        "ahead_rows": st.integers(0, 3),
    },
)
spacing = st.fixed_dictionaries(
    {},
    optional={
        name: st.floats(0.02, 0.9) if name.endswith("_s") else st.integers(1, 4)
        for name in ("state_s", "sensor_s", "action_s", "state_stride", "sensor_stride", "action_stride")
    },
)


@settings(max_examples=12, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(rows=windows, spaced=spacing)
def test_windows_in_rows_and_in_seconds_are_those_of_the_files(
    recorded: tuple[Dataset, Path, int], rows: dict[str, int], spaced: dict[str, Any]
) -> None:
    dataset, raw, method = recorded
    for name in ("state", "sensor", "action"):
        if f"{name}_s" in spaced:
            spaced.pop(f"{name}_stride", None)
            rows.setdefault(f"{name}_rows", 2)
    loader = Loader(dataset, window=Window(**rows, **spaced), shuffle=False, batch_size=37)
    step = spaced["action_s"] / rows["action_rows"] if "action_s" in spaced else spaced.get("action_stride", 1)
    for naive, row, sample in samples(loader, raw, method, every=9):
        places = history(naive, row, rows.get("state_rows", 1), spaced.get("state_stride", 1), spaced.get("state_s"))
        ahead = [k * step for k in range(1, rows.get("ahead_rows", 0) + 1)]
        places += [place(naive, row, offset, "action_s" in spaced, step) for offset in ahead]
        for k, at in enumerate(places):
            expected = None if at is None else naive.state(at)
            assert_row(sample["observation.state"][k], sample["observation.state_is_pad"][k], expected, method == 0)
        offsets = [k * step for k in range(rows.get("action_rows", 1))]
        end = naive.last_action
        for k, offset in enumerate(offsets):
            at = place(naive, row, offset, "action_s" in spaced, step if len(offsets) > 1 else 0)
            names = ["p_1", "p_2", "turn"]
            expected = None if at is None or at > end else naive.at("leader", names, naive.clock[at], "action")
            assert_row(sample["action"][k], sample["action_is_pad"][k], expected, method == 0)
        check_sensor(naive, row, sample, rows, spaced, ahead, step)


def check_sensor(
    naive: Naive, row: int, sample: dict[str, Any], rows: dict[str, int], spaced: dict[str, Any], ahead: list[float],
    step: float,
) -> None:  # fmt: skip
    if "imu" not in naive.tables:
        assert sample["observation.sensors.gyro_is_pad"].all()
        return
    clock = [r["t"] for r in naive.tables["imu"]]
    count, window_s = rows.get("sensor_rows", 1), spaced.get("sensor_s")
    newest = max(i for i, t in enumerate(clock) if t <= naive.clock[row])
    if window_s is None:
        found = [newest - k * spaced.get("sensor_stride", 1) for k in reversed(range(count))]
    else:
        times = [naive.clock[row] - k * window_s / count for k in reversed(range(count))]
        slack_s = min(0.001, (clock[-1] - clock[0]) / (len(clock) - 1) / 10)  # stamps are rounded
        found = [max((i for i, t in enumerate(clock) if t - time <= slack_s), default=-1) for time in times]
        found = [min(newest, at) for at in found]
    for offset in ahead:
        at = place(naive, row, offset, "action_s" in spaced, step)
        found.append(-1 if at is None else max(i for i, t in enumerate(clock) if t <= naive.clock[at]))
    for k, at in enumerate(found):
        is_pad = bool(sample["observation.sensors.gyro_is_pad"][k])
        assert is_pad == (at < 0)
        if not is_pad:
            assert float(sample["observation.sensors.gyro"][k]) == np.float32(naive.tables["imu"][at]["g"])


def history(naive: Naive, row: int, count: int, stride: int, window_s: float | None) -> list[int | None]:
    if window_s is None:
        rows = [row - k * stride for k in reversed(range(count))]
        return [at if at >= 0 else None for at in rows]
    apart = window_s / count
    return [place(naive, row, -k * apart, True, apart if count > 1 else 0) for k in reversed(range(count))]


def place(naive: Naive, row: int, offset: float, by_time: bool, apart: float) -> int | None:
    """The anchor row of an offset in rows or seconds; ``None`` if there is none near enough."""
    if not by_time:
        at = row + int(offset)
        return at if 0 <= at < len(naive.clock) else None
    if offset == 0:
        return row
    when, mean_step = naive.clock[row] + offset, (naive.clock[-1] - naive.clock[0]) / (len(naive.clock) - 1)
    at = naive.nearest(when)
    return at if abs(naive.clock[at] - when) <= max(apart, mean_step) / 2 * (1 + 1e-6) else None


def test_fields_kind_and_cameras_are_chosen_without_ingesting_again(recorded: tuple[Dataset, Path, int]) -> None:
    dataset, raw, method = recorded
    window = Window(
        state=["leader/position", "arm/q"],
        sensors={"turn": "arm/turn", "grip": "tool/count"},
        action={"kind": "absolute", "of": ["arm/q"], "period_s": 0.1, "tolerance_s": 0.03, "append": {"one": 1.0}},
        action_rows=3,
    )
    loader = Loader(dataset, window=window, shuffle=False)
    assert loader.spec.state == (1, 5)
    assert loader.spec.action == (3, 3)
    num_actions = 0
    for naive, row, sample in samples(loader, raw, method):
        position = naive.at("leader", ["p_1", "p_2", "turn"], naive.clock[row], "state")
        expected = None if position is None else [*position, naive.arm[row]["q_1"], naive.arm[row]["q_2"]]
        assert_row(sample["observation.state"][0], sample["observation.state_is_pad"][0], expected, method == 0)
        assert float(sample["observation.sensors.turn"][0]) == np.float32(naive.arm[row]["turn"])
        newest = [r for r in naive.tables["tool"] if r["t"] <= naive.clock[row]][-1]
        assert float(sample["observation.sensors.grip"][0]) == newest["count"]
        for k in range(3):
            at = row + k
            ahead = None
            if at < len(naive.clock):
                nearest = naive.nearest(naive.clock[at] + 0.1)
                is_near = abs(naive.clock[nearest] - naive.clock[at] - 0.1) <= 0.03
                ahead = nearest if nearest > at and is_near else None
            wanted = None if ahead is None else [naive.arm[ahead]["q_1"], naive.arm[ahead]["q_2"], 1.0]
            is_pad = bool(sample["action_is_pad"][k])
            if wanted is None:
                assert is_pad
            elif not is_pad:  # the last frame is found by the mean rate
                assert_row(sample["action"][k], False, wanted)
                num_actions += 1
    assert num_actions > 300


@pytest.mark.parametrize(
    "window",
    [
        Window(state=["tool/pose", "arm/q"], state_s=0.4, state_rows=4, sensor_s=0.3, action_s=0.5, action_rows=5),
        Window(state=["leader/position"], action={"kind": "next", "of": ["tool/width", "arm/turn"]}, action_stride=2),
        Window(delta_timestamps={"observation.state": [-0.2, 0.0, 0.1], "action": [0.0, 0.1]}),
        Window(ahead_rows=3, action_rows=3),
    ],
    ids=["seconds", "next", "delta_timestamps", "ahead"],
)  # fmt: skip
def test_packed_shards_give_what_unpacked_ones_give(
    recorded: tuple[Dataset, Path, int], window: Window, tmp_path: Path
) -> None:
    dataset = vlapipe.open_dataset(recorded[0].path, cache_dir=tmp_path)
    chosen = window.choose(dataset)
    rows = chosen.sample_rows(0)
    assert rows is not None
    arrays = chosen.sample_arrays(0)
    for index in range(len(dataset)):
        for name, array in arrays.items():
            stream = "imu" if "imu" in name or name in ("timestamp/gyro", "observation.sensors.gyro") else "arm"
            if name.startswith("align/"):
                stream = "arm"
            start, count = (int(chosen.row(index)[f"{stream}/{what}"]) for what in ("start", "rows"))
            if count:
                for first, stop in ((start, start + count), (start + 3, start + 9)):
                    assert np.array_equal(rows.read(name, first, stop), array[first:stop]), name


@pytest.mark.parametrize("kind", ["relative", "delta"])
def test_forms_come_back_to_the_recorded_values(recorded: tuple[Dataset, Path, int], kind: str) -> None:
    dataset, _, _ = recorded
    table = {"kind": "next", "of": ["arm/q", "arm/turn"], "append": {"one": 1.0}}
    plain = Window(action=table, action_rows=4, state=["arm/q", "arm/turn", "tool/width"], state_rows=2)
    other = Window(**{**vars(plain), "action_form": kind})
    for one, two in zip(Loader(dataset, window=plain), formed := Loader(dataset, window=other), strict=True):
        form = formed.spec.action_form
        assert form is not None
        back = form.decode(two["action"], two["observation.state"][:, -1])
        known = ~two["action_is_pad"]  # where the frame's own state is missing, nothing is relative to it
        assert known.any()
        assert np.allclose(one["action"][known], back[known], rtol=1e-5, atol=1e-4)
        assert not np.allclose(one["action"][known], two["action"][known])


def test_a_field_may_stay_absolute_beside_a_relative_one(recorded: tuple[Dataset, Path, int]) -> None:
    dataset, _, _ = recorded
    plain = Window(action={"kind": "next", "of": ["arm/q", "arm/turn"]}, action_rows=2, state=["arm/q"])
    other = Window(**{**vars(plain), "action_form": "relative", "relative_to": ["arm/q", ""]})
    for one, two in zip(Loader(dataset, window=plain), formed := Loader(dataset, window=other), strict=True):
        assert formed.spec.action_form is not None
        back = formed.spec.action_form.decode(two["action"], two["observation.state"][:, -1])
        known = ~two["action_is_pad"]
        assert np.allclose(one["action"][known], back[known], rtol=1e-5, atol=1e-4)
        assert np.array_equal(one["action"][..., 2][known], two["action"][..., 2][known])
        assert not np.allclose(one["action"][..., :2][known], two["action"][..., :2][known])


@pytest.mark.parametrize("kind", ["relative", "delta"])
def test_an_action_that_starts_from_a_missing_state_is_padding(recorded: tuple[Dataset, Path, int], kind: str) -> None:
    dataset, _, method = recorded
    window = Window(action={"kind": "next"}, action_rows=4, state=["leader/position"], state_rows=1, action_form=kind)
    num_missing = 0
    for batch in Loader(dataset, window=window):
        is_missing = batch["observation.state_is_pad"][:, -1]
        num_missing += int(is_missing.sum())
        assert batch["action_is_pad"][is_missing].all()
        assert (batch["action"][is_missing] == 0).all()
        assert not batch["action_is_pad"][~is_missing].all()
    assert (num_missing > 0) == (method == 2)


def test_actions_from_the_anchors_own_state_do_not_need_another_stream(recorded: tuple[Dataset, Path, int]) -> None:
    dataset, _, method = recorded
    chosen: dict[str, Any] = {"action": {"kind": "next", "of": ["arm/q"]}, "action_form": "relative"}
    loader = Loader(dataset, window=Window(state=["arm/q", "leader/position"], **chosen), batch_size=1000)
    [batch] = loader
    assert bool(batch["observation.state_is_pad"].any()) == (method == 2)
    assert not batch["action_is_pad"].any()
    assert loader.spec.action_form is not None
    assert ActionForm.from_json(loader.spec.action_form.to_json()) == loader.spec.action_form
    check_observation(replace(loader.spec, images={}), batch)


def test_slerp_and_words_of_another_stream() -> None:
    one, other = np.array([0.0, 0, 0, 1]), np.array([0.0, 0, math.sin(0.4), math.cos(0.4)])
    from vlapipe.pipeline.shards.derive.aligned_fields import Placement, aligned
    from vlapipe.schemas.schema import FieldSpec

    placed = Placement(*(np.array([v]) for v in (0, 1)), np.array([0.25]), np.array([False]))
    pose = FieldSpec(name="pose", shape=(4,), quaternion="xyzw")
    found = aligned(pose, np.stack([one, -other]).astype(np.float32), placed)
    assert np.allclose(found, [[0, 0, math.sin(0.1), math.cos(0.1)]], atol=1e-6)
    word = FieldSpec(name="grip", words=(("open", 1.0), ("closed", 0.0)))
    assert aligned(word, np.array([0.0, 1.0], dtype=np.float32), placed).tolist() == [0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": ["arm/p"]}, r"no field 'arm/p'.*did you mean 'arm/q'"),
        ({"cameras": ["front"]}, r"no camera 'front'"),
        ({"action": {"of": ["leader/posit"]}}, r"action.of: no field 'leader/posit'"),
        ({"delta_timestamps": {"observation.states": [0]}}, r"no entry 'observation.states'.*did you mean"),
        ({"action_form": "relative"}, r"arm|leader"),
        ({"action_s": 1e9}, r"action_s = 1e\+09: a window in seconds of [0-9,]+ rows"),
    ],
)
def test_what_a_dataset_does_not_have_is_refused(
    recorded: tuple[Dataset, Path, int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Loader(recorded[0], window=Window(**options))


@pytest.mark.parametrize(
    "options",
    [
        {"state_rows": 0}, {"state_s": -1}, {"state_s": 1, "state_stride": 2}, {"action_form": "rel"}, {"state": []},
        {"delta_timestamps": {"action": [0.1, 0.0]}}, {"rotation": "euler"}, {"sensors": ["a"]},
    ],
)  # fmt: skip
def test_windows_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="Window"):
        Window(**options)


def test_a_sensor_cannot_have_the_name_of_a_mask(recorded: tuple[Dataset, Path, int]) -> None:
    with pytest.raises(UsageError, match="'f_is_pad' would be the mask"):
        Loader(recorded[0], window=Window(sensors={"f": "imu/gyro", "f_is_pad": "imu/gyro"}))


def test_an_angle_that_only_held_out_episodes_have_keeps_its_turn() -> None:
    form = ActionForm(kind="relative", rotation=None, parts=(_turning(-77.0, 129.0),))
    state, action = torch.tensor([[120.0]]), torch.tensor([[[-168.4]]])
    assert torch.allclose(form.decode(form.encode(action, state), state), action)
    form = ActionForm(kind="relative", rotation=None, parts=(_turning(10.0, 350.0),))
    assert torch.allclose(form.decode(form.encode(action + 360, state), state), action + 360)


def _turning(lowest: float, highest: float) -> Part:
    columns = Columns(kind="numbers", num_columns=1, period=(360.0,))
    origin = Origin(columns=columns, first=0, factor=(1.0,))
    return Part(columns=columns, origin=origin, lowest=(lowest,), highest=(highest,))
