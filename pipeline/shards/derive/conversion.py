"""Converts a field's stored numbers into what another recording means by them: another unit, or another gripper.

A conversion is a factor and an offset for each column. A schema with converted fields describes the converted numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.actions import ACTION_VALUE
from vlapipe.schemas.schema import ActionConstant, FieldSpec, ImageStream, Schema, Stream

__all__ = ["Conversion", "composed", "converted_schema", "converted_statistics"]


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Column ``i`` of a field becomes ``column * scale[i] + offset[i]``; ``field`` describes the result."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    field: FieldSpec

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Returns the converted values ``(rows, ...)`` in their own dtype; computed in float64 and rounded once."""
        flat = values.reshape(len(values), -1).astype(np.float64) * self._of_columns(self.scale, values)
        flat += self._of_columns(self.offset, values)
        with np.errstate(over="ignore"):
            return flat.astype(values.dtype).reshape(values.shape)

    def _of_columns(self, each: tuple[float, ...], values: NDArray[Any]) -> NDArray[np.float64]:
        """The number of each column of a flat row: those of the last dimension, repeated."""
        num_columns = int(np.prod(values.shape[1:], dtype=int))
        return np.resize(np.array(each), num_columns)


def composed(first: Mapping[str, Conversion], then: Mapping[str, Conversion]) -> dict[str, Conversion]:
    """Returns the conversions, by field, that have the effect of ``first`` and after it ``then``."""
    both = {path: _composed(first[path], then[path]) for path in first.keys() & then.keys()}
    return {**first, **then, **both}


def _composed(first: Conversion, then: Conversion) -> Conversion:
    scale, offset = np.array(first.scale) * then.scale, np.array(first.offset) * then.scale + then.offset
    return Conversion(scale=tuple(scale.tolist()), offset=tuple(offset.tolist()), field=then.field)


def converted_schema(schema: Schema, conversions: Mapping[str, Conversion]) -> Schema:
    """Returns the schema of converted numbers: fields, and the thresholds of appended action columns.

    ``conversions`` are by ``<stream>/<field>``.
    """

    def of_stream(stream: Stream) -> Stream:
        if isinstance(stream, ImageStream):
            return stream
        fields = tuple(
            conversions[path].field if (path := f"{stream.name}/{field.name}") in conversions else field
            for field in stream.fields
        )
        return replace(stream, fields=fields)

    append = tuple(_with_threshold(constant, conversions) for constant in schema.action.append)
    streams = tuple(of_stream(stream) for stream in schema.streams)
    return replace(schema, streams=streams, action=replace(schema.action, append=append))


def _with_threshold(constant: ActionConstant, conversions: Mapping[str, Conversion]) -> ActionConstant:
    conversion = conversions.get(constant.field or "")
    if conversion is None or constant.threshold is None:
        return constant
    [scale], [offset] = conversion.scale, conversion.offset
    threshold = constant.threshold * scale + offset
    if scale > 0:
        return replace(constant, threshold=threshold)
    return replace(constant, threshold=threshold, value=constant.below, below=constant.value)  # what was above is below


_LEVELS = ("mean", "min", "max", "q01", "q10", "q50", "q90", "q99")
_MIRRORED = {"min": "max", "q01": "q99", "q10": "q90", "q50": "q50", "q90": "q10", "q99": "q01", "max": "min"}
Statistics = Mapping[str, Mapping[str, Any]]


def converted_statistics(statistics: Statistics, schema: Schema, conversions: Mapping[str, Conversion]) -> Statistics:
    """Returns the statistics, by field and ``action/value``, of the converted numbers.

    ``schema`` has the action that ``action/value`` belongs to. Of each field, the arrays have one entry a column, or
    one entry if the field is wide.
    """
    if not conversions:
        return statistics
    factors = {path: (conversion.scale, conversion.offset) for path, conversion in conversions.items()}
    factors[ACTION_VALUE] = _of_action(schema, conversions)
    return {path: _scaled(each, *factors[path]) if path in factors else each for path, each in statistics.items()}


def _scaled(one: Mapping[str, Any], scale: tuple[float, ...], offset: tuple[float, ...]) -> dict[str, Any]:
    factor, shift = (np.resize(np.array(each), len(one["mean"])) for each in (scale, offset))
    levels = {name: np.asarray(one[name]) * factor + shift for name in _LEVELS}
    mirrored = {name: np.where(factor < 0, levels[_MIRRORED.get(name, name)], levels[name]) for name in _LEVELS}
    return {**one, **mirrored, "std": np.asarray(one["std"]) * np.abs(factor)}


def _of_action(schema: Schema, conversions: Mapping[str, Conversion]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The factor and the offset of each column of the action. The offset of a change is 0."""
    scale: list[float] = []
    offset: list[float] = []
    for path in schema.action.of:
        conversion, num_columns = conversions.get(path), schema.field(path).num_columns
        scale += [1.0] * num_columns if conversion is None else np.resize(conversion.scale, num_columns).tolist()
        is_moved = conversion is not None and schema.action.kind != "delta"
        offset += np.resize(conversion.offset, num_columns).tolist() if is_moved and conversion else [0.0] * num_columns
    for constant in schema.action.append:
        conversion = conversions.get(constant.field or "") if constant.threshold is None else None
        scale.append(conversion.scale[0] if conversion else 1.0)
        offset.append(conversion.offset[0] if conversion else 0.0)
    return tuple(scale), tuple(offset)
