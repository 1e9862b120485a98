"""Errors and findings: their text, and that they survive pickling between processes."""

from __future__ import annotations

import pickle

import pytest

from vlapipe.schemas.errors import DamageError, NewerFormatError, NotADatasetError, UsageError, VlapipeError
from vlapipe.schemas.findings import CODES, Finding, Findings


@pytest.mark.parametrize("kind", [DamageError, NewerFormatError, NotADatasetError, UsageError, VlapipeError])
def test_error_survives_pickling(kind: type[VlapipeError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what is wrong", "what would help")))  # noqa: S301 - our own bytes
    assert type(error) is kind
    assert str(error) == "what is wrong (what would help)"


def test_finding_says_place_expected_found_and_cure() -> None:
    finding = Finding(
        code="csv.not_finite", file="ep/robot.csv", line=118, column="joint_3", expected="degrees", found="'nan'"
    )
    assert str(finding) == (
        "ep/robot.csv:118: joint_3: expected degrees, found 'nan' (correct or delete the row) [csv.not_finite]"
    )


def test_repeats_in_one_column_become_a_count_at_the_first_place() -> None:
    findings = Findings()
    for line in (5, 9, 12):
        findings.add("csv.not_finite", "a.csv", line=line, column="x", found="'nan'")
    findings.add("csv.not_finite", "a.csv", line=5, column="y", found="'nan'")
    first, second = findings
    assert (first.line, first.count, second.count) == (5, 3, 1)
    assert "and 2 more" in str(first)


def test_unknown_code_cannot_be_reported() -> None:
    with pytest.raises(AssertionError):
        Findings().add("csv.no_such_code", "a.csv")


def test_every_code_has_a_meaning_and_a_cure() -> None:
    assert all(code.meaning and code.cure for code in CODES.values())
