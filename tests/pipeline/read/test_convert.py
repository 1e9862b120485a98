"""Units and quaternions are converted only as the schema declares."""

from __future__ import annotations

import numpy as np

from vlapipe.pipeline.read.convert import convert, is_converted
from vlapipe.schemas.schema import FieldSpec
from vlapipe.schemas.units import conversion_factor


def columns(*values: float) -> list[np.ndarray]:
    return [np.array([value]) for value in values]


def test_each_column_is_multiplied_by_its_own_factor() -> None:
    field = FieldSpec(name="pose", shape=(2,), scale=(conversion_factor("mm", "m"), 1.0))
    given = [np.array([1500, 250]), np.array([3.0, 4.0])]
    first, second = convert(given, field)
    assert first.tolist() == [1.5, 0.25]
    assert second.tolist() == [3.0, 4.0]
    assert given[0].tolist() == [1500, 250]


def test_degrees_become_the_radians_that_numpy_gives() -> None:
    angle = np.linspace(-720, 720, 1001)
    field = FieldSpec(name="q", scale=(conversion_factor("deg", "rad"),))
    assert np.array_equal(convert([angle], field)[0], np.deg2rad(angle))


def test_w_first_is_stored_last() -> None:
    field = FieldSpec(name="q", shape=(4,), quaternion="wxyz")
    assert [c[0] for c in convert(columns(1, 2, 3, 4), field)] == [2, 3, 4, 1]


def test_normalized_quaternion_has_length_one_and_the_zero_one_stays() -> None:
    field = FieldSpec(name="q", shape=(4,), quaternion="xyzw", normalize=True)
    assert [c[0] for c in convert(columns(0, 3, 0, 4), field)] == [0, 0.6, 0, 0.8]
    assert [c[0] for c in convert(columns(0, 0, 0, 0), field)] == [0, 0, 0, 0]


def test_what_declares_nothing_is_not_converted() -> None:
    assert not is_converted(FieldSpec(name="q", shape=(4,), quaternion="xyzw"))
    assert is_converted(FieldSpec(name="q", shape=(4,), quaternion="wxyz"))
