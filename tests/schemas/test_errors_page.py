"""docs/errors.md lists exactly the findings that the code can report."""

from __future__ import annotations

from pathlib import Path

from vlapipe.schemas.errors_page import errors_page
from vlapipe.schemas.findings import CODES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "errors.md"


def test_page_is_what_the_code_makes() -> None:
    assert PAGE.read_text(encoding="utf-8") == errors_page(), "run `make docs`"


def test_page_has_one_row_a_code_with_severity_meaning_and_cure() -> None:
    rows = [line for line in errors_page().splitlines() if line.startswith("| `")]
    assert len(rows) == len(CODES)
    for name, code in CODES.items():
        severity = f"{code.severity}, always" if code.fatal else code.severity
        assert f"| `{name}` | {severity} | {code.meaning} | {code.cure} |" in rows


def test_no_meaning_or_cure_breaks_the_table() -> None:
    assert not [name for name, code in CODES.items() if "|" in code.meaning + code.cure]
