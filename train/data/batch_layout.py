"""Defines the contents of a sample and a batch: shapes, entries by key, and the statistics to normalize with.

A policy is built from the ``SampleSpec`` before the first batch is read. Shape letters: B batch, T rows of a window,
H action horizon, A action size, D state size.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from vlapipe.pipeline.shards.mapped.layout import STATE, sample_fields
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.units import metres_of
from vlapipe.train.data.actions.action_form import ActionForm
from vlapipe.train.data.batch_memory import Entry
from vlapipe.train.data.dataset_group import IMAGES, SENSORS, Sources, row_shapes
from vlapipe.train.data.joining.embodiments import EMBODIMENT, Embodiment, padding_masks
from vlapipe.train.data.moments import Moments, entry_moments, pooled_moments
from vlapipe.train.data.sample_spec import SampleSpec
from vlapipe.train.data.sample_steps import Steps

__all__ = [
    "Batch",
    "Moments",
    "SampleSpec",
    "batch_entries",
    "image_sizes",
    "require_memory",
    "sample_bytes",
    "sample_spec",
    "with_action_moments",
]


Batch = dict[str, Any]  # tensors by key, and the list "task"


def image_sizes(sources: Sources, chosen: tuple[int, int] | None) -> dict[str, tuple[int, int]]:
    """(height, width) of each camera's images in a batch.

    Raises:
        UsageError: a camera's recorded images differ in size, and no size was chosen.
    """
    sizes: dict[str, tuple[int, int]] = {}
    for camera in sources.first.cameras:
        recorded = np.stack([sources.column(f"{camera}/height"), sources.column(f"{camera}/width")], axis=1)
        recorded = np.unique(recorded[recorded[:, 0] > 0], axis=0)  # an episode may lack the camera
        if chosen is None and not len(recorded):
            cure = "leave the camera out of cameras, or choose --image-resize-height and --image-resize-width"
            raise UsageError(f"{sources.name()}: no episode has an image of {camera}, so its size is unknown", cure)
        if chosen is None and len(recorded) > 1:
            found = ", ".join(f"{w}x{h}" for h, w in recorded[:4]) + " (width x height)"
            cure = "choose --image-resize-height and --image-resize-width, or image_size=(height, width)"
            raise UsageError(f"{sources.name()}: images of {camera} differ in size: {found}", cure)
        sizes[camera] = chosen or (int(recorded[0][0]), int(recorded[0][1]))
    return sizes


def batch_entries(spec: SampleSpec) -> dict[str, Entry]:
    """Every array of a batch by key, as it is read. Shapes are without the batch dimension.

    Images are (T, height, width, 3), and actions are as recorded.
    """
    form = spec.action_form
    action = spec.action if form is None else (spec.action[0], form.recorded_size)
    rows: dict[str, tuple[int, ...]] = {"observation.state": spec.state, "action": action}
    rows |= {f"observation.sensors.{name}": shape for name, shape in spec.sensors.items()}
    entries = {key: Entry(shape, np.float32) for key, shape in rows.items()}
    for camera, (num_rows, channels, height, width) in spec.images.items():
        kind = np.uint16 if camera in spec.depth else np.uint8
        entries[f"observation.images.{camera}"] = Entry((num_rows, height, width, channels), kind)
    entries |= {f"{key}_is_pad": Entry(entry.shape[:1], np.bool_) for key, entry in entries.items()}
    numbers = {key: Entry((), np.int64) for key in ("episode_index", "frame_index", "index")}
    if spec.embodiments:
        numbers[EMBODIMENT] = Entry((), np.int64)
        masks = padding_masks([*spec.embodiments.values()], spec.state[1], spec.action[1])
        entries |= {key: Entry(mask.shape[1:], np.bool_) for key, mask in masks.items()}
    return entries | numbers | {"timestamp": Entry((), np.float64)}


def sample_bytes(spec: SampleSpec) -> int:
    """Number of bytes that one sample takes in a batch."""
    entries = batch_entries(spec).values()
    return sum(math.prod(entry.shape) * np.dtype(entry.dtype).itemsize for entry in entries)


def sample_spec(sources: Sources, steps: Mapping[str, Steps], sizes: dict[str, tuple[int, int]]) -> SampleSpec:
    """Shapes and statistics of a sample. Several datasets have the statistics of all their training rows together.

    If the actions are others than the recorded ones, ``moments`` lacks them: see ``with_measured_actions``. If several
    robots are padded to one size, ``moments`` of state and action are those of all of them together.

    Raises:
        UsageError: no dataset has a training episode, or actions of several robots would have another form.
    """
    if not sources.robots:
        return _spec_of_one(sources, steps, sizes)
    specs = {robot: _spec_of_one(sources.of_robot(robot), steps, sizes) for robot in sources.robots}
    if any(spec.action_form is not None for spec in specs.values()):
        problem = "action_form and rotation: expected none beside embodiments, found one"
        raise UsageError(problem, "train on one robot, or on actions as they were recorded")
    num_state, num_action = (max(getattr(spec, name)[1] for spec in specs.values()) for name in ("state", "action"))
    embodiments = {}
    for robot, spec in specs.items():
        embodiment = Embodiment(state=spec.state[1], action=spec.action[1])
        for key, size in ((STATE, num_state), ("action", num_action)):
            if key in spec.moments:
                embodiment = embodiment.with_moments(key, spec.moments[key], size)
        embodiments[robot] = embodiment
    first = specs[sources.robots[0]]
    moments = {key: pooled_moments([spec.moments[key] for spec in specs.values()]) for key in first.sensor_keys}
    return replace(
        first,
        state=(first.state[0], num_state),
        action=(first.action[0], num_action),
        optional=_optional(sources),
        moments=moments | _pooled(embodiments),
        embodiments=embodiments,
    )


def _pooled(embodiments: Mapping[str, Embodiment]) -> dict[str, Moments]:
    """The statistics of state and action over all robots together, of the keys that each robot has."""
    keys = [key for key in (STATE, "action") if all(key in robot.moments for robot in embodiments.values())]
    return {key: pooled_moments([robot.moments[key] for robot in embodiments.values()]) for key in keys}


def with_action_moments(spec: SampleSpec, of_robots: Mapping[str, Moments]) -> SampleSpec:
    """Returns the spec with statistics of ``action`` for each robot; a single robot's are named ``""``."""
    if not spec.embodiments:
        return replace(spec, moments={**spec.moments, "action": of_robots[""]})
    embodiments = {
        robot: embodiment.with_moments("action", of_robots[robot], spec.action[1])
        for robot, embodiment in spec.embodiments.items()
    }
    return replace(spec, embodiments=embodiments, moments=spec.moments | _pooled(embodiments))


