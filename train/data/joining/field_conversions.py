"""Decides how the fields of one dataset become those of another: units and grippers that both schemas declare.

What is not declared on both sides is never converted; ``train.data.joining.dataset_comparison`` refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vlapipe.pipeline.shards.derive.conversion import Conversion
from vlapipe.schemas.schema import FieldSpec, Schema
from vlapipe.schemas.units import conversion_factor

__all__ = ["conversion_of", "field_conversions", "field_pairs", "gripper_of"]


def field_conversions(first: Schema, other: Schema) -> dict[str, Conversion]:
    """Returns the conversions of ``other``'s fields, by their path, that give them the meaning they have in ``first``.

    Fields of a sample belong together by their place in the state, in the action, or by the sensor entry. A field that
    would have to become two things is not converted.
    """
    found: dict[str, Conversion | None] = {}
    for ours, theirs in field_pairs(first, other):
        conversion = conversion_of(first.field(ours), other.field(theirs))
        if found.setdefault(theirs, conversion) != conversion:
            found[theirs] = None
    return {path: conversion for path, conversion in found.items() if conversion is not None}


def field_pairs(first: Schema, other: Schema) -> Iterator[tuple[str, str]]:
    """Returns each field of a sample of the first schema with the one that it belongs to in the other schema."""
    yield from zip(first.sample.state, other.sample.state, strict=False)
    yield from zip(first.action.of, other.action.of, strict=False)
    sensors = dict(other.sample.sensors)
    yield from ((path, sensors[name]) for name, path in first.sample.sensors if name in sensors)
    appended = {constant.name: constant.field for constant in other.action.append}
    for constant in first.action.append:
        theirs = appended.get(constant.name)
        if constant.field and theirs:
            yield constant.field, theirs


def conversion_of(ours: FieldSpec, theirs: FieldSpec) -> Conversion | None:
    """Returns the conversion of a field that means ``theirs`` into ``ours``; ``None`` if it is the same, or undeclared.

    A field of whole numbers is not converted, because its dtype could not hold the result.
    """
    if ours.shape != theirs.shape or "float" not in theirs.dtype:
        return None
    if ours.words and theirs.words:
        return _by_points(_words(ours), _words(theirs), ours, theirs)
    ours_open, theirs_open = gripper_of(ours), gripper_of(theirs)
    if ours_open and theirs_open:
        to, of = (dict(zip(("open", "closed"), each, strict=True)) for each in (ours_open, theirs_open))
        return _by_points(to, of, ours, theirs)
    return _by_units(ours, theirs)


def _words(field: FieldSpec) -> dict[str, float]:
    return {word.casefold(): value for word, value in field.words}


def gripper_of(field: FieldSpec) -> tuple[float, float] | None:
    """Returns a field's numbers of an open and of a closed gripper: the key ``gripper``, or the words that say so."""
    if field.gripper:
        return field.gripper
    words = _words(field)
    return (words["open"], words["closed"]) if {"open", "closed"} <= set(words) else None


def _by_points(to: dict[str, float], of: dict[str, float], ours: FieldSpec, theirs: FieldSpec) -> Conversion | None:
    """The conversion that maps each point of ``of`` to the one of the same name in ``to``, if there is one."""
    if set(to) != set(of) or len(set(of.values())) < 2:
        return None
    low, high = min(of, key=of.__getitem__), max(of, key=of.__getitem__)
    scale = (to[high] - to[low]) / (of[high] - of[low])
    offset = to[low] - of[low] * scale
    if scale == 0 or any(abs(of[name] * scale + offset - to[name]) > 1e-9 * (1 + abs(to[name])) for name in of):
        return None
    return _conversion([scale], [offset], ours, theirs)


def _by_units(ours: FieldSpec, theirs: FieldSpec) -> Conversion | None:
    if not ours.unit or not theirs.unit or ours.unit == theirs.unit or bool(ours.words) != bool(theirs.words):
        return None
    try:
        scale = [conversion_factor(a, b) for a, b in zip(theirs.unit, ours.unit, strict=True)]
    except ValueError:
        return None
    return _conversion(scale, [0.0] * len(scale), ours, theirs)


def _conversion(scale: list[float], offset: list[float], ours: FieldSpec, theirs: FieldSpec) -> Conversion | None:
    if set(scale) == {1.0} and set(offset) == {0.0}:
        return None
    field = replace(
        theirs,
        unit=ours.unit,
        period=tuple(period * factor for period, factor in zip(theirs.period, scale, strict=False)),
        words=ours.words,
        gripper=ours.gripper,
    )
    return Conversion(scale=tuple(scale), offset=tuple(offset), field=field)
