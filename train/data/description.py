"""Says in a user's words what the numbers of a sample are: names, units, rates, and the instructions that were seen.

Nothing here is needed to compute. A policy on a robot needs it: which value goes where, and how far apart rows are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.mapped.layout import STATE, sample_fields
from vlapipe.schemas.schema import FieldSpec, Schema
from vlapipe.train.data.dataset_group import IMAGES, SENSORS

__all__ = ["Description", "NamedField", "describe"]

_MOST_TASKS = 1000  # instructions that a checkpoint keeps
_SAME = 0.01  # relative: a measured rate so near the declared one is the declared one


@dataclass(frozen=True, kw_only=True)
class NamedField:
    """Neighbouring columns of a batch entry that are one field of the recordings.

    ``names``, ``unit`` and ``period`` have one entry a column, or none if they are unknown. A ``period`` of 0 means
    that the column does not repeat.
    """

    path: str  # <stream>/<field>
    num_columns: int
    names: tuple[str, ...] = ()
    unit: tuple[str, ...] = ()
    period: tuple[float, ...] = ()
    is_quaternion: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each column: its own, else the field's with a number."""
        field_name = self.path.rpartition("/")[2]
        if self.names or self.num_columns == 1:
            return self.names or (field_name,)
        return tuple(f"{field_name}[{i}]" for i in range(self.num_columns))

    @classmethod
    def of(cls, path: str, spec: FieldSpec) -> NamedField:
        """Returns the description of a field of a schema."""
        count = spec.num_columns

        def each(values: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(values[i % len(values)] for i in range(count)) if values else ()

        first = tuple(names[0] for names in spec.columns if names)
        in_file = first if spec.regex is None and len(first) == count else ()
        return cls(
            path=path,
            num_columns=count,
            names=spec.names if len(spec.names) == count else in_file,
            unit=each(spec.unit),
            period=each(spec.period),
            is_quaternion=spec.quaternion is not None,
        )


@dataclass(frozen=True, kw_only=True)
class Description:
    """Names, units, rates and instructions of what a policy was trained on. All are empty if they are unknown.

    ``fields``: batch key to its fields, in the order of the columns. Those of ``action`` are of recorded actions.
    ``rates_hz``: batch key to the rate of the rows of its window, or of the actions of a chunk. ``times_s``: batch key
    to the times of the rows from the frame, of a key whose rows are not evenly apart.
    ``action_kind`` and ``action_period_s``: how a recorded action follows from its fields, see ``ActionSpec``.
    ``tasks``: the instructions of the training split; None if they are unknown, or too many to keep.
    ``robots``: the fields of each robot, if several robots are padded to one size.
    """

    fields: Mapping[str, tuple[NamedField, ...]] = field(default_factory=dict)
    rates_hz: Mapping[str, float] = field(default_factory=dict)
    times_s: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    action_kind: str = ""
    action_period_s: float = 0.0
    tasks: tuple[str, ...] | None = None
    robots: Mapping[str, Mapping[str, tuple[NamedField, ...]]] = field(default_factory=dict)

    def fields_of(self, key: str, robot: str = "") -> tuple[NamedField, ...]:
        """The fields of a batch key, of ``robot`` if there are several."""
        return (self.robots.get(robot, {}) if self.robots else self.fields).get(key, ())

    def names_of(self, key: str, num_columns: int, robot: str = "") -> tuple[str, ...]:
        """A name for each column of a batch key; numbers if they are unknown."""
        found = tuple(label for each in self.fields_of(key, robot) for label in each.labels)
        return found if len(found) == num_columns else tuple(f"{key}[{i}]" for i in range(num_columns))

    def units_of(self, key: str, num_columns: int, robot: str = "") -> tuple[str, ...]:
        """The unit of each column of a batch key; empty texts if they are unknown."""
        found: list[str] = []
        for each in self.fields_of(key, robot):
            found += each.unit or ("",) * each.num_columns
        return tuple(found) if len(found) == num_columns else ("",) * num_columns

    def window_times_s(self, key: str, num_rows: int) -> NDArray[np.float64] | None:
        """The times from the frame of a window's rows up to the frame, ascending; None if they are unknown."""
        if key in self.times_s:
            return np.array(self.times_s[key], dtype=np.float64)
        rate = self.rates_hz.get(key)
        return None if rate is None else np.arange(1.0 - num_rows, 1.0) / rate

    def to_json(self) -> dict[str, Any]:
        """Returns the description as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Description:
        """Returns the description from the result of ``to_json``, also after it went through JSON."""

        def fields_of(entry: Mapping[str, Any]) -> dict[str, tuple[NamedField, ...]]:
            return {key: tuple(_named_field(each) for each in fields) for key, fields in entry.items()}

        return cls(
            fields=fields_of(values["fields"]),
            rates_hz=dict(values["rates_hz"]),
            times_s={key: tuple(times) for key, times in values["times_s"].items()},
            action_kind=values["action_kind"],
            action_period_s=values["action_period_s"],
            tasks=None if values["tasks"] is None else tuple(values["tasks"]),
            robots={robot: fields_of(entry) for robot, entry in values["robots"].items()},
        )


def describe(datasets: Sequence[Dataset], robots: Sequence[str], tasks: Sequence[str]) -> Description:
    """Returns the description of samples of these datasets, with the names and rates of the first one.

    Args:
        datasets: as a loader reads them, with the chosen sample.
        robots: the robot of each dataset, if they are padded to one size; else none.
        tasks: the instructions of the episodes.
    """
    first = datasets[0]
    schema, sample = first.schema, first.schema.sample
    is_known = len(tasks) <= _MOST_TASKS and all(d.schema.instruction.column is None for d in datasets)
    streams = {STATE: (schema.anchor, "state"), "action": (schema.anchor, "action")}
    streams |= {f"{SENSORS}{name}": (path.partition("/")[0], "sensor") for name, path in sample.sensors}
    streams |= {f"{IMAGES}{camera}": (camera, "image") for camera in first.cameras}
    times_s = dict(sample.delta_timestamps)
    rates = {key: _rate_hz(first, stream, window) for key, (stream, window) in streams.items() if key not in times_s}
    by_robot = {robot: _fields(each.schema) for each, robot in reversed([*zip(datasets, robots, strict=False)])}
    return Description(
        fields={} if by_robot else _fields(schema),
        rates_hz={key: rate for key, rate in rates.items() if rate is not None},
        times_s=times_s,
        action_kind=schema.action.kind,
        action_period_s=schema.action.period_s,
        tasks=tuple(tasks) if is_known else None,
        robots=by_robot,
    )


def _fields(schema: Schema) -> dict[str, tuple[NamedField, ...]]:
    entries = {key: paths for key, paths in sample_fields(schema).items() if key != "action"}
    found = {key: tuple(NamedField.of(path, schema.field(path)) for path in paths) for key, paths in entries.items()}
    action = [NamedField.of(path, schema.field(path)) for path in schema.action.of]
    for constant in schema.action.append:
        unit = schema.field(constant.field).unit if constant.field and constant.threshold is None else ()
        action.append(NamedField(path=constant.name, num_columns=1, unit=unit[:1]))
    return {**found, "action": tuple(action)}


def _rate_hz(dataset: Dataset, stream: str, window: str) -> float | None:
    """The rate of the rows of a window; None if the recordings do not say it."""
    sample = dataset.schema.sample
    num_rows, window_s = getattr(sample, f"{window}_rows"), getattr(sample, f"{window}_s")
    if window_s is not None:
        return float(num_rows / window_s)
    measured, declared = dataset.rate_hz(stream), dataset.manifest.streams[stream].get("rate_hz")
    rate = measured if measured is not None else declared
    if measured is not None and declared and abs(measured - declared) < _SAME * declared:
        rate = declared
    return None if rate is None else float(rate) / float(getattr(sample, f"{window}_stride"))


def _named_field(values: Mapping[str, Any]) -> NamedField:
    listed: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return NamedField(**listed)
