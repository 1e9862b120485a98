"""Converts declared units: gives the factor from the unit in the file to the unit that is stored."""

from __future__ import annotations

import math
import re

__all__ = ["conversion_factor", "known_units", "metres_of"]

# The size of each unit in the base unit of its kind. Only units of the same kind convert into each other.
_KINDS: dict[str, dict[str, float]] = {
    "length": {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "in": 0.0254},
    "angle": {"rad": 1.0, "deg": math.pi / 180, "turn": 2 * math.pi},
    "time": {"h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9},
    "mass": {"kg": 1.0, "g": 1e-3},
    "force": {"N": 1.0, "mN": 1e-3, "kN": 1e3},
    "torque": {"N*m": 1.0, "N*mm": 1e-3, "mN*m": 1e-3},
    "current": {"A": 1.0, "mA": 1e-3},
    "voltage": {"V": 1.0, "mV": 1e-3},
    "share": {"1": 1.0, "%": 1e-2},
}
_ALIASES = {"Nm": "N*m", "Nmm": "N*mm", "radian": "rad", "degree": "deg", "degrees": "deg", "radians": "rad"}
_POWER = re.compile(r"[1-9]\Z")


def known_units() -> list[str]:
    """Returns every unit that converts. A quotient of two, such as ``deg/s`` or ``m/s^2``, converts as well."""
    return sorted({*(unit for units in _KINDS.values() for unit in units), *_ALIASES})


def conversion_factor(source: str, target: str) -> float:
    """Returns the factor that converts a number from unit ``source`` to unit ``target``.

    Raises:
        ValueError: a unit is unknown, or the two units measure different things.
    """
    if source == target:
        return 1.0
    (kind_from, factor_from), (kind_to, factor_to) = _measure(source), _measure(target)
    if kind_from != kind_to:
        raise ValueError(f"{source!r} is a {kind_from}, {target!r} a {kind_to}")
    if kind_from == "angle":
        # This factor is bit for bit the one of numpy.deg2rad and numpy.rad2deg.
        pair = _ALIASES.get(source, source), _ALIASES.get(target, target)
        if pair == ("deg", "rad"):
            return math.pi / 180.0
        if pair == ("rad", "deg"):
            return 180.0 / math.pi
    return factor_from / factor_to


def metres_of(unit: str) -> float:
    """Returns the metres of a unit of length, which may be several of another one: ``"0.2 mm"``.

    Raises:
        ValueError: it is no unit of length.
    """
    number, blank, name = unit.partition(" ")
    times = float(number) if blank else 1.0
    if not 0 < times < math.inf:
        raise ValueError(f"unit {unit!r} is not known")
    kind, factor = _measure_one(name if blank else unit, unit)
    if kind != "length":
        raise ValueError(f"{unit!r} is a {kind}, not a length")
    return times * factor


def _measure(unit: str) -> tuple[str, float]:
    """Returns the kind of quantity that a unit measures, and the unit's size in base units."""
    top, *below = unit.split("/")
    kind, factor = _measure_one(top, unit)
    for part in below:
        name, caret, power = part.partition("^")
        part_kind, part_factor = _measure_one(name, unit)
        if caret and not _POWER.match(power):
            raise ValueError(f"unit {unit!r} is not known")
        exponent = int(power) if caret else 1
        kind += f"/{part_kind}^{exponent}" if exponent > 1 else f"/{part_kind}"
        factor /= part_factor**exponent
    return kind, factor


def _measure_one(name: str, whole: str) -> tuple[str, float]:
    name = _ALIASES.get(name, name)
    for kind, units in _KINDS.items():
        if name in units:
            return kind, units[name]
    raise ValueError(f"unit {whole!r} is not known")
