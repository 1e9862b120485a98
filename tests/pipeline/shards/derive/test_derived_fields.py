"""Rotations as six numbers, compared to composed axis rotations, to known values, and between the input conventions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlapipe.pipeline.shards.derive.derived_fields import matrix_of_euler, matrix_of_quaternion, rotation_6d
from vlapipe.schemas.schema import FieldSpec

CONVENTIONS = [
    a + b + c
    for axes in ("XYZ", "xyz")
    for a in axes
    for b in axes
    for c in axes
    if a != b != c
]  # fmt: skip
angles = st.lists(st.floats(-400, 400), min_size=3, max_size=3)


def turn(axis: str, radians: float) -> list[list[float]]:
    c, s = math.cos(radians), math.sin(radians)
    return {
        "X": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "Y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "Z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }[axis.upper()]


def product(a: list[list[float]], b: list[list[float]]) -> list[list[float]]:
    return [[sum(a[i][k] * b[k][j] for k in range(3)) for j in range(3)] for i in range(3)]


def by_hand(convention: str, degrees: list[float]) -> list[list[float]]:
    """A turn about a moving axis is applied before those that came first, one about a fixed axis after them."""
    matrix = [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]
    for axis, angle in zip(convention, degrees, strict=True):
        step = turn(axis, math.radians(angle))
        matrix = product(matrix, step) if convention.isupper() else product(step, matrix)
    return matrix


def euler_field(convention: str, unit: str, columns: int = 3) -> FieldSpec:
    return FieldSpec(name="pose", shape=(columns,), euler=convention, unit=("mm",) * (columns - 3) + (unit,) * 3)


@pytest.mark.parametrize("convention", CONVENTIONS)
@given(degrees=angles)
def test_euler_angles_of_each_convention_equal_turns_composed_by_hand(convention: str, degrees: list[float]) -> None:
    found = rotation_6d(euler_field(convention, "deg"), np.array([degrees]))
    matrix = by_hand(convention, degrees)
    expected = [matrix[row][column] for column in (0, 1) for row in range(3)]
    assert found.dtype == np.float32
    assert np.allclose(found[0], expected, atol=1e-6)


def test_angles_are_the_last_three_columns_and_in_the_fields_unit() -> None:
    degrees = np.array([[5, 6, 7, 10, 20, 30]], dtype=np.float64)
    radians = np.concatenate([degrees[:, :3], np.deg2rad(degrees[:, 3:])], axis=1)
    plain = rotation_6d(euler_field("XYZ", "deg"), degrees[:, 3:])
    assert np.array_equal(rotation_6d(euler_field("XYZ", "deg", 6), degrees), plain)
    assert np.allclose(rotation_6d(euler_field("XYZ", "rad", 6), radians), plain, atol=1e-7)


QUATERNION = FieldSpec(name="q", shape=(4,), quaternion="wxyz")  # the order in the file; xyzw is stored


@pytest.mark.parametrize(
    ("xyzw", "expected"),
    [
        ([0, 0, 0, 1], [1, 0, 0, 0, 1, 0]),
        ([1, 0, 0, 0], [1, 0, 0, 0, -1, 0]),  # half a turn about x
        ([0, 0, math.sqrt(0.5), math.sqrt(0.5)], [0, 1, 0, -1, 0, 0]),  # a quarter turn about z: x becomes y
        ([math.sqrt(0.5), 0, 0, math.sqrt(0.5)], [1, 0, 0, 0, 0, 1]),  # a quarter turn about x: y becomes z
        ([0, math.sqrt(0.5), 0, math.sqrt(0.5)], [0, 0, -1, 0, 1, 0]),  # a quarter turn about y: x becomes -z
        ([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 0, 0, 1]),  # a third of a turn about the diagonal: x to y to z
        ([0, 0, 0, 0], [0, 0, 0, 0, 0, 0]),  # missing
    ],
)
def test_known_quaternions(xyzw: list[float], expected: list[float]) -> None:
    assert np.allclose(rotation_6d(QUATERNION, np.array([xyzw], dtype=np.float32)), [expected], atol=1e-6)


@given(
    axis=st.lists(st.floats(-1, 1), min_size=3, max_size=3).filter(lambda a: math.hypot(*a) > 0.1),
    angle=st.floats(-10, 10),
    length=st.floats(0.1, 10),
)
def test_quaternion_turns_as_rodrigues_formula_does_whatever_its_length_and_sign(
    axis: list[float], angle: float, length: float
) -> None:
    unit = np.array(axis) / math.hypot(*axis)
    quaternion = np.append(unit * math.sin(angle / 2), math.cos(angle / 2))
    both = matrix_of_quaternion(np.stack([quaternion * length, -quaternion]))
    cross = np.array([[0, -unit[2], unit[1]], [unit[2], 0, -unit[0]], [-unit[1], unit[0], 0]])
    rodrigues = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    assert np.allclose(both, rodrigues, atol=1e-9)


@given(radians=st.lists(st.floats(-7, 7), min_size=3, max_size=3))
def test_moving_axes_are_fixed_axes_in_the_other_order(radians: list[float]) -> None:
    moving = matrix_of_euler(np.array([radians]), "XYZ")
    assert np.allclose(moving, matrix_of_euler(np.array([radians[::-1]]), "zyx"))
    assert np.allclose(moving[0] @ moving[0].T, np.eye(3))
