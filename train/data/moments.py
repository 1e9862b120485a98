"""Statistics of one batch entry: of one dataset or of several together, and which columns only flicker.

Training takes them from the manifests, so no row is read. Shape letters: D columns of an entry.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.dataset import Dataset, FieldSummary
from vlapipe.pipeline.shards.derive.actions import ACTION_VALUE
from vlapipe.pipeline.shards.derive.moments import merge_moments
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.schema import Schema

__all__ = ["FLICKER", "Moments", "entry_moments", "padded_moments", "pooled_moments", "spread", "with_floor"]

FLICKER = 2.5e-3  # share of the largest spread of its unit, up to which a column only flickers
_NARROW = 2e-3  # a column without a unit flickers only if its values also span no more than this share of their mean
_FAR = 20.0  # times the range of 98 % of the values: a value farther away than this may be a spike
_FEW = 3.0  # so many spikes, or one value in a thousand, do not change the spread

Numbers = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Statistics of one entry over the finite values of the train split.

    Arrays are float32. Their shape is that of one row of the entry, or ``(1,)``. A field of more than 64 numbers a row
    has only one number of each kind; in a state beside other fields, it is repeated for each of the field's columns. A
    constant column has std 0. If ``is_finite`` is false, the schema let NaN or infinite values through, and a batch
    holds these values unchanged. What is None is unknown.

    Of several datasets, ``mean``, ``std``, ``min`` and ``max`` are exactly those of all values together. Their
    quantiles ``q01`` and ``q99`` are the averages of the datasets' quantiles, weighted by the numbers of values.
    """

    mean: Numbers
    std: Numbers
    is_finite: bool = True
    min: Numbers | None = None
    max: Numbers | None = None
    q01: Numbers | None = None  # one value in a hundred is smaller
    q99: Numbers | None = None  # one value in a hundred is larger
    count: NDArray[np.float64] | None = None  # number of values
    floor: Numbers | None = None  # a column whose spread is not larger counts as constant


def spread(moments: Moments) -> tuple[Numbers, Numbers, NDArray[np.bool_]]:
    """Returns the centre and the spread of each column, and whether spikes were left out of both.

    They are mean and standard deviation. Instead, they come from the quantiles if very few values lie very far out, so
    that one broken reading does not ruin a column: at most 3 values or one in a thousand, more than 20 times as far as
    98 % of the values span. A column that is constant but for such values has spread 0.
    """
    mean, std = moments.mean.astype(np.float64), moments.std.astype(np.float64)
    nothing = np.zeros(mean.shape, dtype=np.bool_)
    if moments.min is None or moments.max is None or moments.q01 is None or moments.q99 is None:
        return moments.mean, moments.std, nothing
    if moments.count is None:
        return moments.mean, moments.std, nothing
    low, high = moments.q01.astype(np.float64), moments.q99.astype(np.float64)
    farthest = np.maximum(moments.max - mean, mean - moments.min)
    # k values at one distance, and all others near the mean, give the variance k / count * distance^2.
    num_far = moments.count * np.square(std / np.where(farthest > 0, farthest, 1))
    most = np.where(high > low, np.maximum(_FEW, moments.count / 1000), _FEW)
    is_spiked = (farthest > _FAR * (high - low)) & (num_far <= most) & (std > 1e-6 * np.abs(mean))
    centre = np.where(is_spiked, (low + high) / 2, mean)
    robust = np.where(is_spiked, (high - low) / 4, std)  # a sine spans 2.8 of its deviations, a normal one 4.7
    return centre.astype(np.float32), robust.astype(np.float32), is_spiked


def entry_moments(parts: Sequence[tuple[Dataset, tuple[str, ...]]], row_shape: tuple[int, ...]) -> Moments:
    """Returns the statistics of an entry: the fields ``<stream>/<field>`` side by side, of all datasets together.

    Raises:
        UsageError: the statistics of a dataset are not finite.
    """
    found = _merged([_counted(dataset, paths, row_shape) for dataset, paths in parts])
    dataset, paths = parts[0]
    return replace(found, floor=_floors(found, _kinds(dataset.schema, paths)))


def with_floor(actions: Moments, schema: Schema) -> Moments:
    """Returns statistics of a schema's actions with the spread below which each of their columns only flickers."""
    return replace(actions, floor=_floors(actions, _kinds(schema, (ACTION_VALUE,))))


def padded_moments(moments: Moments, own: int, size: int) -> Moments:
    """Returns statistics of ``own`` columns with further columns after them, which are 0 and of which no value counts.

    One number for all columns is repeated. The result's arrays are ``(size,)``.
    """

    def padded(values: Any) -> Any:
        return None if values is None else np.pad(np.broadcast_to(values, own), (0, size - own))

    return replace(moments, **{name: padded(getattr(moments, name)) for name in (*_NAMES, "count", "floor")})


