"""How random tables are cut: names, rows and values come back as they were printed, or there is a question.

The number of a table is its seed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from vlapipe.pipeline.infer.text.dialect import Table, look_at_table

TABLES = 600
_MARGIN = 2.0  # log-odds; a nearer runner-up is asked about
NAMES = [
    ["t", "joint1", "joint2", "joint3", "tool"],
    ["Time", "J1 angle", "J2 angle", "J3 angle", "State"],
    ["timestamp", "actual_q_0", "actual_q_1", "actual_q_2", "mode"],
    ["Zeit", "Kraft", "Größe", "Weg", "Zustand"],
    ["time [s]", "x [mm]", "y [mm]", "z [mm]", "note"],
    ["s", "x", "y", "z", "g"],
]
UNITS = [
    ["s", "rad", "rad", "rad", "-"],
    ["[s]", "[mm/s^2]", "[N*m]", "[°]", "[]"],
    ["(s)", "(deg/s)", "(V)", "(%)", ""],
]
TYPES = [["float64", "float32", "float32", "int", "string"], ["double", "real", "int16_t", "uint8", "str"]]
RANGES = ["0..100", "-3.14..3.14", "-10 to 10", "0-1000", "-"]
PREAMBLES = [
    "Robot: arm 3",
    "Date: 2024-05-20",
    "Operator;Ann",
    "*** log ***",
    "Firmware\t1.2.3",
    "recorded for a test",
]
FOOTERS = ["END", "# end", "---", "Total{d}12{d}13", "mean of all the columns: 0.5"]


@dataclass
class Printed:
    """A table as it is printed, and the names and cells that a reader should find."""

    text: str
    names: list[str]
    rows: list[list[str]]


def number(rng: random.Random, value: float, digits: int, decimal: str, thousands: str) -> tuple[str, str]:
    """A number as it is printed, and without its thousands signs."""
    text = f"{value:.{digits}f}" if rng.random() < 0.9 else f"{value:.{digits}e}"
    whole, point, rest = text.partition(".")
    plain = whole + (decimal + rest if point else "")
    if thousands and "e" not in text:
        sign, places = (whole[0], whole[1:]) if whole.startswith("-") else ("", whole)
        places = f"{int(places):,}".replace(",", thousands)
        return sign + places + (decimal + rest if point else ""), plain
    return plain, plain


def printed(seed: int) -> Printed:
    rng = random.Random(seed)  # noqa: S311
    delimiter = rng.choice([",", ";", "\t", "|", " "])
    decimal = rng.choice([".", ","]) if delimiter != "," else "."
    thousands = rng.choice([sign for sign in ",. '" if sign not in (decimal, delimiter)]) if rng.random() < 0.2 else ""
    count, width = rng.randint(12, 60), rng.randint(2, 5)
    names = list(rng.choice(NAMES)[:width])
    if delimiter == " ":
        names = [name.replace(" ", "_") for name in names]
    scale = rng.choice([1.0, 50.0]) if not thousands else 4000.0
    digits = rng.randint(2, 6)
    cells: list[list[tuple[str, str]]] = []
    for i in range(count):
        row = [number(rng, i * 0.02, 2, decimal, "")]
        row += [
            number(rng, scale * (0.3 * k + i / count + rng.uniform(-0.02, 0.02)), digits, decimal, thousands)
            for k in range(1, min(width, 4))
        ]
        cells.append(row)
    with_words = width == 5
    if with_words:
        words = rng.choice([["RUN", "HOLD"], ["T1A", "700", "702"], ["ok"]])
        for row in cells:
            word = rng.choice(words)
            row.append((word, word))
    holes = rng.random() < 0.3 and delimiter != " "
    if holes:
        for row in cells[:-1]:
            if rng.random() < 0.4:
                row[-1 if not with_words else -2] = ("", "")
    gap = {" ": rng.choice([" ", "   "])}.get(delimiter, delimiter)
    if rng.random() < 0.1 and delimiter in ",;":
        gap = f"{delimiter} "
    end = delimiter if rng.random() < 0.1 and delimiter not in " " else ""
    lines = [gap.join(name for name in row) + end for row in ([text for text, _ in row] for row in cells)]
    quoted = rng.random() < 0.2
    head = [gap.join(f'"{name}"' if quoted else name for name in names) + end]
    below = rng.choice([0, 0, 1, 2, 3])
    about = {1: rng.choice(UNITS), 2: rng.choice(TYPES), 3: RANGES}.get(below, [])[:width]
    if about and not (delimiter == " " and any(" " in cell or not cell for cell in about)):
        head.append(gap.join(about) + end)
    commented = rng.random() < 0.15
    if commented:
        head = [f"# {line}" for line in head]
    above = rng.sample(PREAMBLES, rng.choice([0, 0, 0, 1, 2, 3]))
    if rng.random() < 0.05 and delimiter == ";":
        above = ["sep=;"]
    if commented:
        above = [f"# {line}" for line in above]
    if rng.random() < 0.1:
        lines.insert(rng.randint(3, len(lines) - 1), "# paused")
    foot = [rng.choice(FOOTERS).format(d=delimiter)] if rng.random() < 0.25 else []
    newline = rng.choice(["\n", "\r\n"])
    text = newline.join([*above, *head, *lines, *foot]) + (newline if rng.random() < 0.9 or foot else "")
    return Printed(text, names, [[plain for _, plain in row] for row in cells])


def cut(path: Path, table: Printed) -> tuple[Table | None, bool]:
    """The likeliest table, and whether something is asked."""
    path.write_text(table.text, encoding="utf-8", newline="")
    found = look_at_table(path, path.name)
    if found is None:
        return None, False
    options = found.options
    near = len(options) > 1 and options[0].score - options[1].score < _MARGIN
    return found, near or bool(found.questions)


def test_random_tables_come_back_as_printed_or_are_asked(tmp_path: Path) -> None:
    asked = 0
    for seed in range(TABLES):
        table = printed(seed)
        found, is_asked = cut(tmp_path / f"{seed}.csv", table)
        if is_asked:
            asked += 1
            continue
        assert found is not None, f"{seed}: no table\n{table.text[:600]}"
        said = f"{seed}: {found.dialect}\n{table.text[:600]}\n...\n{table.text[-200:]}"
        assert list(found.names) == table.names, said
        assert [list(row) for row in found.rows] == table.rows, said
        assert found.num_rows == len(table.rows), said
    assert asked < TABLES / 20, f"{asked} of {TABLES} are asked about"
