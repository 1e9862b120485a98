"""Units convert only as declared, and only between units of the same quantity."""

from __future__ import annotations

import math

import pytest

from vlapipe.schemas.units import conversion_factor, known_units


@pytest.mark.parametrize(
    ("source", "target", "factor"),
    [
        ("deg", "rad", math.pi / 180),
        ("rad", "deg", 180 / math.pi),
        ("mm", "m", 1e-3),
        ("m", "mm", 1e3),
        ("deg/s", "rad/s", math.pi / 180),
        ("deg/min", "deg/s", 1 / 60),
        ("h", "min", 60.0),
        ("mm/s^2", "m/s^2", 1e-3),
        ("m/s", "mm/ms", 1.0),
        ("Nm", "N*mm", 1e3),
        ("no unit at all", "no unit at all", 1.0),
    ],
)
def test_factor(source: str, target: str, factor: float) -> None:
    assert conversion_factor(source, target) == pytest.approx(factor, rel=1e-15)


@pytest.mark.parametrize(
    ("source", "target"),
    [("deg", "m"), ("mm/s", "mm"), ("furlong", "m"), ("m/s", "m/s^2"), ("m/s^x", "mm/s"), ("m/s^0", "mm")],
)
def test_things_of_different_kinds_do_not_convert(source: str, target: str) -> None:
    with pytest.raises(ValueError, match=r"is a|is not known"):
        conversion_factor(source, target)


@pytest.mark.parametrize("unit", known_units())
def test_every_unit_converts_to_itself_and_back(unit: str) -> None:
    others = [other for other in known_units() if _converts(unit, other)]
    assert unit in others
    for other in others:
        assert conversion_factor(unit, other) * conversion_factor(other, unit) == pytest.approx(1, rel=1e-15)


def _converts(source: str, target: str) -> bool:
    try:
        conversion_factor(source, target)
    except ValueError:
        return False
    return True