def pooled_moments(parts: Sequence[Moments]) -> Moments:
    """Returns the statistics of all values together, of parts with the same columns; the floor is unknown."""
    return _merged(
        [
            _Counted(
                np.ones(len(part.mean)) if part.count is None else part.count,
                {name: np.asarray(getattr(part, name), dtype=np.float64) for name in _NAMES},
                part.is_finite,
            )
            for part in parts
        ]
    )


@dataclass(frozen=True)
class _Counted:
    """Statistics of one dataset's entry; ``values`` by name. Each array has the shape of one row, or ``(1,)``."""

    count: NDArray[np.float64]
    values: dict[str, NDArray[np.float64]]
    is_finite: bool


_NAMES = ("mean", "std", "min", "max", "q01", "q99")


def _counted(dataset: Dataset, paths: tuple[str, ...], row_shape: tuple[int, ...]) -> _Counted:
    stats = [dataset.stats[path] for path in paths]
    for path, summary in zip(paths, stats, strict=True):
        if not (np.isfinite(summary.mean).all() and np.isfinite(summary.std).all()):
            cure = "ingest again: statistics are now over the finite values"
            raise UsageError(f"{dataset.place}: the statistics of {path} are not finite", cure)
    if len(paths) == 1:
        widths = [len(stats[0].mean)]
        shape = row_shape if row_shape and math.prod(row_shape) == widths[0] else (1,)
    else:
        widths = [dataset.schema.field(path).num_columns for path in paths]
        shape = row_shape

    def joined(name: str) -> NDArray[np.float64]:
        each = [np.asarray(getattr(summary, name), dtype=np.float64) for summary in stats]
        columns = [np.broadcast_to(values, width) for values, width in zip(each, widths, strict=True)]
        return np.concatenate(columns).reshape(shape)

    is_finite = all(_are_all_counted(dataset, path, summary) for path, summary in zip(paths, stats, strict=True))
    return _Counted(joined("count"), {name: joined(name) for name in _NAMES}, is_finite)


def _are_all_counted(dataset: Dataset, path: str, summary: FieldSummary) -> bool:
    """Whether a field's statistics count all of its values, which means that all of them are finite."""
    if path == ACTION_VALUE:
        return True  # a row whose action would not be finite has no action
    in_train = dataset.column("split") == "train"
    num_rows = int(dataset.column(f"{path.partition('/')[0]}/rows")[in_train].sum())
    a_row = dataset.schema.field(path).num_columns // len(summary.mean)
    return bool((np.asarray(summary.count) == num_rows * a_row).all())


def _merged(parts: list[_Counted]) -> Moments:
    """Merge statistics of several datasets into the statistics of all their values together."""
    values, count = dict(parts[0].values), parts[0].count
    if len(parts) > 1:
        each = [(part.count, part.values["mean"], part.count * part.values["std"] ** 2) for part in parts]
        count, values["mean"], m2 = merge_moments(each)
        values["std"] = np.sqrt(m2 / np.maximum(count, 1))
        # A column without any value has limits and quantiles of 0, which say nothing.
        for name, limit, of in (("min", np.inf, np.minimum), ("max", -np.inf, np.maximum)):
            limits = of.reduce([np.where(part.count > 0, part.values[name], limit) for part in parts])
            values[name] = np.where(count > 0, limits, 0.0)
        for name in ("q01", "q99"):
            values[name] = sum(part.count * part.values[name] for part in parts) / np.maximum(count, 1)
    arrays = {name: array.astype(np.float32) for name, array in values.items()}
    return Moments(**arrays, is_finite=all(part.is_finite for part in parts), count=count)


def _kinds(schema: Schema, paths: tuple[str, ...]) -> list[tuple[str, str]]:
    """Returns what each column measures: ``("unit", "rad")``, or ``("field", path)`` if its unit is not declared."""
    kinds: list[tuple[str, str]] = []
    for path in schema.action.of if paths == (ACTION_VALUE,) else paths:
        field = schema.field(path)
        units = [field.unit[i % len(field.unit)] if field.unit else "" for i in range(field.num_columns)]
        kinds += [("unit", unit) if unit else ("field", path) for unit in units]
    if paths == (ACTION_VALUE,):
        kinds += [("field", f"append/{constant.name}") for constant in schema.action.append]
    return kinds


def _floors(moments: Moments, kinds: list[tuple[str, str]]) -> Numbers:
    """Returns the spread below which each column only flickers, beside the columns that measure the same."""
    centre, spreads, _ = spread(moments)
    floors = np.zeros(spreads.shape, dtype=np.float32)
    if len(kinds) != spreads.size or moments.q01 is None or moments.q99 is None:
        return floors  # one number for a wide field
    flat = floors.reshape(-1)
    is_narrow = (moments.q99 - moments.q01) <= _NARROW * np.abs(centre)
    for kind in set(kinds):
        alike = np.array([other == kind for other in kinds])
        counts = alike if kind[0] == "unit" else alike & is_narrow.reshape(-1)
        flat[counts] = FLICKER * spreads.reshape(-1)[alike].max()
    return floors
