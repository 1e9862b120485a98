"""Parts lines from the stamp that a terminal program puts in front of each, as Arduino's: ``12:01:33.123 -> 1,2,3``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vlapipe.pipeline.infer.choices import Question
from vlapipe.pipeline.infer.text.header import Header
from vlapipe.schemas.schema import WHITESPACE, Dialect

__all__ = ["StampedLines", "stamped_lines"]

_FRONT = re.compile(r"(\[?)((?:\d{4}-\d\d-\d\d[T ])?\d?\d:\d\d:\d\d(?:[.,]\d+)?)(\] ?| ?-> ?)")
_MOSTLY = 0.95
_SHOWN = 40
_NAME = "received"  # by the terminal


@dataclass(frozen=True)
class StampedLines:
    """The stamp of each line, what stands before and behind it, and the rest of each line."""

    stamps: tuple[str, ...]
    before: str
    behind: str
    lines: tuple[str, ...]
    others: tuple[str, ...]  # lines in which nothing stands behind a stamp

    def put_back(self, header: Header) -> tuple[Header, list[str]]:
        """Returns the header and the lines of a table whose first column is the stamp."""
        names = (_NAME, *(["row"] if header.dialect.index_column else []), *header.names)
        parts = " " if header.dialect.delimiter == WHITESPACE else header.dialect.delimiter
        lines = [f"{stamp}{parts}{line}" for stamp, line in zip(self.stamps, self.lines, strict=True)]
        dialect = replace(header.dialect, header_rows=0, names=(names,), comment="", index_column=False)
        units = ("",) * (len(names) - len(header.units)) + header.units
        reason = f"a stamp and {self.behind.strip()!r} stand in front of each line: the column {_NAME!r}"
        questions = [*header.questions, *self._without_stamp()]
        return (
            replace(header, dialect=dialect, names=names, units=units, reasons=(reason,), questions=tuple(questions)),
            lines,
        )

    def _without_stamp(self) -> list[Question]:
        """Returns a question if lines have no stamp in front: no row is made of them."""
        if not self.others:
            return []
        about = f"{len(self.others)} lines without a stamp, such as {self.others[0][:_SHOWN]!r}"
        return [Question(about, "no rows", 'row_line = "..."', "rows", "a regular expression that finds them too")]

    def row_line(self, dialect: Dialect, first_row: int) -> Dialect:
        """Returns the dialect of a schema: a regular expression finds the rows, the lines above them left out.

        It finds rows with too few or too many cells too, so that the reader reports them.
        """
        parts, cell = re.escape(dialect.delimiter), f"([^{re.escape(dialect.delimiter)}]*)"
        if dialect.delimiter == WHITESPACE:
            parts, cell = r"[ \t]+", r"(\S*)"
        above = "|".join(dict.fromkeys(re.escape(line) for line in self.lines[:first_row] if line))
        first, *others = [*[cell] * (len(dialect.names[0]) - 2), "(.*?)"]
        cells = first + "".join(f"(?:{parts}{other})?" for other in others)
        only = f"(?!(?:{above})$)" if above else ""
        find = f"^{re.escape(self.before)}(.*?){re.escape(self.behind)}{only}{cells}(?:{parts})?$"
        return Dialect(
            encoding=dialect.encoding, decimal=dialect.decimal, header_rows=0, names=dialect.names, row_line=find
        )


def stamped_lines(lines: Sequence[str]) -> StampedLines | None:
    """Returns the parts of the lines if nearly all have such a stamp in front."""
    found = [(_FRONT.match(line), line) for line in lines]
    kinds = Counter((match[1], match[3]) for match, _ in found if match is not None)
    (before, behind), count = kinds.most_common(1)[0] if kinds else (("", ""), 0)
    if count < max(2, _MOSTLY * sum(map(bool, lines))):
        return None
    ours = [match if match is not None and (match[1], match[3]) == (before, behind) else None for match, _ in found]
    return StampedLines(
        stamps=tuple(match[2] if match else "" for match in ours),
        before=before,
        behind=behind,
        lines=tuple(line[match.end() :].rstrip() if match else "" for match, line in zip(ours, lines, strict=True)),
        others=tuple(
            line
            for match, line in zip(ours, lines, strict=True)
            if match is None and line.strip() and behind not in line
        ),
    )
