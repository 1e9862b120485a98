"""Checks that the samples of several datasets mean the same, and reports all differences in one error.

A batch mixes the datasets' samples, and a policy cannot tell which dataset a row comes from. So the datasets must agree
in fields, units, shapes, the times that windows and chunks span, and the way actions follow from fields. The names of
streams may differ, and so may the stream that is the anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.mapped.layout import STATE
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.schema import ActionConstant, DerivedSpec, FieldSpec, Schema
from vlapipe.train.data.dataset_group import row_shapes
from vlapipe.train.data.window_size import Window

__all__ = ["require_alike"]

_RATE_RATIO = 1.15  # measured rates of clocks with the same declared rate differ by less
_MOST_SHOWN = 20


@dataclass(frozen=True)
class _Rate:
    hz: float

    def __str__(self) -> str:
        return f"{self.hz:.4g} Hz"


_Meaning = dict[str, str | _Rate]


def require_alike(datasets: Sequence[Dataset], window: Window) -> None:
    """Compare each dataset with the first. ``window`` is the user's; for a count of ``None``, the schemas must agree.

    Raises:
        UsageError: the samples differ; the message names each difference (the first 20) and the two datasets.
    """
    if len(datasets) == 1:
        return
    first, *others = datasets
    entries, details = _entries(first), _details(first, window)
    found = []
    for other in others:
        their_entries, their_details = _entries(other), _details(other, window)
        pairs: list[tuple[str, str | _Rate, str | _Rate]] = [
            (entry, entries.get(entry, "no such entry"), their_entries.get(entry, "no such entry"))
            for entry in dict.fromkeys([*entries, *their_entries])
        ]
        pairs += [(what, ours, their_details[what]) for what, ours in details.items() if what in their_details]
        found += [
            f"{other.path}: {what}: expected {ours} as in {first.path}, found {theirs}"
            for what, ours, theirs in pairs
            if _differ(ours, theirs)
        ]
    if found:
        more = f"; and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
        cure = "ingest them by schemas that mean the same (`to` converts a unit), or train on each alone"
        raise UsageError("; ".join(found[:_MOST_SHOWN]) + more, cure)


def _differ(one: str | _Rate, other: str | _Rate) -> bool:
    if isinstance(one, _Rate) and isinstance(other, _Rate):
        return max(one.hz, other.hz) > _RATE_RATIO * min(one.hz, other.hz)
    return one != other


def _entries(dataset: Dataset) -> dict[str, str]:
    """Describe each batch entry by the shape of one row; images, which may be resized, by the form of storage."""
    rows = {entry: f"rows of shape {shape}" for entry, shape in row_shapes(dataset.schema).items()}
    images = {
        f"observation.images.{camera}": f"images stored as {dataset.manifest.image_storage(camera)}"
        for camera in dataset.cameras
    }
    return rows | images


def _details(dataset: Dataset, window: Window) -> _Meaning:
    """Describe the meaning of the entries' numbers, by a name for messages.

    A name is compared only if both datasets have it.
    """
    schema = dataset.schema
    sample = resolved = schema.sample
    details: _Meaning = {f"{STATE}: fields": _named(sample.state)}
    details |= {f"{STATE}: {_name(path)}": _field(schema, path) for path in sample.state}
    details |= {f"observation.sensors.{name}: numbers": _field(schema, path) for name, path in sample.sensors}
    details |= {f"observation.sensors.{name}: clock": _clock(schema, path) for name, path in sample.sensors}
    details |= _action(schema)
    used = ["state", "action", *(["sensor"] if sample.sensors else []), *(["image"] if dataset.cameras else [])]
    for name in used:
        for what in ("rows", "stride", "s"):
            if getattr(window, f"{name}_{what}") is None and getattr(window, f"{name}_s") is None:
                value = getattr(sample, f"{name}_{what}")
                details[f"[sample] {name}_{what}"] = "none" if value is None else f"{value:g}"

    def add_rate(what: str, stream: str) -> None:
        hz = _rate_hz(dataset, stream)
        if hz is not None:
            details[f"{what}: rate"] = _Rate(hz)

    # A window of one row means the same at any rate, unless the action is the value of the next row.
    of_anchor = (resolved.state_rows != 1 and resolved.state_s is None) or resolved.ahead_rows
    if of_anchor or (resolved.action_rows != 1 and resolved.action_s is None) or schema.action.kind == "next":
        add_rate(f"{STATE} and action", schema.anchor)
    if resolved.sensor_rows != 1 and resolved.sensor_s is None:
        for name, path in sample.sensors:
            add_rate(f"observation.sensors.{name}", path.partition("/")[0])
    if resolved.image_rows != 1 and resolved.image_s is None:
        for camera in dataset.cameras:
            add_rate(f"observation.images.{camera}", camera)
    return details


def _clock(schema: Schema, path: str) -> str:
    """Whose clock the rows of a sensor entry lie on."""
    return "the anchor's" if path.partition("/")[0] == schema.anchor else "a stream's own"


def _action(schema: Schema) -> _Meaning:
    action = schema.action
    details: _Meaning = {"action: kind": action.kind, "action: fields": _named(action.of)}
    details |= {f"action: {_name(path)}": _field(schema, path) for path in action.of}
    if action.kind in ("delta", "absolute"):
        details["action: period_s"] = f"{action.period_s:g} s"
    if action.kind == "delta":
        details |= {f"action: {_name(path)} repeats": _period(schema.field(path)) for path in action.of}
    details["action: append"] = ", ".join(_appended(schema, constant) for constant in action.append) or "nothing"
    return details


def _appended(schema: Schema, constant: ActionConstant) -> str:
    if constant.field is None:
        return f"{constant.name} = {constant.value:g}"
    of = f"{constant.name} by {_name(constant.field)} {_field(schema, constant.field)}"
    if constant.threshold is None:
        return of
    return f"{of}, {constant.value:g} above {constant.threshold:g} and else {constant.below:g}"


def _name(path: str) -> str:
    """A field's name without its stream, which may have another name in another dataset."""
    return path.partition("/")[2]


