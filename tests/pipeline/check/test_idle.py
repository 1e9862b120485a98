"""Standstills are found although encoders flicker, motion is not taken for one, and trimmed frames are not drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import vlapipe
from vlapipe.pipeline.check.idle import find_idle, without_idle
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.pipeline.stream_rows import SourceFile, StreamRows
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.schema import Schema

TEXT = """
    name = "t"
    [episodes]
    folders = ["episode_*"]
    {episodes}
    [split]
    val = 0
    [streams.robot]
    kind = "csv"
    files = ["robot.csv"]
    time = {{ column = "t" }}
    [streams.robot.fields.q]
    columns = ["q_{{1..3}}"]
    unit = "rad"
    [streams.robot.fields.leader]
    columns = ["l_{{1..3}}"]
    unit = "rad"
    [streams.robot.fields.grip]
    columns = ["grip"]
    {streams}
    [action]
    kind = "column"
    of = ["robot/leader", "robot/grip"]
    [sample]
    state = ["robot/q"]
    state_rows = 4
    """


def schema(episodes: str = "", streams: str = "") -> Schema:
    return parse_schema(TEXT.format(episodes=episodes, streams=streams), "t")


# (seconds, whether the arm moves) of a recording's phases
PHASES = [(2.0, False), (3.0, True), (2.5, False), (4.0, True), (1.5, False)]


def recording(
    rate_hz: float, phases: list[tuple[float, bool]] = PHASES, noise: float = 0.0, flicker: float = 0.0, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Times, values ``(rows, 7)`` (three joints, of which one never moves; their leader; the gripper), moving rows."""
    rng = np.random.default_rng(seed)
    count = round(sum(length for length, _ in phases) * rate_hz)
    times = np.arange(count) / rate_hz
    ends = np.cumsum([length for length, _ in phases])
    moving = np.array([moves for _, moves in phases])[
        np.searchsorted(ends, times, side="right").clip(max=len(ends) - 1)
    ]
    way = np.cumsum(moving) / rate_hz
    joints = np.stack([0.4 * way, np.sin(1.5 * way), np.full(count, 0.75)], axis=1)
    values = np.concatenate([joints, joints, (way[:, None] > 2).astype(float)], axis=1)
    values[:, :6] += rng.normal(0, noise, (count, 6)) + flicker * rng.integers(0, 2, (count, 6))
    return times, values, moving


def find(times: NDArray[np.float64], values: NDArray[np.float64], of: Schema | None = None) -> list[tuple[int, int]]:
    fields = {"q": values[:, :3], "leader": values[:, 3:6], "grip": values[:, 6]}
    fields = {name: field.astype(np.float32) for name, field in fields.items()}
    source = SourceFile(path="x", num_files=1, num_bytes=0, sha256="")
    return find_idle({"robot": StreamRows(timestamp=times, fields=fields, source=source)}, of or schema())


def assert_spans(times: NDArray[np.float64], found: list[tuple[int, int]], expected: list[tuple[float, float]]) -> None:
    spans = [(times[a], times[b - 1]) for a, b in found]
    assert len(spans) == len(expected), (spans, expected)
    for got, wanted in zip(spans, expected, strict=True):
        assert got == pytest.approx(wanted, abs=0.25)


STILL = [(0.0, 2.0), (5.0, 7.5), (11.5, 13.0)]


@pytest.mark.parametrize("rate_hz", [10, 30, 100, 500])
@pytest.mark.parametrize(
    "what", [{}, {"flicker": 2.5e-4}, {"noise": 1e-3}, {"noise": 5e-4, "flicker": 1e-3}], ids=lambda what: str(what)
)
def test_beginning_pause_and_end_are_found(rate_hz: float, what: dict[str, float]) -> None:
    times, values, _ = recording(rate_hz, **what)
    assert_spans(times, find(times, values), STILL)


