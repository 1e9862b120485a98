"""Says what a training sample holds: which fields, how many rows, how far apart; the schema gives the defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

import numpy as np

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import check_sample, parse_action
from vlapipe.schemas.schema import ActionConstant, ActionKind, ActionSpec, Rotation, SampleDefaults
from vlapipe.schemas.toml_table import TomlTable, did_you_mean
from vlapipe.train.data.arguments import parse_number, parse_whole_number

__all__ = ["Window", "measured_rate_hz"]

_WINDOWS = ("state", "sensor", "image", "action")


@dataclass(frozen=True, kw_only=True)
class Window:
    """What a sample holds around a frame; ``None`` takes the schema's default, and nothing is ingested again.

    State, sensor and image windows end at the frame, and the action chunk begins there. A window has ``*_rows`` rows,
    every ``*_stride``-th row. Instead of a stride, ``*_s`` says in seconds how long the window is: its rows are then
    ``*_s / *_rows`` apart in time, whatever the rate of a recording. ``*_s`` without ``*_rows`` takes as many rows as
    the stream has in that time.

    ``state`` names fields ``<stream>/<field>``, also of several streams, ``sensors`` gives names to fields, and
    ``cameras`` names cameras. ``action`` is a table like ``[action]`` of a schema; keys that it lacks are the schema's.
    ``action_form``, ``rotation`` and ``relative_to`` express the action in another way; see ``ActionForm``.
    ``ahead_rows`` observations follow after the frame, as far apart as the actions: T actions lie between T + 1
    observations. ``delta_timestamps`` gives the times of batch entries one by one, in seconds from the frame.
    """

    state: Sequence[str] | None = None
    sensors: Mapping[str, str] | None = None
    cameras: Sequence[str] | None = None
    action: Mapping[str, Any] | None = None
    state_rows: int | None = None
    sensor_rows: int | None = None
    image_rows: int | None = None
    action_rows: int | None = None
    state_stride: int | None = None
    sensor_stride: int | None = None
    image_stride: int | None = None
    action_stride: int | None = None
    state_s: float | None = None
    sensor_s: float | None = None
    image_s: float | None = None
    action_s: float | None = None
    ahead_rows: int | None = None
    action_form: str | None = None
    rotation: str | None = None
    relative_to: Sequence[str] | None = None
    delta_timestamps: Mapping[str, Sequence[float]] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value, what = getattr(self, field.name), f"Window {field.name}"
            if value is not None:
                object.__setattr__(self, field.name, _parsed(field.name, what, value))
        for name in _WINDOWS:
            if getattr(self, f"{name}_s") is not None and getattr(self, f"{name}_stride") is not None:
                raise UsageError(f"Window {name}_s and {name}_stride cannot both be given", "leave one of them away")

    @property
    def is_by_time(self) -> bool:
        """Whether any window is given in seconds."""
        return any(getattr(self, f"{name}_s") is not None for name in _WINDOWS)

    @classmethod
    def from_table(cls, sample: Mapping[str, Any], action: Mapping[str, Any], what: str = "[sample]") -> Window:
        """Make a window of the tables ``[sample]`` and ``[action]`` of training options.

        Raises:
            UsageError: a key is unknown, or its value cannot be used.
        """
        known = {field.name for field in fields(cls)} - {"action"}
        for key in sample:
            if key not in known:
                raise UsageError(f"{what}: unknown key {key!r}", did_you_mean(key, known, page="docs/options.md"))
        return cls(**sample, action=dict(action) or None)

    def choose(self, dataset: Dataset) -> Dataset:
        """Return the dataset with samples as this window says. Nothing is read but the manifest, or measured rates.

        Raises:
            UsageError: the dataset does not have what is chosen.
        """
        sample, schema = dataset.schema.sample, dataset.schema
        changes: dict[str, Any] = {
            name: tuple(getattr(self, name)) for name in ("state", "relative_to") if getattr(self, name) is not None
        }
        changes |= {
            name: getattr(self, name)
            for name in ("ahead_rows", "action_form", "rotation")
            if getattr(self, name) is not None
        }
        if self.sensors is not None:
            changes["sensors"] = tuple(self.sensors.items())
        if self.cameras is not None:
            changes["cameras"] = _known_cameras(self.cameras, dataset)
        if self.delta_timestamps is not None:
            changes["delta_timestamps"] = tuple((key, tuple(times)) for key, times in self.delta_timestamps.items())
        sample = replace(sample, **changes)
        for name in _WINDOWS:
            sample = replace(sample, **self._window(name, sample, dataset))
        action = schema.action if self.action is None else _parse_action(self.action, schema.action)
        if sample == schema.sample and action == schema.action:
            return dataset
        chosen = dataset.choose(sample, action)
        check_sample(TomlTable(f"{schema.name} with the chosen sample", "", {}), chosen.schema)
        _check_timestamps(chosen)
        return chosen

    def _window(self, name: str, sample: SampleDefaults, dataset: Dataset) -> dict[str, Any]:
        """The rows, stride and seconds of one window. A window in seconds stays one if only its rows are chosen."""
        rows, stride, window_s = (getattr(self, f"{name}_{what}") for what in ("rows", "stride", "s"))
        own_rows, own_s = getattr(sample, f"{name}_rows"), getattr(sample, f"{name}_s")
        if window_s is not None:
            if rows is None:
                rows = max(1, round(window_s * measured_rate_hz(dataset, _stream_of(name, sample, dataset))))
            return {f"{name}_rows": rows, f"{name}_s": window_s}
        if stride is not None:
            return {f"{name}_rows": rows or own_rows, f"{name}_stride": stride, f"{name}_s": None}
        if rows is not None:
            return {f"{name}_rows": rows, f"{name}_s": None if own_s is None else own_s / own_rows * rows}
        return {}

    def counted(self, dataset: Dataset) -> Window:
        """Return this window with the row counts of a chosen dataset, so that other datasets get the same counts."""
        sample = dataset.schema.sample
        return replace(self, **{f"{name}_rows": getattr(sample, f"{name}_rows") for name in _WINDOWS})


def _parsed(name: str, what: str, value: Any) -> Any:
    if name.endswith(("_rows", "_stride")):
        return parse_whole_number(what, value, least=0 if name == "ahead_rows" else 1)
    if name.endswith("_s"):
        return parse_number(what, value, least=1e-9)
    if name == "action_form" and value not in get_args(ActionKind):
        raise UsageError(f"{what} {value!r}: unknown", did_you_mean(str(value), get_args(ActionKind)))
    if name == "rotation" and value not in get_args(Rotation):
        raise UsageError(f"{what} {value!r}: unknown", did_you_mean(str(value), get_args(Rotation)))
    if name in ("state", "cameras", "relative_to"):
        texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else None
        if texts is None or not all(isinstance(text, str) for text in texts):
            raise UsageError(f"{what}: expected a list of names, found {value!r:.60}")
        if name == "state" and not texts:
            raise UsageError(f"{what}: a sample without a state", "name at least one field")
        return texts
    if name in ("sensors", "action", "delta_timestamps") and not isinstance(value, Mapping):
        raise UsageError(f"{what}: expected a table, found {value!r:.60}")
    if name == "delta_timestamps":
        return {str(key): _times(f"{what} {key}", times) for key, times in value.items()}
    return dict(value) if isinstance(value, Mapping) else value


def _times(what: str, times: Any) -> tuple[float, ...]:
    given = list(times) if isinstance(times, Sequence) and not isinstance(times, str) else []
    found = tuple(parse_number(what, time, least=-np.inf) for time in given)
    if not found or list(found) != sorted(found):
        raise UsageError(f"{what}: expected ascending numbers of seconds, found {times!r:.60}", "for example [-0.1, 0]")
    return found


def _known_cameras(cameras: Sequence[str], dataset: Dataset) -> tuple[str, ...]:
    for camera in cameras:
        if camera not in dataset.manifest.cameras:
            cure = did_you_mean(camera, dataset.manifest.cameras)
            raise UsageError(f"{dataset.place}: no camera {camera!r}", cure)
    return tuple(cameras)


def _parse_action(given: Mapping[str, Any], own: ActionSpec) -> ActionSpec:
    """Parse an ``[action]`` table; keys that it lacks are those of ``own``, without the times if the kind has none."""
    values: dict[str, Any] = {"kind": own.kind, "of": list(own.of), "append": {}}
    for constant in own.append:
        values["append"][constant.name] = _appended(constant)
    kind = given.get("kind", own.kind)
    if own.period_s and kind not in ("column", "next"):
        values |= {"period_s": own.period_s, "tolerance_s": own.tolerance_s}
    if "period_s" in given:
        values.pop("tolerance_s", None)
    return parse_action(TomlTable("of the chosen sample", "action", values | dict(given)))


def _appended(constant: ActionConstant) -> Any:
    if constant.field is None:
        return constant.value
    if constant.threshold is None:
        return {"field": constant.field}
    sides = {"above": constant.value, "below": constant.below}
    return {"field": constant.field, "threshold": constant.threshold, **sides}


def _check_timestamps(dataset: Dataset) -> None:
    sample = dataset.schema.sample
    entries = ["observation.state", "action", *(f"observation.sensors.{name}" for name, _ in sample.sensors)]
    entries += [f"observation.images.{camera}" for camera in dataset.cameras]
    for entry, _ in sample.delta_timestamps:
        if entry not in entries:
            raise UsageError(f"delta_timestamps: a sample has no entry {entry!r}", did_you_mean(entry, entries))


def _stream_of(window: str, sample: SampleDefaults, dataset: Dataset) -> str:
    """The stream whose rate says how many rows a window in seconds has."""
    if window == "sensor" and sample.sensors:
        return sample.sensors[0][1].partition("/")[0]
    if window == "image" and dataset.manifest.cameras:
        return (*(sample.cameras or ()), *dataset.manifest.cameras)[0]
    return dataset.schema.anchor


def measured_rate_hz(dataset: Dataset, stream: str) -> float:
    """Return the measured rate of a stream, the median over the episodes; else the declared rate, else 1."""
    measured = dataset.rate_hz(stream)
    if measured is not None:
        return measured
    declared = dataset.manifest.streams[stream].get("rate_hz")
    return float(declared) if declared else 1.0
