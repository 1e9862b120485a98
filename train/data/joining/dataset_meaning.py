"""Describes what the numbers of a dataset's samples mean, fact by fact, for comparison with other datasets.

A batch mixes the datasets' samples, and a policy cannot tell which dataset a row comes from. So the datasets must agree
in fields, units, shapes, the times that windows and chunks span, and the way actions follow from fields. The names of
streams may differ, and so may the stream that is the anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.mapped.layout import STATE
from vlapipe.schemas.schema import ActionConstant, DerivedSpec, FieldSpec, Schema
from vlapipe.train.data.dataset_group import row_shapes
from vlapipe.train.data.joining.field_conversions import gripper_of
from vlapipe.train.data.window_size import Window, measured_rate_hz

__all__ = ["MISSING", "NOT_SAID", "Done", "Fact", "Row", "meaning", "of_robot"]

_RATE_RATIO = 1.15  # measured rates of clocks with the same declared rate differ by less

_FIELDS = "choose the same fields for all, by [sample] state, sensors and cameras"
_DECLARE = "declare unit, gripper or words in both schemas and ingest again: what both declare is converted"
_ACTION = "choose one [action] for all, which then say kind, of, period_s and append in the same way"
_SECONDS = "give windows in seconds, which are the same time at any rate: state_s, action_s, sensor_s, image_s"
_ROBOTS = 'say embodiments = "pad" to train on several robots'
_ROWS = "say how many rows a window has, in [sample]"


Done = Literal["same", "converted", "refused", "padded", "look swapped", "look unlike"]


@dataclass(frozen=True)
class Fact:
    """One thing that datasets must agree on: its text, and the cure if they do not. ``hz`` is a rate, or 0."""

    text: str
    cure: str
    hz: float = 0.0

    def differs(self, other: Fact) -> bool:
        """Whether the two facts are not the same. Measured rates are the same if they are near each other."""
        if self.hz and other.hz:
            return max(self.hz, other.hz) > _RATE_RATIO * min(self.hz, other.hz)
        return self.text != other.text


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing that was compared: what each dataset says, in the order of the datasets, and what is done about it."""

    what: str
    found: tuple[str, ...]
    done: Done


MISSING = Fact("no such entry", _FIELDS)
NOT_SAID = Fact("-", "")  # a further fact that a dataset does not have


def meaning(dataset: Dataset, schema: Schema, window: Window) -> tuple[dict[str, Fact], dict[str, Fact]]:
    """Returns the facts of the batch entries, which all datasets must have, and further facts.

    The further facts of two datasets are compared if both have them.

    Args:
        dataset: gives the measured rates and the cameras.
        schema: the dataset's schema, perhaps with converted fields.
        window: the user's; what it leaves open, the schemas must agree on.
    """
    rows = {entry: Fact(f"rows of shape {shape}", _FIELDS) for entry, shape in row_shapes(schema).items()}
    images = {f"observation.images.{camera}": _seen_by(dataset, camera) for camera in dataset.cameras}
    sample = schema.sample
    details = {"embodiment": Fact(schema.embodiment, _ROBOTS)} if schema.embodiment else {}
    details |= {f"{STATE}: fields": Fact(_named(sample.state), _FIELDS)}
    details |= {f"{STATE}: {_name(path)}": _field(schema, path) for path in sample.state}
    for name, path in sample.sensors:
        clock = "the anchor's" if path.partition("/")[0] == schema.anchor else "a stream's own"
        details[f"observation.sensors.{name}: numbers"] = _field(schema, path)
        details[f"observation.sensors.{name}: clock"] = Fact(clock, _FIELDS)
    details |= _action(schema)
    details |= _windows(schema, window, bool(dataset.cameras))
    details |= _rates(dataset, schema)
    return rows | images, details


def _seen_by(dataset: Dataset, camera: str) -> Fact:
    unit = dataset.manifest.depth_unit(camera)
    return Fact(
        "colours" if unit is None else f"depth in {unit}", "say the same unit in both schemas, and ingest again"
    )


def of_robot(entries: dict[str, Fact], details: dict[str, Fact], robot: str) -> tuple[dict[str, Fact], dict[str, Fact]]:
    """Returns the facts of ``meaning`` so that those of state and action are compared only within a robot."""
    own = {
        what: fact
        for what, fact in (entries | details).items()
        if what in (STATE, "action") or what.startswith((f"{STATE}: ", "action: "))
    }
    of_all = {what: fact for what, fact in details.items() if what not in own and what != "embodiment"}
    named = {f"{what} of {robot}": fact for what, fact in own.items()}
    return {what: fact for what, fact in entries.items() if what not in own}, of_all | named