def test_action_that_moves_while_the_state_stands_still_is_no_standstill() -> None:
    times, values, _ = recording(30)
    values[(times > 5.5) & (times < 7), 4] += 0.3 * np.sin(3 * times[(times > 5.5) & (times < 7)])
    assert_spans(times, find(times, values), [STILL[0], STILL[2]])


def test_gripper_that_closes_divides_a_pause() -> None:
    times, values, _ = recording(30, [(1.0, True), (6.0, False), (1.0, True)])
    values[:, 6] = times > 4
    assert_spans(times, find(times, values), [(1.0, 4.0), (4.0, 7.0)])


def test_spike_makes_no_motion_look_like_none() -> None:
    times, values, _ = recording(30)
    values[110:113, 1] = 65535
    assert_spans(times, find(times, values), STILL)


def test_angle_that_flickers_about_the_wrap_stands_still() -> None:
    times, values, _ = recording(30, flicker=0.001)
    turned = (np.rad2deg(values[:, :6]) + 180 + 180) % 360 - 180
    text = TEXT.format(episodes="", streams="").replace('unit = "rad"', 'unit = "deg"\n    period = 360')
    assert_spans(times, find(times, np.column_stack([turned, values[:, 6]]), parse_schema(text, "t")), STILL)


def test_columns_of_which_all_are_only_noise_stand_still() -> None:
    rng = np.random.default_rng(3)
    times = np.arange(600) / 100
    assert find(times, rng.normal(0, 0.01, (600, 7))) == [(0, 600)]


def test_frame_whose_action_begins_to_move_stays() -> None:
    """Actions look five rows ahead; the last rows have none."""
    action_row = np.where(np.arange(60) < 55, np.arange(60) + 5, -1).astype(np.int32)
    frames, pauses = without_idle((2, 55), [(0, 20), (30, 40), (50, 60)], action_row)
    assert frames == (15, 50)
    assert pauses == [(30, 35)]


def test_idle_s_says_how_long_is_too_long() -> None:
    times, values, _ = recording(30)
    assert_spans(times, find(times, values, schema("idle_s = 2.2")), [STILL[1]])
    assert find(times, values, schema("idle_s = 3")) == []


