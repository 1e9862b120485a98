"""Quaternions whose length is not 1, and Euler angles at their singularity, for each convention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from streams_under_test import rows_of, stream_of, ticks

from vlapipe.pipeline.check.poses import check_poses
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import FieldSpec


def check(field: FieldSpec, values: Any, missing: Any = None) -> list[Finding]:
    fields: dict[str, Any] = {field.name: np.asarray(values, dtype=field.dtype)}
    if missing is not None:
        assert field.mask is not None
        fields[field.mask.name] = np.asarray(missing, dtype=np.uint8)
    findings = Findings()
    check_poses(rows_of(ticks(len(values)), **fields), stream_of(field), findings)
    return list(findings)


def quaternion(**values: Any) -> FieldSpec:
    columns = (("qx",), ("qy",), ("qz",), ("qw",))
    return FieldSpec(name="q", columns=columns, shape=(4,), quaternion="xyzw", **values)


def test_quaternion_of_another_length_is_an_error_with_its_line() -> None:
    values = np.tile([0.0, 0.6, 0.0, 0.8], (10, 1))
    assert check(quaternion(), values) == []
    values[3:5] *= 1.01
    [finding] = check(quaternion(), values)
    assert (finding.code, finding.severity, finding.line, finding.count) == ("pose.not_unit", "error", 5, 2)
    assert finding.found == "length 1.01"


def test_six_printed_digits_are_unit_enough() -> None:
    values = np.random.default_rng(0).normal(size=(1000, 4))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    assert check(quaternion(), values.round(4)) == []


def test_missing_quaternion_is_passed_over_and_one_of_zeros_is_not() -> None:
    values = np.tile([0.0, 0.0, 0.0, 1.0], (3, 1))
    values[1] = 0
    missing = np.zeros((3, 4))
    missing[1] = 1
    assert check(quaternion(on_missing="mask"), values, missing) == []
    assert [f.line for f in check(quaternion(normalize=True), values)] == [3]


@pytest.mark.parametrize(
    ("euler", "unit", "near", "far"),
    [
        ("XYZ", "deg", [90.5, -89.5, 269.5], [0.0, 88, -92]),
        ("xyz", "rad", [1.57, -1.5708], [0.0, 1.5, 3.14159]),
        ("ZXZ", "deg", [0.5, -0.5, 179.5, -180], [90.0, 2, 178]),
        ("zyz", "rad", [0.01, 3.1416], [1.57]),
    ],
)
def test_middle_angle_near_the_singularity_of_its_convention(
    euler: str, unit: str, near: list[float], far: list[float]
) -> None:
    columns = (("x",), ("a",), ("b",), ("c",))
    field = FieldSpec(name="pose", columns=columns, shape=(4,), euler=euler, unit=("mm", unit, unit, unit))
    values = np.full((len(far) + len(near), 4), 0.3)
    values[:, 2] = far + near
    [finding] = check(field, values)
    assert (finding.code, finding.column, finding.line) == ("pose.singular", "b", len(far) + 2)
    assert finding.count == len(near)
    assert check(field, values[: len(far)]) == []
