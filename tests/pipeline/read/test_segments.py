"""Files with several episodes, cut by a column or at jumps of the clock: every row goes to its episode."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_jpeg
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import vlapipe
from vlapipe.pipeline.discover.discovery import RawEpisode, discover
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.pipeline.plan.plan import make_plan
from vlapipe.pipeline.read import episode as reading
from vlapipe.pipeline.read import file_parts
from vlapipe.pipeline.read.images.image_options import AS_RECORDED
from vlapipe.pipeline.read.segments import cut_files
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.parse import parse_schema

BY_COLUMN = 'split_column = "episode"'
BY_GAP = "split_gap_s = 1"


def schema_text(split: str, *, field: str = "", streams: str = "", per_file: bool = True) -> str:
    return f"""
        name = "t"
        anchor = "robot"
        [episodes]
        per_file = {str(per_file).lower()}
        {split}
        [split]
        val = 0
        [streams.robot]
        kind = "csv"
        files = ["*.csv"]
        time = {{ column = "t" }}
        [streams.robot.fields.x]
        columns = ["x"]
        dtype = "float64"
        {field}
        {streams}
        [action]
        kind = "next"
        of = ["robot/x"]
        [sample]
        state = ["robot/x"]
        """


def write_rows(path: Path, rows: Sequence[Sequence[Any]], header: str = "episode,t,x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows), ""]))
    return path


def run(root: Path, text: str, **options: Any) -> IngestReport:
    (root / "schema.toml").write_text(text)
    return ingest(IngestConfig(source=root / "raw", out=root / "data", schema=str(root / "schema.toml"), **options))


def values(dataset: Dataset) -> dict[str, list[float]]:
    return {dataset.episode(i).id: dataset.episode(i)["robot/x"].tolist() for i in range(len(dataset))}


def codes(report: IngestReport) -> dict[str, set[str]]:
    return {
        reject["episode"]: {r["code"] for r in reject["reasons"] if r["severity"] == "error"}
        for reject in report.rejects
    }


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(lengths=[2], missing={0, 1}, workers=1, shard_bytes=1)
@given(
    lengths=st.lists(st.integers(2, 6), min_size=1, max_size=5),
    missing=st.sets(st.integers(0, 30), max_size=8),
    workers=st.sampled_from([1, 3]),
    shard_bytes=st.sampled_from([1, 1 << 20]),
)
def test_parts_hold_the_rows_of_their_value_whatever_is_dropped(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], missing: set[int], workers: int, shard_bytes: int
) -> None:
    root = tmp_path_factory.mktemp("cut")
    rows: list[list[Any]] = []
    expected: dict[str, list[float]] = {}
    for episode, length in enumerate(lengths):
        for _ in range(length):
            row = len(rows)
            rows.append([f"e{episode}", row / 10, "" if row in missing else row])
            if row not in missing:
                expected.setdefault(f"log/e{episode}", []).append(float(row))
    expected = {name: kept for name, kept in expected.items() if len(kept) > 1}  # one row has no action
    write_rows(root / "raw" / "log.csv", rows)
    report = run(root, schema_text(BY_COLUMN, field='on_missing = "drop"'), workers=workers, shard_bytes=shard_bytes)
    no_rows = "csv.header_only" if missing >= set(range(len(rows))) else "episode.no_frames"
    assert all(no_rows in found for found in codes(report).values())
    found = values(vlapipe.open_dataset(root / "data")) if expected else {}
    assert found == expected


@pytest.mark.parametrize("per_file", [True, False])
def test_file_is_cut_where_the_clock_jumps_either_way(tmp_path: Path, per_file: bool) -> None:
    times = [0.0, 0.5, 1.0, 10.0, 10.5, 11.6, 12.0, 0.25, 0.5]
    write_rows(tmp_path / "raw" / "day" / "log.csv", [(0, t, i) for i, t in enumerate(times)])
    report = run(tmp_path, schema_text(BY_GAP, per_file=per_file))
    assert not report.rejects
    name = "day/log" if per_file else "day"
    assert values(vlapipe.open_dataset(tmp_path / "data")) == {
        f"{name}/part_0000": [0, 1, 2],
        f"{name}/part_0001": [3, 4],
        f"{name}/part_0002": [5, 6],
        f"{name}/part_0003": [7, 8],
    }


def test_clock_of_a_file_of_its_own_cuts_as_well(tmp_path: Path) -> None:
    times = [0.0, 0.5, 10.0, 10.5]
    write_rows(tmp_path / "raw" / "log.csv", [(0, 0, i) for i in range(4)])
    write_rows(tmp_path / "raw" / "log.stamps", [(t,) for t in times], "when")
    clock = 'time = { file = "{stem}.stamps", column = "when" }'
    report = run(tmp_path, schema_text(BY_GAP).replace('time = { column = "t" }', clock))
    assert not report.rejects
    dataset = vlapipe.open_dataset(tmp_path / "data")
    assert values(dataset) == {"log/part_0000": [0, 1], "log/part_0001": [2, 3]}
    assert dataset.episode(1)["robot/timestamp"].tolist() == [10.0, 10.5]


def test_clock_nearest_before_the_first_field_cuts_as_well(tmp_path: Path) -> None:
    times = [0.0, 0.5, 10.0, 10.5]
    write_rows(tmp_path / "raw" / "log.csv", [(100 * i, i, t, i) for i, t in enumerate(times)], "stamp,y,t,x")
    clock = 'time = { column = ["stamp", "t"], nearest = true }'
    report = run(tmp_path, schema_text(BY_GAP).replace('time = { column = "t" }', clock))
    assert not report.rejects
    assert len(values(vlapipe.open_dataset(tmp_path / "data"))) == 2


def test_values_that_come_again_are_refused_and_the_others_kept(tmp_path: Path) -> None:
    rows = [(e, i / 10, i) for i, e in enumerate("aabbbaacc")]
    write_rows(tmp_path / "raw" / "log.csv", rows)
    report = run(tmp_path, schema_text(BY_COLUMN))
    assert codes(report) == {"log/a": {"episode.interleaved"}}
    (reason,) = report.rejects[0]["reasons"]
    assert (reason["file"], reason["line"], reason["column"]) == ("log.csv", 7, "episode")
    assert values(vlapipe.open_dataset(tmp_path / "data")) == {"log/b": [2, 3, 4], "log/c": [7, 8]}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda text: text.replace("episode,", "trial,"), "csv.missing_column"),
        (lambda text: text.replace("b,0.3,3", ",0.3,3"), "csv.missing_value"),
        (lambda _: "", "csv.empty"),
    ],
)
def test_file_that_cannot_be_cut_is_refused_for_the_true_reason(tmp_path: Path, change: Any, code: str) -> None:
    rows = [(e, i / 10, i) for i, e in enumerate("aabb")]
    path = write_rows(tmp_path / "raw" / "log.csv", rows)
    write_rows(tmp_path / "raw" / "good.csv", rows)
    path.write_text(change(path.read_text()))
    report = run(tmp_path, schema_text(BY_COLUMN))
    assert codes(report) == {"log": {code}}
    assert list(values(vlapipe.open_dataset(tmp_path / "data"))) == ["good/a", "good/b"]


def test_fault_in_a_file_is_not_forgotten_by_any_part_that_may_have_it(tmp_path: Path) -> None:
    rows = [(e, i / 10, i) for i, e in enumerate("aaabbbccc")]
    rows[4] = ("b", 0.4, "nan")
    write_rows(tmp_path / "raw" / "log.csv", rows)
    report = run(tmp_path, schema_text(BY_COLUMN))
    assert "csv.not_finite" in codes(report)["log/b"]
    kept = {} if report.dataset is None else values(vlapipe.open_dataset(tmp_path / "data"))
    assert "log/b" not in kept


def test_every_value_may_restart_the_clock(tmp_path: Path) -> None:
    rows = [(e, t / 10, 10 * e + t) for e in range(3) for t in range(4)]
    write_rows(tmp_path / "raw" / "log.csv", rows)
    report = run(tmp_path, schema_text(BY_COLUMN))
    assert not report.rejects
    assert not [finding for finding in report.findings if finding["code"] == "episode.duplicate"]
    assert values(vlapipe.open_dataset(tmp_path / "data"))["log/2"] == [20, 21, 22, 23]


SENSOR = """
    [streams.sensor]
    kind = "npz"
    files = ["{stem}.npz"]
    time = { array = "t" }
    fields = { f = { array = "f" } }
    [streams.camera]
    kind = "images"
    files = ["{stem}_frames/*.jpg"]
    time = { unit = "s" }
    [streams.extra]
    kind = "csv"
    files = ["{stem}.csv"]
    time = { column = "t" }
    fields = { y = { columns = ["y"] } }
    """


def write_streams(root: Path, clock: np.ndarray) -> None:
    episodes = np.repeat(["a", "b", "c"], len(clock) // 3)
    rows = [(e, t, i, -i) for i, (e, t) in enumerate(zip(episodes, clock.tolist(), strict=True))]
    write_rows(root / "raw" / "log.csv", rows, "episode,t,x,y")
    times = np.arange(-5, 305) / 10
    np.savez(root / "raw" / "log.npz", t=times, f=np.arange(len(times), dtype=np.float32))
    (root / "raw" / "log_frames").mkdir()
    for k in range(16):
        (root / "raw" / "log_frames" / f"{2 * k}.5.jpg").write_bytes(make_jpeg(k))


def test_other_streams_are_cut_to_the_time_of_the_part(tmp_path: Path) -> None:
    clock = np.arange(30.0)
    write_streams(tmp_path, clock)
    report = run(tmp_path, schema_text(BY_COLUMN, streams=SENSOR))
    assert not report.rejects
    dataset = vlapipe.open_dataset(tmp_path / "data")
    for i, (first, last) in enumerate([(0, 9), (10, 19), (20, 29)]):
        episode = dataset.episode(i)
        assert episode["robot/timestamp"].tolist() == clock[first : last + 1].tolist()
        assert episode["extra/y"].tolist() == [-row for row in range(first, last + 1)]
        stamps = episode["sensor/timestamp"]
        assert (stamps[0], stamps[-1], len(stamps)) == (first, last, 10 * (last - first) + 1)
        assert episode["sensor/f"].tolist() == [round(t * 10) + 5 for t in stamps.tolist()]
        images = [k for k in range(16) if first <= 2 * k + 0.5 <= last]
        assert episode["camera/timestamp"].tolist() == [2 * k + 0.5 for k in images]
        assert [episode.jpeg("camera", row) for row in range(len(images))] == [make_jpeg(k) for k in images]
    assert report.raw_bytes < 2 * sum(f.stat().st_size for f in (tmp_path / "raw").rglob("*") if f.is_file())


def test_streams_of_other_files_are_not_shared_out_between_parts_of_one_time(tmp_path: Path) -> None:
    """Only the anchor's own rows say to which part they belong where each begins at 0."""
    write_streams(tmp_path, np.tile(np.arange(10.0), 3))
    report = run(tmp_path, schema_text(BY_COLUMN, streams=SENSOR))
    assert codes(report) == {f"log/{part}": {"clock.backwards"} for part in "abc"}


