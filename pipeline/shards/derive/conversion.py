"""Converts a field's stored numbers into what another recording means by them: another unit, or another gripper.

A conversion is a factor and an offset for each column. A schema with converted fields describes the converted numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.schemas.schema import ActionConstant, FieldSpec, ImageStream, Schema, Stream

__all__ = ["Conversion", "converted_schema"]


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
