"""``schema infer`` on random tables: what is printed is stored, or a question is asked; damage ends in one line.

A number of a table or of a damaged file is its seed: it makes the same bytes each time.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from corpus import asked_about, cases
from numpy.typing import NDArray

from vlapipe import open_dataset
from vlapipe.pipeline.infer.infer import infer_schema
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.schema import CsvStream

FEW = 5  # tables of each kind in the fast suite
MANY = 300  # tables of each kind otherwise: 2,700 in all
FEW_DAMAGED, MANY_DAMAGED = 60, 3000
NAMES = (
    ["joint_1", "joint_2", "joint_3", "joint_4"],
    ["shoulder_pan", "shoulder_lift", "elbow", "wrist"],
    ["q0", "q1", "q2", "q3"],
    ["A1", "A2", "A3", "A4"],
    ["left_waist", "left_elbow", "right_waist", "right_elbow"],
    ["J1 [deg]", "J2 [deg]", "J3 [deg]", "J4 [deg]"],
    ["pos.x", "pos.y", "pos.z", "yaw"],
)
UNITS = ("rad", "deg", "mm", "m", "N", "°")


@dataclass
class Table:
    """A table as it is printed: the joints as text, what stands beside them, and how cells are put together."""

    joints: dict[str, list[str]]
    before: dict[str, list[str]] = field(default_factory=dict)
    after: dict[str, list[str]] = field(default_factory=dict)
    delimiter: str = ","
    decimal: str = "."
    below_header: str = ""
    footer: str = ""

    def text(self) -> str:
        columns = {**self.before, **self.joints, **self.after}
        cells = [list(columns), *map(list, zip(*columns.values(), strict=True))]
        lines = [self.delimiter.join(row).replace(".", self.decimal if i else ".") for i, row in enumerate(cells)]
        return (
            "\n".join([lines[0], *([self.below_header] if self.below_header else []), *lines[1:]]) + "\n" + self.footer
        )


def motion(rng: np.random.Generator, rows: int) -> NDArray[np.float64]:
    """One joint: it swings, drifts, or stands still between steps."""
    way, t = rng.integers(4), np.arange(rows)
    if way == 0:
        return np.asarray(rng.uniform(0.2, 2) * np.sin(t / rng.uniform(5, 30) + rng.uniform(0, 6)))
    if way == 1:  # a drift that never turns back, with noise much smaller than its steps
        return np.asarray(rng.uniform(-3, 3) + np.cumsum(rng.uniform(0.01, 0.02, rows)))
    if way == 2:
        return np.cumsum(rng.normal(0, 0.02, rows))
    return np.round(np.sin(t / 12), 1) * rng.uniform(0.5, 2)


def printed(values: NDArray[np.float64], digits: int) -> list[str]:
    return [f"{value:.{digits}f}" for value in values]


def table_of(rng: np.random.Generator, *, clock: bool) -> Table:
    rows, digits = int(rng.integers(25, 60)), int(rng.integers(3, 7))
    names = NAMES[rng.integers(len(NAMES))]
    joints = {name: printed(motion(rng, rows), digits) for name in names[: rng.integers(2, 5)]}
    table = Table(joints, delimiter=[",", ";", "\t", "|"][rng.integers(4)])
    if clock:
        name, scale = [("time", 1.0), ("timestamp", 1.0), ("t_ms", 1000.0), ("Time [s]", 1.0)][rng.integers(4)]
        start, step = [0.0, 12.5, 1_700_000_000.0][rng.integers(3)], [0.01, 0.02, 0.05, 0.1][rng.integers(4)]
        table.before[name] = [f"{(start + i * step) * scale:.{0 if scale > 1 else 3}f}" for i in range(rows)]
    return table


def rows_of(table: Table) -> int:
    return len(next(iter(table.joints.values())))


def no_clock(rng: np.random.Generator) -> Table:
    return table_of(rng, clock=False)


def drifting(rng: np.random.Generator) -> Table:
    table = table_of(rng, clock=False)
    name = list(table.joints)[rng.integers(len(table.joints))]
    steps = rng.uniform(0.9, 1.1, rows_of(table)) * rng.choice([0.004, 0.05, 1.0])
    table.joints[name] = printed(rng.uniform(0, 50) + np.cumsum(steps), 4)
    return table


def turning_evenly(rng: np.random.Generator) -> Table:
    table = table_of(rng, clock=False)
    name = list(table.joints)[rng.integers(len(table.joints))]
    step = rng.choice([0.01, 0.02, 0.05, 0.1, 1.0, 5.0])
    table.joints[name] = printed(
        rng.choice([0.0, 0.5, 90.0]) + step * np.arange(rows_of(table)), int(rng.integers(2, 5))
    )
    return table


def with_words(rng: np.random.Generator) -> Table:
    table = table_of(rng, clock=True)
    words = [["RUN", "HOLD", "STOP"], ["open", "closed"], ["ok"], ["E12", "7", "none"]][rng.integers(4)]
    table.after["state"] = [words[rng.integers(len(words))] for _ in range(rows_of(table))]
    return table


def with_units(rng: np.random.Generator) -> Table:
    table = with_words(rng) if rng.random() < 0.5 else table_of(rng, clock=True)
    unit = UNITS[rng.integers(len(UNITS))]
    cells = (
        ["ms" if "ms" in name else "s" for name in table.before] + [unit] * len(table.joints) + ["-"] * len(table.after)
    )
    form = ["{}", "[{}]", "({})"][rng.integers(3)]
    table.below_header = table.delimiter.join(form.format(cell) for cell in cells)
    return table


def with_footer(rng: np.random.Generator) -> Table:
    table = table_of(rng, clock=True)
    rows = rows_of(table)
    table.footer = ["END\n", f"{rows} rows written\n", "# closed by the user\n", "\nmean of all: 0.123\n"][
        rng.integers(4)
    ]
    return table


def with_counter(rng: np.random.Generator) -> Table:
    table = table_of(rng, clock=bool(rng.random() < 0.5))
    first, name = int(rng.choice([0, 1, 4711])), ["index", "frame", "seq", "Sample", "No."][rng.integers(5)]
    table.before = {name: [str(first + i) for i in range(rows_of(table))], **table.before}
    return table


def with_decimal_commas(rng: np.random.Generator) -> Table:
    table = table_of(rng, clock=True)
    table.delimiter, table.decimal = [";", "\t", "|"][rng.integers(3)], ","
    return table


def with_holes(rng: np.random.Generator) -> Table:
    table = table_of(rng, clock=True)
    name, sign = list(table.joints)[-1], ["", "nan", "N/A", "-", "init"][rng.integers(5)]
    for row in range(3) if sign == "init" else rng.integers(0, rows_of(table), 4).tolist():
        table.joints[name][row] = sign
    return table


KINDS: list[Callable[[np.random.Generator], Table]] = [
    no_clock, drifting, turning_evenly, with_words, with_units, with_footer, with_counter, with_decimal_commas,
    with_holes,
]  # fmt: skip


def check_table(table: Table, root: Path) -> str:
    """Assert that what is stored is what was printed, or that it is asked. Returns ``right`` or ``asked``."""
    recordings = root / "recordings"
    recordings.mkdir(parents=True)
    text = table.text()
    (recordings / "log.csv").write_text(text, encoding="utf-8")
    try:
        inferred = infer_schema(recordings)
    except UsageError:
        return "asked"
    said = f"{text[:600]}\n{inferred.toml}"
    schema = parse_schema(inferred.toml, "inferred")
    stream = schema.anchor_stream
    assert not set(stream.time.sources) & set(table.joints), f"a joint is the clock\n{said}"
    if asked_about(inferred):
        return "asked"
    assert table.before, f"no clock, and no question\n{said}"
    (root / "schema.toml").write_text(inferred.toml, encoding="utf-8")
    ingest(IngestConfig(source=recordings, out=root / "data", schema=str(root / "schema.toml"), workers=1))
    episode = open_dataset(root / "data").episode(0)
    assert isinstance(stream, CsvStream)
    places = {names[0]: (spec.name, i) for spec in stream.fields for i, names in enumerate(spec.columns)}
    for name, cells in table.joints.items():
        assert name in places, f"{name} is not kept\n{said}"
        array, place = places[name]
        stored = np.asarray(episode[f"robot/{array}"]).reshape(
            -1, len(next(s for s in stream.fields if s.name == array).columns)
        )
        assert len(stored) == len(cells), f"{len(stored)} of {len(cells)} rows\n{said}"
        numbers = {i: float(cell) for i, cell in enumerate(cells) if cell[-1:].isdigit()}
        np.testing.assert_allclose(
            stored[list(numbers), place], list(numbers.values()), rtol=1e-5, atol=1e-6, err_msg=said
        )
    return "right"


def check_kind(make: Callable[[np.random.Generator], Table], count: int, tmp_path: Path) -> None:
    wrong = []
    for seed in range(count):
        table = make(np.random.default_rng([KINDS.index(make), seed]))
        try:
            check_table(table, tmp_path / str(seed))
        except AssertionError as error:
            wrong.append(f"table {seed}: {str(error)[:1500]}")
    assert not wrong, f"{len(wrong)} of {count} tables\n" + "\n\n".join(wrong[:3])


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_what_is_printed_is_stored_or_asked_about(make: Callable[[np.random.Generator], Table], tmp_path: Path) -> None:
    check_kind(make, FEW, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_what_is_printed_is_stored_or_asked_about_in_300_tables_of_each_kind(
    make: Callable[[np.random.Generator], Table], tmp_path: Path
) -> None:
    check_kind(make, MANY, tmp_path)


def a_recording(rng: np.random.Generator, texts: list[bytes]) -> bytes:
    if rng.random() < 0.5:
        return texts[rng.integers(len(texts))]
    return KINDS[rng.integers(len(KINDS))](rng).text().encode()


def damaged(rng: np.random.Generator, data: bytes, widest: int = 10_000) -> bytes:
    """Damage a file in one of ten ways."""
    way, at = rng.integers(10), int(rng.integers(1, max(2, len(data))))
    if way == 0:
        flipped = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 12)):
            flipped[place] = int(rng.integers(256))
        return bytes(flipped)
    if way == 1:
        return data[:at]
    if way == 2:
        return data[:at] + data[max(0, at - 300) : at] * int(rng.integers(2, 6)) + data[at:]
    if way == 3:
        return data[:at] + b"\0" * int(rng.integers(1, 5000)) + data[at:]
    if way == 4:
        return data[:at] + b"9" * int(rng.integers(20, 400)) + data[at:]
    if way == 5:
        return data[:at] + b"\r" * int(rng.integers(10, 3000)) + data[at:]
    if way == 6:
        return data.replace(
            b"0.", rng.choice([b"1e999", b"-1e400", b"1e38", b"nan", b"inf", b"0x"]), int(rng.integers(1, 5))
        )
    if way == 7:
        return data[:at] + b",1.5" * int(rng.integers(2, widest)) + data[at:]
    if way == 8:
        return data[:at] + b'"' * int(rng.integers(1, 4)) + data[at:]
    parts = data.splitlines(keepends=True)
    rng.shuffle(parts)
    return b"".join(parts)


def small_texts() -> list[bytes]:
    files = (path for case in cases() for path in sorted(case.folder.rglob("*")) if path.name != "facts.toml")
    return [path.read_bytes() for path in files if path.is_file() and 100 < path.stat().st_size < 12_000]


def check_damaged(count: int, widest: int, tmp_path: Path) -> None:
    texts, wrong = small_texts(), []
    root = tmp_path / "recordings"
    root.mkdir()
    for seed in range(count):
        rng = np.random.default_rng([99, seed])
        data = damaged(rng, a_recording(rng, texts), widest)
        (root / "log.csv").write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                parse_schema(infer_schema(root).toml, "inferred")
        except UsageError:
            continue
        except Exception as error:  # noqa: BLE001  (any other one is a traceback on a user's screen)
            wrong.append(f"file {seed}: {error!r}; it begins with {data[:100]!r}")
    assert not wrong, f"{len(wrong)} of {count} files\n" + "\n".join(wrong[:8])


def test_damage_ends_in_a_schema_or_in_one_line(tmp_path: Path) -> None:
    check_damaged(FEW_DAMAGED, 1000, tmp_path)


@pytest.mark.slow
def test_damage_ends_in_a_schema_or_in_one_line_in_3000_files(tmp_path: Path) -> None:
    check_damaged(MANY_DAMAGED, 10_000, tmp_path)


LONG: dict[str, Callable[[int], bytes]] = {
    "blank CR lines": lambda n: b"\r" * (8 * n) + b"x,y\n1,2\n3,4\n",
    "blank LF lines": lambda n: b"\n" * (8 * n) + b"x,y\n1,2\n3,4\n",
    "remarks": lambda n: b"# a remark\n" * n + b"x,y\n1,2\n3,4\n",
    "words": lambda n: b"one,two\n" * n,
    "rows": lambda n: b"t,a,b\n" + b"".join(b"%d.5,1.25,%d\n" % (i, i % 7) for i in range(n)),
    "columns": lambda n: b"\n".join(
        [b",".join(b"c%d" % i for i in range(n // 12))] + [b",".join([b"1.5"] * (n // 12))] * 3
    ),
    "an open quote": lambda n: b't,a\n"' + b"1.5,2.5\n" * n,
    "digits": lambda n: b"t,a\n0.1," + b"7" * (8 * n) + b"\n0.2,1\n",
    "one line": lambda n: b"1.5 " * n,
    "NULs": lambda n: b"t,a\n1,2\n" + b"\0" * (8 * n),
    "rows of two lengths": lambda n: b"".join(b"1,2,3\n" if i % 2 else b"4,5\n" for i in range(n)),
}


def cpu_seconds(data: bytes, root: Path) -> float:
    (root / "log.csv").write_bytes(data)
    begun = time.process_time()
    with contextlib.suppress(UsageError):
        infer_schema(root)
    return time.process_time() - begun


@pytest.mark.parametrize("make", LONG.values(), ids=LONG)
def test_time_is_linear_in_size(make: Callable[[int], bytes], tmp_path: Path) -> None:
    cpu_seconds(b"t,a\n0.1,1\n0.2,2\n", tmp_path)  # what is loaded once
    short = min(cpu_seconds(make(3_000), tmp_path) for _ in range(2))
    assert cpu_seconds(make(12_000), tmp_path) < 10 * short + 0.5