def _windows(schema: Schema, window: Window, has_cameras: bool) -> dict[str, Fact]:
    """What the user's window leaves to the schemas: rows, strides and seconds."""
    sample = schema.sample
    used = ["state", "action", *(["sensor"] if sample.sensors else []), *(["image"] if has_cameras else [])]
    facts = {}
    for name in used:
        for what in ("rows", "stride", "s"):
            if getattr(window, f"{name}_{what}") is None and getattr(window, f"{name}_s") is None:
                value = getattr(sample, f"{name}_{what}")
                facts[f"[sample] {name}_{what}"] = Fact("none" if value is None else f"{value:g}", _ROWS)
    return facts


def _rates(dataset: Dataset, schema: Schema) -> dict[str, Fact]:
    """The measured rates on which the times of windows depend.

    A window of one row means the same at any rate, unless the action is the value of the next row. So does a window in
    seconds.
    """
    sample = schema.sample
    rates: dict[str, str] = {}
    by_rows = any(
        getattr(sample, f"{name}_rows") != 1 and getattr(sample, f"{name}_s") is None for name in ("state", "action")
    )
    if by_rows or sample.ahead_rows or schema.action.kind == "next":
        rates[f"{STATE} and action"] = schema.anchor
    if sample.sensor_rows != 1 and sample.sensor_s is None:
        rates |= {f"observation.sensors.{name}": path.partition("/")[0] for name, path in sample.sensors}
    if sample.image_rows != 1 and sample.image_s is None:
        rates |= {f"observation.images.{camera}": camera for camera in dataset.cameras}
    facts = {}
    for what, stream in rates.items():
        hz = measured_rate_hz(dataset, stream)
        spans = _spans(schema, hz) if stream == schema.anchor else ""
        facts[f"{what}: rate"] = Fact(f"{hz:.4g} Hz{spans}", _SECONDS, hz)
    return facts


def _spans(schema: Schema, hz: float) -> str:
    """The times that the windows of the anchor span at a rate, for messages."""
    sample, spans = schema.sample, []
    if sample.state_rows > 1 and sample.state_s is None:
        spans.append(f"state {(sample.state_rows - 1) * sample.state_stride / hz:.3g} s")
    if sample.action_rows > 1 and sample.action_s is None:
        spans.append(f"chunk {(sample.action_rows - 1) * sample.action_stride / hz:.3g} s")
    return f" ({', '.join(spans)})" if spans else ""


def _action(schema: Schema) -> dict[str, Fact]:
    action = schema.action
    facts = {"action: kind": Fact(action.kind, _ACTION), "action: fields": Fact(_named(action.of), _ACTION)}
    facts |= {f"action: {_name(path)}": _field(schema, path) for path in action.of}
    if action.kind in ("delta", "absolute"):
        facts["action: period_s"] = Fact(f"{action.period_s:g} s", _ACTION)
    if action.kind == "delta":
        facts |= {f"action: {_name(path)} repeats": _period(schema.field(path)) for path in action.of}
    appended = ", ".join(_appended(schema, constant) for constant in action.append)
    facts["action: append"] = Fact(appended or "nothing", _ACTION)
    return facts


def _appended(schema: Schema, constant: ActionConstant) -> str:
    if constant.field is None:
        return f"{constant.name} = {constant.value:g}"
    of = f"{constant.name} by {_name(constant.field)} {_field(schema, constant.field).text}"
    if constant.threshold is None:
        return of
    return f"{of}, {constant.value:g} above {constant.threshold:g} and else {constant.below:g}"


def _name(path: str) -> str:
    """A field's name without its stream, which may have another name in another dataset."""
    return path.partition("/")[2]


def _named(paths: Sequence[str]) -> str:
    return ", ".join(map(_name, paths))


def _field(schema: Schema, path: str) -> Fact:
    """Describe a field's numbers: their count and unit, and what declares a rotation, a gripper or words."""
    field = schema.field(path)
    units = dict.fromkeys(field.unit)
    unit = ", ".join(units if len(units) == 1 else field.unit) or "no declared unit"
    parts = [f"{field.num_columns} in {unit}"]
    if field.euler:
        parts.append(f"euler {field.euler}")
    if field.quaternion:
        parts.append("quaternion")
    if field.words:
        words = {word.casefold(): value for word, value in field.words}
        parts.append(", ".join(f"{word} = {value:g}" for word, value in sorted(words.items())))
    elif gripper := gripper_of(field):
        parts.append(f"gripper open {gripper[0]:g}, closed {gripper[1]:g}")
    derived = _derived(schema, path)
    if derived is not None:
        parts.append(f"{derived.kind} of {derived.of}")
    return Fact(", ".join(parts), _DECLARE)


def _derived(schema: Schema, path: str) -> DerivedSpec | None:
    stream, _, name = path.partition("/")
    derived = getattr(schema.stream(stream), "derived", ())
    return next((each for each in derived if each.name == name), None)


def _period(field: FieldSpec) -> Fact:
    text = f"after {', '.join(f'{period:g}' for period in field.period)}" if any(field.period) else "never"
    return Fact(text, _DECLARE)