def test_ids_of_parts_that_collide_tell_their_row(tmp_path: Path) -> None:
    write_rows(tmp_path / "raw" / "log.csv", [(e, i, i) for i, e in enumerate(["a/b", "a/b", "a_b", "a_b", "c", "c"])])
    run(tmp_path, schema_text(BY_COLUMN))
    assert list(values(vlapipe.open_dataset(tmp_path / "data"))) == ["log/a_b@0", "log/a_b@2", "log/c"]


def test_part_and_file_of_one_name_are_two_episodes(tmp_path: Path) -> None:
    write_rows(tmp_path / "raw" / "log.csv", [("a", 0, 0), ("a", 1, 1)])
    write_rows(tmp_path / "raw" / "log" / "a.csv", [("", 0, 5), ("", 1, 6)])
    report = run(tmp_path, schema_text(BY_COLUMN))
    assert list(codes(report)) == ["log/a"]
    assert list(values(vlapipe.open_dataset(tmp_path / "data"))) == ["log/a@0"]


def test_plan_knows_the_parts(tmp_path: Path) -> None:
    schema = parse_schema(schema_text(BY_COLUMN), "t")
    path = write_rows(tmp_path / "raw" / "log.csv", [(i // 5, i, i) for i in range(20)])
    found = cut_files(discover(tmp_path / "raw", schema), schema)
    assert [episode.rows for episode in found.episodes] == [(0, 5), (5, 10), (10, 15), (15, 20)]
    assert sum(episode.num_bytes for episode in found.episodes) == path.stat().st_size // 4 * 4
    plan = make_plan(found, schema, shard_bytes=1, options={})
    assert len(plan.shards) == 4
    again = cut_files(discover(tmp_path / "raw", schema), schema)
    assert make_plan(again, schema, shard_bytes=1, options={}).shards == plan.shards
    uncut = discover(tmp_path / "raw", schema)
    assert make_plan(uncut, schema, shard_bytes=1, options={}).shards[0].digest != plan.shards[0].digest


def test_column_that_changes_in_every_row_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    write_rows(tmp_path / "raw" / "log.csv", [(i, i, i) for i in range(3000)])
    with pytest.raises(UsageError, match="3000 episodes in 3000 rows"):
        run(tmp_path, schema_text(BY_COLUMN))


def test_column_may_be_a_field_too_and_long_texts_are_told_apart(tmp_path: Path) -> None:
    names = ["n" * 40 + "1"] * 2 + ["n" * 40 + "2"] * 2
    write_rows(tmp_path / "raw" / "log.csv", [(name, i, i) for i, name in enumerate(names)])
    field = '[streams.robot.fields.episode]\ncolumns = ["episode"]\ndtype = "text"'
    report = run(tmp_path, schema_text(BY_COLUMN, field=field))
    assert not report.rejects
    dataset = vlapipe.open_dataset(tmp_path / "data")
    assert [dataset.episode(i).text("robot/episode") for i in range(2)] == [names[:2], names[2:]]
    assert not [finding for finding in report.findings if finding["code"] == "csv.columns_not_kept"]


@pytest.mark.parametrize("workers", [1, 3, 8])
@pytest.mark.parametrize("shard_bytes", [1, 500, 1 << 20])
def test_each_file_is_parsed_once_for_all_its_episodes(
    tmp_path: Path, workers: int, shard_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_files, num_parts, num_rows = 8, 6, 10
    for file in range(num_files):
        rows = [(f"e{i // num_rows}", i / 10, i) for i in range(num_parts * num_rows)]
        write_rows(tmp_path / "raw" / f"log{file}.csv", rows)
    parsed: Counter[str] = Counter()
    kept: list[int] = []
    real = reading.read_streams

    def counting(root: Path, raw: RawEpisode, *rest: Any) -> Any:
        parsed[raw.files["robot"][0].path] += 1
        kept.append(sum(slot.file is not None for slot in file_parts._shelf._slots.values()))
        time.sleep(0.005)  # so that threads overtake each other
        return real(root, raw, *rest)

    monkeypatch.setattr(reading, "read_streams", counting)
    report = run(tmp_path, schema_text(BY_COLUMN), workers=workers, shard_bytes=shard_bytes)
    assert report.num_episodes == num_files * num_parts
    assert parsed == {f"log{file}.csv": 1 for file in range(num_files)}
    assert max(kept) <= 4 + 1  # as many shards side by side, and the file whose parts come next
    assert not file_parts._shelf._slots


def test_files_of_a_resumed_run_do_not_pile_up(tmp_path: Path) -> None:
    rows = [(f"e{i // 10}", i / 10, i) for i in range(20)]
    for file in range(20):
        write_rows(tmp_path / "raw" / f"log{file:02d}.csv", rows)
    schema = parse_schema(schema_text(BY_COLUMN), "t")
    discovery = cut_files(discover(tmp_path / "raw", schema), schema)
    first_parts = [raw for raw in discovery.episodes if raw.id.endswith("e0")]  # the others are finished
    for raw in first_parts:
        with file_parts.files_kept(discovery.root, [raw], schema, AS_RECORDED):
            reading.read_episode(discovery.root, raw, schema, {}, Findings())
    assert 0 < len(file_parts._shelf._slots) <= 4
    file_parts.let_go_of_files()
    assert not file_parts._shelf._slots