@settings(max_examples=60, deadline=None)
@given(
    rate_hz=st.sampled_from([5.0, 10.0, 30.0, 100.0, 650.0]),
    speed=st.floats(0.02, 3.0),
    seed=st.integers(0, 1000),
    noise=st.sampled_from([0.0, 1e-4, 1e-3]),
)
def test_arm_that_never_stops_has_no_standstill(rate_hz: float, speed: float, seed: int, noise: float) -> None:
    """A joint that goes on at any steady speed, or two that swing out of phase."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(20 * rate_hz)) / rate_hz
    # The slowest crosses 2 % of its range in a second; slower than a half is standing still by definition.
    turns = [0.02 + speed * times, np.sin(min(speed, 1.5) * times), np.cos(min(speed, 1.5) * times)]
    moving = np.stack(turns[:1] if seed % 2 else turns[1:], axis=1)
    values = np.zeros((len(times), 7))
    values[:, : moving.shape[1]] = moving
    values[:, :6] += rng.normal(0, noise, (len(times), 6)) * (speed > 0.1)
    assert find(times, values) == []


def write(root: Path, phases: list[tuple[float, bool]], rate_hz: float = 20) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    times, values, moving = recording(rate_hz, phases, flicker=2e-4)
    folder = root / "raw" / "episode_1"
    folder.mkdir(parents=True)
    header = "t,q_1,q_2,q_3,l_1,l_2,l_3,grip"
    rows = [",".join(map(repr, [t, *row])) for t, row in zip(times.tolist(), values.tolist(), strict=True)]
    (folder / "robot.csv").write_text("\n".join([header, *rows, ""]))
    return times, moving


def run(root: Path, episodes: str = "") -> IngestReport:
    (root / "s.toml").write_text(TEXT.format(episodes=episodes, streams=""))
    out = root / ("trimmed" if episodes else "kept")
    return ingest(IngestConfig(source=root / "raw", out=out, schema=str(root / "s.toml")))


def test_seconds_are_told_and_every_frame_is_kept_unless_asked(tmp_path: Path) -> None:
    times, _ = write(tmp_path, PHASES)
    report = run(tmp_path)
    [finding] = [f for f in report.findings if f["code"].startswith("episode.idle")]
    assert (finding["code"], finding["severity"], finding["line"]) == ("episode.idle", "note", 2)
    for said in ("nothing moves for 1.95 s at the beginning", "at the end", "s in 1 pause", "idle = 'trim'"):
        assert said in finding["message"]
    assert (report.num_frames, report.num_left_out) == (len(times), 0)


def test_trimmed_frames_are_not_drawn_and_windows_may_cross_a_pause(tmp_path: Path) -> None:
    times, moving = write(tmp_path, PHASES)
    report = run(tmp_path, 'idle = "trim"')
    assert [f["code"] for f in report.findings if "idle" in f["code"]] == ["episode.idle_trimmed"]
    dataset = vlapipe.open_dataset(tmp_path / "trimmed")
    row = dataset.row(0)
    first, stop = np.flatnonzero(moving)[[0, -1]] + [0, 1]
    assert (row["frame_start"], row["frame_start"] + row["num_frames"]) == pytest.approx((first, stop), abs=3)
    pytest.importorskip("torch")
    loader = vlapipe.Loader(dataset, batch_size=1, shuffle=False, num_workers=0, split="train")
    states = [batch["observation.state"][0].numpy() for batch in loader]
    episode = dataset.episode(0)
    q = episode["robot/q"]
    drawn = [int(np.flatnonzero((q == state[-1]).all(axis=1))[-1]) for state in states]
    assert len(states) == row["num_frames"] - row["num_left_out"] == pytest.approx(moving.sum(), abs=8)
    after = next(place for place in drawn if times[place] > 7)  # the first frame behind the pause
    assert times[after] == pytest.approx(7.5, abs=0.25)
    assert np.array_equal(states[drawn.index(after)], q[after - 3 : after + 1])


def test_recording_in_which_nothing_moves_is_set_aside_if_trimmed(tmp_path: Path) -> None:
    write(tmp_path, [(5.0, False)])
    report = run(tmp_path)
    assert "all the time" in next(f["message"] for f in report.findings if f["code"] == "episode.idle")
    [reject] = run(tmp_path, 'idle = "trim"').rejects
    assert [(r["code"], r["found"]) for r in reject["reasons"] if r["severity"] == "error"] == [
        ("episode.no_frames", "none over 4.95 s")
    ]


def test_other_streams_standstills_count_in_their_own_time() -> None:
    """The arm's file stands still; a hand in a file of its own, at another rate, moves for a while."""
    text = TEXT.format(
        episodes="",
        streams='[streams.hand]\nkind = "csv"\nfiles = ["hand.csv"]\ntime = { column = "t" }\n'
        'fields = { finger = { columns = ["finger"] } }',
    ).replace('state = ["robot/q"]', 'state = ["robot/q", "hand/finger"]')
    try:
        both = parse_schema(text, "t")
    except UsageError:
        pytest.skip("state is of one stream")
    times, values, _ = recording(30)
    hand_times = np.arange(0, 13, 0.1)
    finger = np.where((hand_times > 5.4) & (hand_times < 6.2), np.sin(4 * hand_times), 0.0).astype(np.float32)
    source = SourceFile(path="x", num_files=1, num_bytes=0, sha256="")
    fields = {"q": values[:, :3], "leader": values[:, 3:6], "grip": values[:, 6]}
    streams = {
        "robot": StreamRows(timestamp=times, fields=fields, source=source),
        "hand": StreamRows(timestamp=hand_times, fields={"finger": finger}, source=source),
    }
    assert_spans(times, find_idle({**streams}, both), [STILL[0], (6.2, 7.5), (11.5, 13.0)])
