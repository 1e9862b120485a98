"""A field of one dataset becomes that of another if both schemas say what the numbers mean, and never otherwise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from vlapipe.pipeline.shards.derive.conversion import converted_schema
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.schema import Schema
from vlapipe.train.data.joining.field_conversions import field_conversions

COLUMNS = "joint = { columns = ['a', 'b'], KEYS }"
GRIPPER = "grip = { columns = ['g'], KEYS }"


def make(field: str, keys: str, action: str = "of = ['robot/FIELD']", sample: str = "") -> Schema:
    name = field.partition(" ")[0]
    return parse_schema(
        f"""
        [streams.robot]
        kind = "csv"
        files = ["robot.csv"]
        time = {{ column = "t" }}
        [streams.robot.fields]
        {field.replace(", KEYS", f", {keys}" if keys else "")}
        [action]
        kind = "absolute"
        period_s = 0.1
        {action.replace("FIELD", name)}
        [sample]
        state = ["robot/{name}"]
        {sample}
        """,
        "test",
    )


def convert(field: str, to: str, of: str, values: list[Any]) -> list[Any] | None:
    """Values of the other dataset, as they are after the conversion; None if there is no conversion."""
    conversions = field_conversions(make(field, to), make(field, of))
    name = field.partition(" ")[0]
    if f"robot/{name}" not in conversions:
        assert not conversions
        return None
    return conversions[f"robot/{name}"].apply(np.array(values, dtype=np.float32)).tolist()


def test_declared_units_are_converted_to_the_first() -> None:
    found = convert(COLUMNS, "unit = 'rad'", "unit = 'deg'", [[180, -90], [0, 45]])
    assert found == [[np.float32(math.pi), np.float32(-math.pi / 2)], [0, np.float32(math.pi / 4)]]
    mixed = convert(COLUMNS, "unit = ['m', 'deg']", "unit = ['mm', 'rad']", [[1500, math.pi]])
    assert mixed == [[1.5, pytest.approx(180)]]


@pytest.mark.parametrize(
    ("to", "of"),
    [
        ("unit = 'rad'", "unit = 'rad'"),
        ("unit = 'rad'", ""),
        ("", "unit = 'deg'"),
        ("unit = 'rad'", "unit = 'mm'"),
        ("unit = 'rad'", "unit = 'deg', dtype = 'int32'"),
    ],
)
def test_undeclared_or_incomparable_units_are_not_converted(to: str, of: str) -> None:
    assert convert(COLUMNS, to, of, [[1, 2]]) is None


@pytest.mark.parametrize(
    ("to", "of", "values", "expected"),
    [
        # Open and closed at other widths, in another unit, and the other way round.
        ("gripper = { open = 0.08, closed = 0 }", "gripper = { open = 0.1, closed = 0.02 }", [0.1, 0.02], [0.08, 0]),
        (
            "unit = 'm', gripper = { open = 0.08, closed = 0 }",
            "unit = '%', gripper = { open = 0, closed = 100 }",
            [0, 50, 100],
            [0.08, 0.04, 0],
        ),
        ("words = { open = 1, closed = 0 }", "words = { OPEN = 0, CLOSED = 255 }", [0, 255], [1, 0]),
        ("words = { open = 1, closed = 0 }", "gripper = { open = 850, closed = 0 }", [850, 425], [1, 0.5]),
        ("gripper = { open = 1, closed = 0 }", "words = { closed = 7, open = 3 }", [3, 7], [1, 0]),
        ("words = { a = 1, b = 2, c = 3 }", "words = { b = 20, c = 30, a = 10 }", [10, 20, 30], [1, 2, 3]),
    ],
)
def test_declared_grippers_and_words_are_converted_to_the_first(
    to: str, of: str, values: list[float], expected: list[float]
) -> None:
    assert convert(GRIPPER, to, of, values) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("to", "of"),
    [
        ("gripper = { open = 0.08, closed = 0 }", ""),
        ("", "gripper = { open = 0.08, closed = 0 }"),
        ("words = { open = 1, closed = 0 }", "words = { open = 1, shut = 0 }"),
        ("words = { a = 1, b = 2, c = 3 }", "words = { a = 1, b = 2, c = 5 }"),
        ("words = { on = 1, off = 0 }", "gripper = { open = 1, closed = 0 }"),
        ("words = { open = 1, closed = 0 }", "words = { open = 1, closed = 0 }"),
    ],
)
def test_a_gripper_that_one_side_does_not_declare_is_not_converted(to: str, of: str) -> None:
    assert convert(GRIPPER, to, of, [1]) is None


def test_schema_of_the_converted_numbers_has_their_unit_period_and_threshold() -> None:
    to, of = make(COLUMNS, "unit = 'deg'"), make(COLUMNS, f"unit = 'rad', period = {2 * math.pi}")
    field = converted_schema(of, field_conversions(to, of)).field("robot/joint")
    assert field.unit == ("deg", "deg")
    assert field.period == pytest.approx((360, 360))
    action = "of = ['robot/grip']\nappend = { g = { field = 'robot/grip', threshold = T, above = 1, below = 0 } }"
    to = make(GRIPPER, "unit = 'm', gripper = { open = 0.08, closed = 0 }", action.replace("T", "0.02"))
    of = make(GRIPPER, "gripper = { open = 0, closed = 100 }", action.replace("T", "75"))
    [appended] = converted_schema(of, field_conversions(to, of)).action.append
    assert appended.threshold == pytest.approx(0.02)
    assert (appended.value, appended.below) == (0, 1)  # above 75 was closed: it is below 0.02 now


def test_field_that_would_have_to_become_two_things_is_not_converted() -> None:
    two = "joint = { columns = ['a', 'b'], unit = 'rad' }\nfar = { columns = ['c', 'd'], unit = 'deg' }"
    to = make(two, "", action="of = ['robot/far']")
    of = make(COLUMNS, "unit = 'mrad'".replace("mrad", "turn"), action="of = ['robot/FIELD']")
    assert field_conversions(to, of) == {}


def test_values_of_several_dimensions_are_converted_by_their_last() -> None:
    conversions = field_conversions(make(COLUMNS, "unit = ['m', 'rad']"), make(COLUMNS, "unit = ['mm', 'rad']"))
    values = np.ones((3, 4, 2), dtype=np.float64)
    assert conversions["robot/joint"].apply(values)[0, 0].tolist() == [0.001, 1.0]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("gripper = { open = 1 }", "missing key 'closed'"),
        ("gripper = { open = 1, closed = 1 }", "open and closed are the same number"),
        ("gripper = { open = 1, closed = 0, half = 2 }", "unknown key 'half'"),
        ("gripper = { open = 1, closed = 0 }, words = { open = 1, closed = 0 }", "words has these numbers already"),
        ("dtype = 'text', gripper = { open = 1, closed = 0 }", "gripper: a field of text has none"),
    ],
)
def test_impossible_grippers_are_refused(keys: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(GRIPPER, keys)


def test_gripper_of_several_numbers_is_refused_and_its_unit_is_the_files() -> None:
    with pytest.raises(UsageError, match="gripper: a field with one number a row"):
        make(COLUMNS, "gripper = { open = 1, closed = 0 }")
    assert make(GRIPPER, "unit = 'mm', to = 'm', gripper = { open = 80, closed = 0 }").field("robot/grip").gripper == (
        0.08,
        0.0,
    )
