"""Faults of ``robot_states.csv`` as recorders, disks, power cuts and spreadsheets cause them.

Each function breaks the file in the given episode folder and returns the fault's location. No other line changes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vlapipe.pipeline.demo.fault_location import FaultLocation

__all__ = ["CSV_DEFECTS", "FILE", "read_table", "write_table"]

FILE = "robot_states.csv"
NUM_NUL_BYTES = 512

Table = list[list[str]]


def read_table(episode: Path) -> Table:
    """Returns the cells of each line; the first line is the header."""
    return [line.split(",") for line in (episode / FILE).read_text("ascii").splitlines()]


def write_table(episode: Path, table: Table) -> None:
    """Write the cells of each line."""
    text = "".join(",".join(cells) + "\n" for cells in table)
    (episode / FILE).write_text(text, encoding="ascii", newline="")


def _middle(table: Table) -> int:
    """Return a row two thirds down the table. The row's line number is one more."""
    return len(table) * 2 // 3


def _set_cell(episode: Path, column: str, text: str, description: str) -> FaultLocation:
    table = read_table(episode)
    row = _middle(table)
    table[row][table[0].index(column)] = text
    write_table(episode, table)
    return FaultLocation(file=FILE, line=row + 1, column=column, description=description)


def missing_column(episode: Path) -> FaultLocation:
    """Remove a column from the header and all rows."""
    table = read_table(episode)
    at = table[0].index("joint_3")
    write_table(episode, [cells[:at] + cells[at + 1 :] for cells in table])
    return FaultLocation(file=FILE, line=1, column="joint_3", description="column joint_3 is missing")


def duplicate_column(episode: Path) -> FaultLocation:
    """Repeat a column after the last one."""
    table = read_table(episode)
    at = table[0].index("joint_5")
    write_table(episode, [[*cells, cells[at]] for cells in table])
    return FaultLocation(file=FILE, line=1, column="joint_5", description="column joint_5 stands there twice")


def nan_value(episode: Path) -> FaultLocation:
    """Write nan into a cell, as a driver without a value does."""
    return _set_cell(episode, "joint_4", "nan", "a joint angle is nan")


def inf_value(episode: Path) -> FaultLocation:
    """Write inf into a cell, as after a division by zero."""
    return _set_cell(episode, "pose_z", "inf", "a coordinate is infinite")


def empty_cell(episode: Path) -> FaultLocation:
    """Empty a cell."""
    return _set_cell(episode, "pose_a", "", "a cell is empty")


def text_in_number(episode: Path) -> FaultLocation:
    """Write text into a cell, as a driver that logs its errors among the numbers does."""
    return _set_cell(episode, "joint_1", "ERR", "a number's cell holds the text ERR")


def value_out_of_range(episode: Path) -> FaultLocation:
    """Write an angle that no joint can have."""
    return _set_cell(episode, "joint_2", "4000.0", "joint 2 is at 4000 degrees")


def clock_backwards(episode: Path) -> FaultLocation:
    """Set one stamp back by 1 s, as if the clock had been adjusted."""
    column = "origin_timestamp"
    table = read_table(episode)
    stamp = float(table[_middle(table)][table[0].index(column)])
    return _set_cell(episode, column, repr(stamp - 1.0), "one stamp is 1 s before its neighbours")


def ragged_row(episode: Path) -> FaultLocation:
    """Remove the last three cells of a row."""
    table = read_table(episode)
    row = _middle(table)
    table[row] = table[row][:-3]
    write_table(episode, table)
    return FaultLocation(file=FILE, line=row + 1, description="a row lacks its last 3 cells")


def extra_cells_row(episode: Path) -> FaultLocation:
    """Add two cells to a row."""
    table = read_table(episode)
    row = _middle(table)
    table[row] += ["0.0", "0.0"]
    write_table(episode, table)
    return FaultLocation(file=FILE, line=row + 1, description="a row has 2 cells too many")


def truncated_last_line(episode: Path) -> FaultLocation:
    """End the last row within a number, as if the recorder had been killed while writing."""
    table = read_table(episode)
    last = table[-1]
    text = "".join(",".join(cells) + "\n" for cells in table[:-1]) + ",".join([*last[:-4], last[-4][:5]])
    (episode / FILE).write_text(text, encoding="ascii", newline="")
    return FaultLocation(
        file=FILE, line=len(table), description="the last row ends within its 13th cell, without a newline"
    )


def empty_csv(episode: Path) -> FaultLocation:
    """Empty the file: it was opened and nothing was written."""
    (episode / FILE).write_bytes(b"")
    return FaultLocation(file=FILE, description="the CSV holds 0 bytes")


def header_only_csv(episode: Path) -> FaultLocation:
    """Remove every row and keep the header."""
    write_table(episode, read_table(episode)[:1])
    return FaultLocation(file=FILE, line=1, description="the CSV holds its header and no row")


def missing_csv(episode: Path) -> FaultLocation:
    """Remove the CSV."""
    (episode / FILE).unlink()
    return FaultLocation(file=FILE, description="there is no CSV")


def nul_bytes(episode: Path) -> FaultLocation:
    """Replace the end by NUL bytes, as after a power cut: the file's size reached the disk, the last block did not."""
    data = (episode / FILE).read_bytes()
    whole = data[:-NUM_NUL_BYTES]
    (episode / FILE).write_bytes(whole + bytes(NUM_NUL_BYTES))
    return FaultLocation(file=FILE, line=whole.count(b"\n") + 1, description=f"the last {NUM_NUL_BYTES} bytes are NUL")


CSV_DEFECTS: dict[str, Callable[[Path], FaultLocation]] = {
    function.__name__: function
    for function in (
        missing_column,
        duplicate_column,
        nan_value,
        inf_value,
        empty_cell,
        text_in_number,
        value_out_of_range,
        ragged_row,
        extra_cells_row,
        truncated_last_line,
        empty_csv,
        header_only_csv,
        missing_csv,
        clock_backwards,
        nul_bytes,
    )
}