def _spec_of_one(sources: Sources, steps: Mapping[str, Steps], sizes: dict[str, tuple[int, int]]) -> SampleSpec:
    """The spec of one robot, without padding."""
    with_rows = [dataset for dataset in sources.datasets if dataset.stats]
    if not with_rows:
        cure = "see rejects.jsonl; if every episode validates, say val = 0 under [split] in the schema and ingest again"
        raise UsageError(f"{sources.name()}: there is no training episode to normalize with", cure)
    schema = sources.first.schema
    rows, sample = row_shapes(schema), schema.sample
    form = _action_form(sources)
    if form is not None and form.needs_state and steps[STATE].newest < 0:
        problem = f"action_form {sample.action_form!r}: the state's window does not have the frame's own row"
        raise UsageError(problem, "let delta_timestamps of observation.state include 0")
    is_recorded = form is None and all(d.schema.action == d.recorded.action for d in sources.datasets)
    sensors = {name: rows[f"observation.sensors.{name}"] for name, _ in sources.first.schema.sample.sensors}
    fields = [(dataset, sample_fields(dataset.schema)) for dataset in with_rows]
    units = {camera: sources.first.manifest.depth_unit(camera) for camera in sizes}
    depth = {camera: metres_of(unit) for camera, unit in units.items() if unit is not None}
    shapes = {camera: (1 if camera in depth else 3, *size) for camera, size in sizes.items()}
    return SampleSpec(
        state=(steps[STATE].num_rows, rows[STATE][0]),
        sensors={n: (steps[f"observation.sensors.{n}"].num_rows, *shape) for n, shape in sensors.items()},
        images={c: (steps[f"observation.images.{c}"].num_rows, *shape) for c, shape in shapes.items()},
        depth=depth,
        action=(steps["action"].num_rows, rows["action"][0] if form is None else form.size),
        action_form=form,
        newest=steps[STATE].newest,
        ahead_rows=sample.ahead_rows,
        optional=_optional(sources),
        moments={
            entry: entry_moments([(dataset, of[entry]) for dataset, of in fields], shape)
            for entry, shape in rows.items()
            if entry != "action" or is_recorded
        },
    )


def _action_form(sources: Sources) -> ActionForm | None:
    schema = sources.first.schema
    sample = schema.sample
    lowest, highest = list[float](), list[float]()
    for path in schema.action.of:
        found = [d.stats[path] for d in sources.datasets if path in d.stats]
        for limits, name, of in ((lowest, "min", np.min), (highest, "max", np.max)):
            each = of([getattr(summary, name) for summary in found], axis=0) if found else np.zeros(1)
            limits += np.broadcast_to(each, schema.field(path).num_columns).tolist()
    ranges = (lowest, highest) if schema.action.kind != "delta" else None
    forms = [
        ActionForm.of(
            of, kind=sample.action_form, rotation=sample.rotation, relative_to=of.sample.relative_to, ranges=ranges
        )
        for of in (dataset.schema for dataset in sources.datasets)
    ]
    if forms[0] is None:
        return None
    return replace(forms[0], origin_may_lack=any(form is not None and form.origin_may_lack for form in forms))


def _optional(sources: Sources) -> frozenset[str]:
    """The batch keys that some episodes lack wholly."""
    keys = [f"{SENSORS}{name}" for name, _ in sources.first.schema.sample.sensors]
    keys += [f"{IMAGES}{camera}" for camera in sources.first.cameras]
    return frozenset(key for key in keys if not sources.stream_column(key, "rows").all())


def require_memory(what: str, spec: SampleSpec, batch_size: int) -> None:
    """Refuse a batch that is larger than the machine's memory, before any data is read.

    Raises:
        UsageError: the batch is larger than the memory.
    """
    num_bytes = batch_size * sample_bytes(spec)
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if num_bytes > memory_bytes:
        problem = f"{what}: a batch takes {num_bytes / 1e9:,.0f} GB, and this machine has {memory_bytes / 1e9:,.0f} GB"
        raise UsageError(problem, "fewer rows in the window, a smaller batch_size or smaller images")
