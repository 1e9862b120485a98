"""Rows with a cell that cannot be used: left out, if the schema says so, or told row by row in a file of many episodes.

Otherwise one such row refuses its whole file, and nothing of this module is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.stream_rows import RowFaults
from vlapipe.schemas.findings import CODES, Findings
from vlapipe.schemas.schema import CsvStream

__all__ = ["RAGGED", "FaultyRows", "all_but", "fill_clock"]

RAGGED = "csv.ragged_row"
# What on_bad = "drop" leaves out. A missing cell follows on_missing; faults that are the schema's stay errors.
_DROPPED = frozenset(
    {
        RAGGED,
        "csv.not_a_number",
        "csv.unknown_word",
        "csv.not_a_list",
        "csv.not_finite",
        "csv.out_of_range",
        "csv.text_too_long",
        "csv.bad_time",
    }
)


@dataclass(kw_only=True)
class FaultyRows:
    """Collects the faults of rows, instead of findings, while a file is read. Rows are numbered as the file has them.

    ``tolerated`` holds the codes of such faults. A fault with another code is an error of the whole file. A row with a
    fault in ``left_out`` is left out.
    """

    tolerated: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()
    faults: list[RowFaults] = field(default_factory=list)

    @classmethod
    def of(cls, stream: CsvStream, *, in_parts: bool) -> FaultyRows:
        """Returns the collection for a stream. ``in_parts``: only one of the file's episodes may suffer from a row."""
        left_out = _DROPPED if stream.on_bad == "drop" else frozenset()
        tolerated = frozenset(CODES) if in_parts else left_out
        # If rows are counted to find their times, a line that is no row would shift all later ones.
        return cls(tolerated=tolerated - {RAGGED} if stream.time.counts_rows else tolerated, left_out=left_out)

    def takes(self, code: str, findings: Findings) -> bool:
        """Returns whether a fault is collected; warnings and notes are reported as always."""
        return code in self.tolerated and findings.severity_of(code) == "error"

    def add(
        self,
        code: str,
        file: str,
        column: str | None,
        expected: str,
        rows: Any,
        lines: Any,
        found: Sequence[str],
    ) -> None:
        """Adds faults of one kind; ``rows`` and ``lines`` have an entry for each, ``found`` may end early.

        Lines that are no rows are numbered as the row that follows them. A cell may be looked at more than once; its
        fault is added once.
        """
        fault = RowFaults(
            code=code,
            file=file,
            column=column,
            expected=expected,
            rows=np.array(rows, dtype=np.int64),
            lines=np.array(lines, dtype=np.int64),
            found=tuple(found),
        )
        same = [other.rows for other in self.faults if (other.code, other.column) == (code, column) and code != RAGGED]
        fresh = np.flatnonzero(~np.isin(fault.rows, np.concatenate(same))) if same else np.arange(len(fault.rows))
        if len(fresh):
            self.faults.append(fault.at(fault.rows[fresh], fresh))

    def rows(self, num_rows: int) -> NDArray[np.bool_]:
        """Returns a mask of the rows that have a fault, among ``num_rows``."""
        return _mask(self.faults, num_rows)

    def dropped(self, num_rows: int) -> NDArray[np.bool_]:
        """Returns a mask of the rows that are left out for a fault."""
        return _mask([fault for fault in self.faults if fault.code in self.left_out], num_rows)

    def settle(self, kept: NDArray[np.int64], findings: Findings) -> tuple[RowFaults, ...]:
        """Reports the faults of rows that were left out. Returns the other faults, numbered as the rows ``kept``."""
        told = []
        for fault in self.faults:
            if fault.code in self.left_out:
                fault.report(findings, "csv.bad_rows_dropped")
                continue
            if fault.code == RAGGED:  # a line that is no row is told with the row before it
                here = np.arange(len(fault.rows))
                rows = np.maximum(np.searchsorted(kept, fault.rows) - 1, 0)
            else:
                here = np.flatnonzero(np.isin(fault.rows, kept))
                rows = np.searchsorted(kept, fault.rows[here])
            told.append(fault.at(rows, here))
        return tuple(told)


def _mask(faults: Sequence[RowFaults], num_rows: int) -> NDArray[np.bool_]:
    mask = np.zeros(num_rows, dtype=np.bool_)
    for fault in faults:
        if fault.code != RAGGED:  # such a line is no row
            mask[fault.rows] = True
    return mask


def all_but(kept: NDArray[np.int64], faulty: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Returns the rows of ``kept`` that are not faulty."""
    return kept[~faulty[kept]]


def fill_clock(timestamp: NDArray[Any], good: NDArray[np.int64], kept: NDArray[np.int64]) -> NDArray[Any]:
    """Returns the stamps of the rows ``good`` for all rows ``kept``: a faulty row repeats the stamp before it."""
    return timestamp[np.maximum(np.searchsorted(good, kept, side="right") - 1, 0)]
