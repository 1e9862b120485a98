"""What a check found: a code, a severity, a place, what was expected, what was found, and the cure.

Every code that vlapipe can report is in ``CODES``; a finding with another code cannot be made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["CODES", "Code", "Finding", "Findings", "Severity"]

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, kw_only=True)
class Code:
    """One kind of finding. An ``error`` sets the episode aside; the others are reported and the episode is kept."""

    severity: Severity
    meaning: str
    cure: str


def _error(meaning: str, cure: str) -> Code:
    return Code(severity="error", meaning=meaning, cure=cure)


def _warning(meaning: str, cure: str) -> Code:
    return Code(severity="warning", meaning=meaning, cure=cure)


def _note(meaning: str, cure: str) -> Code:
    return Code(severity="note", meaning=meaning, cure=cure)


CODES: dict[str, Code] = {
    "file.missing": _error("a stream's file is not there", "record it again, or correct files in the schema"),
    "file.several": _error("more than one file fits one stream", "keep one, or make files in the schema narrower"),
    "file.unreadable": _error("the file cannot be read", "check its permissions and the disk"),
    "metadata.unreadable": _error("the metadata file is not a JSON object", "correct or remove it"),
    "instruction.unreadable": _error("the instruction file is not UTF-8 text", "save it as UTF-8"),
    "csv.empty": _error("the file holds nothing", "record it again"),
    "csv.header_only": _error("there is a header and no row", "record it again"),
    "csv.nul_bytes": _error("the file holds NUL bytes, as after a power cut", "record it again, or cut the file there"),
    "csv.encoding": _error("the file is not UTF-8 text", "convert it to UTF-8"),
    "csv.missing_column": _error("a column that the schema asks for is missing", "add its name as an alias"),
    "csv.duplicate_column": _error("two columns have the same name", "rename one of them"),
    "csv.ragged_row": _error("a row has too few or too many cells", "correct or delete the row"),
    "csv.missing_value": _error("a cell is empty", "correct or delete the row"),
    "csv.not_a_number": _error("a cell is not a number", "correct the cell, or the column's dtype in the schema"),
    "csv.not_finite": _error("a cell is NaN or infinite", "correct or delete the row"),
    "csv.out_of_range": _error("a value is outside the schema's range", "correct it, or widen range in the schema"),
    "csv.bad_time": _error("a stamp cannot be read", "correct it, or time in the schema"),
    "csv.unreadable": _error("the table cannot be read", "open it in an editor at that place"),
    "csv.columns_not_kept": _note("columns that the schema does not name", "declare them as fields, or list in drop"),
    "npz.unreadable": _error("the archive is cut short or damaged", "record it again"),
    "npz.missing_array": _error("an array that the schema asks for is missing", "correct array in the schema"),
    "npz.object_array": _error("the array holds Python objects, which only pickle can read", "save it as numbers"),
    "npz.shape": _error("an array has another shape than the schema says", "correct shape in the schema"),
    "npz.length": _error("an array and its timestamps differ in length", "record it again"),
    "npz.dtype": _error("an array is not numeric", "save it as numbers"),
    "npz.not_finite": _error("an array holds NaN or infinite values", "correct or cut the recording"),
    "npz.out_of_range": _error("a value is outside the schema's range", "correct it, or widen range in the schema"),
    "npz.rounded": _warning("values were rounded to the schema's dtype", "declare dtype = 'float64' to keep them all"),
    "image.none": _error("there is no image of any camera", "record them again, or correct files in the schema"),
    "image.missing_view": _error("a camera that other episodes have is missing", "record it again"),
    "image.extra_view": _warning("a camera that most episodes lack; not kept", "list it in views in the schema"),
    "image.bad_name": _error("an image's name is not a time", "rename it, or correct time in the schema"),
    "image.empty": _error("an image file holds nothing", "delete it, or record it again"),
    "image.not_jpeg": _error("an image is not a JPEG", "convert it to JPEG"),
    "image.truncated": _error("an image is cut short", "delete it, or record it again"),
    "image.size_changes": _error("images of one camera differ in size", "record it again, or split the episode"),
    "clock.backwards": _error("time runs backwards", "sort or cut the recording there"),
    "clock.duplicate": _warning("rows share one stamp", "check the recorder's clock"),
    "clock.no_overlap": _error(
        "two streams do not overlap in time", "check the recorders' clocks and time in the schema"
    ),
    "clock.rate": _warning("the rate is far from the one declared", "correct rate_hz, or check the recorder"),
    "pose.singular": _warning(
        "Euler angles near their singularity jump", "leave the pose out of the state, or train on joints"
    ),
    "episode.no_frames": _error("no row has both its streams and an action", "record longer, or check the clocks"),
    "episode.failed": _error("reading the episode failed", "report it with the message"),
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault at one place; ``count`` is how many of its kind stand in that file and column, this the first.

    ``file`` is relative to the dataset's folder, ``line`` counts from 1 and includes the header.
    """

    code: str
    file: str
    line: int | None = None
    column: str | None = None
    expected: str = ""
    found: str = ""
    count: int = 1

    @property
    def severity(self) -> Severity:
        """As ``CODES`` says."""
        return CODES[self.code].severity

    def __str__(self) -> str:
        place = self.file + (f":{self.line}" if self.line is not None else "")
        place += f": {self.column}" if self.column else ""
        code = CODES[self.code]
        what = f"expected {self.expected}, found {self.found}" if self.expected else self.found or code.meaning
        more = f" and {self.count - 1} more like it" if self.count > 1 else ""
        return f"{place}: {what}{more} ({code.cure}) [{self.code}]"

    def to_dict(self) -> dict[str, Any]:
        """As written to ``rejects.jsonl`` and to reports."""
        return {
            "code": self.code,
            "severity": self.severity,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "expected": self.expected,
            "found": self.found,
            "count": self.count,
            "message": str(self),
        }


class Findings:
    """Collects the findings of one episode; repeats of one kind in one file and column become a count."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str, str | None], Finding] = {}
        self._count: dict[tuple[str, str, str | None], int] = {}

    def add(
        self,
        code: str,
        file: str,
        *,
        line: int | None = None,
        column: str | None = None,
        expected: str = "",
        found: str = "",
        count: int = 1,
    ) -> None:
        """Record a finding; the first of its kind keeps its place."""
        assert code in CODES, code
        key = (code, file, column)
        finding = Finding(code=code, file=file, line=line, column=column, expected=expected, found=found)
        self._first.setdefault(key, finding)
        self._count[key] = self._count.get(key, 0) + count

    def __iter__(self) -> Iterator[Finding]:
        for key, finding in self._first.items():
            yield Finding(**{**vars(finding), "count": self._count[key]})

    def __len__(self) -> int:
        return len(self._first)

    @property
    def errors(self) -> list[Finding]:
        """Those for which the episode is set aside."""
        return [finding for finding in self if finding.severity == "error"]

    def extend(self, findings: Iterable[Finding]) -> None:
        """Take over findings made elsewhere."""
        for finding in findings:
            fields = {k: v for k, v in vars(finding).items() if k not in ("code", "file")}
            self.add(finding.code, finding.file, **fields)