def _named(paths: Sequence[str]) -> str:
    return ", ".join(map(_name, paths))


def _field(schema: Schema, path: str) -> str:
    """Describe a field's numbers: their count and unit, and an Euler convention or words that stand for numbers."""
    field = schema.field(path)
    units = dict.fromkeys(field.unit)
    unit = ", ".join(units if len(units) == 1 else field.unit) or "no declared unit"
    parts = [f"{field.num_columns} in {unit}"]
    if field.euler:
        parts.append(f"euler {field.euler}")
    if field.words:
        parts.append(", ".join(f"{word} = {value:g}" for word, value in field.words))
    derived = _derived(schema, path)
    if derived is not None:
        parts.append(f"{derived.kind} of {derived.of}")
    return ", ".join(parts)


def _derived(schema: Schema, path: str) -> DerivedSpec | None:
    stream, _, name = path.partition("/")
    derived = getattr(schema.stream(stream), "derived", ())
    return next((each for each in derived if each.name == name), None)


def _period(field: FieldSpec) -> str:
    return f"after {', '.join(f'{period:g}' for period in field.period)}" if any(field.period) else "never"


def _rate_hz(dataset: Dataset, stream: str) -> float | None:
    """The measured rate, the median over the episodes; the declared rate if every episode has only one time."""
    names = ("rows", "first_s", "last_s")
    rows, first_s, last_s = (dataset.column(f"{stream}/{name}").astype(np.float64) for name in names)
    long = last_s > first_s
    if not long.any():
        declared: float | None = dataset.manifest.streams[stream].get("rate_hz")
        return declared
    return float(np.median((rows[long] - 1) / (last_s - first_s)[long]))
