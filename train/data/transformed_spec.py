"""Finds out what a sample is after the user's transforms: shapes from one sample, statistics from a part of the frames.

Shape letters: B batch, T rows of a window, H action horizon, A action size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.actions.action_statistics import measured, runs_of_frames
from vlapipe.train.data.batch_layout import Batch, SampleSpec
from vlapipe.train.data.batch_maker import BatchMaker
from vlapipe.train.data.dataset_group import Sources
from vlapipe.train.data.frame_index import FrameIndex
from vlapipe.train.data.moments import Moments
from vlapipe.train.data.sample_steps import Steps
from vlapipe.train.data.transforms import Transforms

__all__ = ["changes_actions", "transformed_spec"]

_PROBES = 2  # samples that are looked at; of two, an entry without the dimension of the batch is told
_RUNS, _RUN = 32, 32  # so many places of the train split, and so many frames in a row at each
_WIDE = 64  # numbers of a row, above which a row has one mean and one deviation
_STATE, _SENSORS, _IMAGES = "observation.state", "observation.sensors.", "observation.images."


def transformed_spec(
    transforms: Transforms, sources: Sources, steps: Mapping[str, Steps], spec: SampleSpec
) -> SampleSpec:
    """Returns the spec of samples after the transforms. ``spec`` is that of the samples before them.

    The statistics of entries that the transforms change are measured over 1,024 frames of the train split, evenly from
    all of it, the same in each run and on each rank. All others stay as they are.

    Raises:
        UsageError: a transform fails, or returns a batch that no policy could be trained on.
    """
    frames = FrameIndex(sources, "train")
    if not frames.num_frames:
        return spec
    maker = BatchMaker(sources, steps, spec, may_unpack=lambda: False)
    index = np.arange(min(_PROBES, frames.num_frames))
    [before] = maker.make(frames.plan(index, index))
    kept = {key: value.clone() if isinstance(value, Tensor) else list(value) for key, value in before.items()}
    after = transforms(before)
    _check(after, len(index), spec)
    changed = {key for key in after if key not in kept or not _is_same(kept[key], after[key])}
    _check_action_form(spec, transforms, changed)
    has_rows = after[_STATE].shape[1] == spec.state[0]
    found = replace(
        spec,
        state=_shape(after[_STATE]),
        sensors={key.removeprefix(_SENSORS): _shape(after[key]) for key in _entries(after, _SENSORS)},
        images={key.removeprefix(_IMAGES): _shape(after[key]) for key in _entries(after, _IMAGES)},
        depth={camera: metres for camera, metres in spec.depth.items() if f"{_IMAGES}{camera}" in after},
        action=_shape(after["action"]),
        newest=spec.newest if has_rows else -1,
        ahead_rows=spec.ahead_rows if has_rows else 0,
        optional=spec.optional & set(after),
    )
    numbers = {_STATE, "action", *_entries(after, _SENSORS)}
    moments = {key: spec.moments[key] for key in numbers - changed if key in spec.moments}
    if numbers & changed:
        moments |= _measured(transforms, maker, frames, sorted(numbers & changed))
    return replace(
        found, moments={key: moments[key] for key in (_STATE, *sorted(numbers - {_STATE})) if key in moments}
    )


def changes_actions(after: SampleSpec, before: SampleSpec) -> bool:
    """Whether the transforms between the two specs change actions."""
    return after.action != before.action or after.moments.get("action") is not before.moments.get("action")


def _measured(transforms: Transforms, maker: BatchMaker, frames: FrameIndex, keys: list[str]) -> dict[str, Moments]:
    rows: dict[str, list[NDArray[np.float32]]] = {key: [] for key in keys}
    for numbers in runs_of_frames(frames.num_frames, _RUNS, _RUN):
        [batch] = maker.make(frames.plan(numbers, numbers))
        batch = transforms(batch)
        for key in keys:
            rows[key].append(batch[key][~batch[f"{key}_is_pad"]].numpy())
    found = {}
    for key, parts in rows.items():
        values = np.concatenate(parts)
        if math.prod(values.shape[1:]) > _WIDE:
            values = values.reshape(-1, 1)
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        moments = measured(values[finite])
        if moments is not None:
            found[key] = replace(moments, is_finite=bool(finite.all()))
    return found


def _entries(batch: Batch, prefix: str) -> Iterator[str]:
    return (key for key in batch if key.startswith(prefix) and not key.endswith("_is_pad"))


def _shape(value: Tensor) -> Any:
    return tuple(value.shape[1:])


def _is_same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        both = before.dtype == after.dtype and before.shape == after.shape
        return both and bool(((before == after) | (before != before)).all())
    return bool(before == after) if type(before) is type(after) else False


def _type_of(key: str, spec: SampleSpec) -> torch.dtype:
    if spec.is_depth(key):
        return torch.uint16
    return torch.uint8 if key.startswith(_IMAGES) else torch.float32


def _check(batch: Batch, count: int, spec: SampleSpec) -> None:
    for key in (_STATE, "action", "task"):
        if key not in batch:
            _refuse(key, "is missing afterwards", "a transform returns the whole batch, with what it has changed")
    for key, value in batch.items():
        length = len(value) if isinstance(value, list) or (isinstance(value, Tensor) and value.ndim) else None
        if length != count:
            found = f"{tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            _refuse(key, f"expected a tensor or a list of {count} samples, found {found}", "keep the batch's dimension")
    for key in (_STATE, "action", *_entries(batch, _SENSORS), *_entries(batch, _IMAGES)):
        _check_entry(key, batch, _type_of(key, spec))


def _check_entry(key: str, batch: Batch, dtype: torch.dtype) -> None:
    value, is_pad = batch[key], batch.get(f"{key}_is_pad")
    if not isinstance(value, Tensor) or value.dtype != dtype:
        found = str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else f"a {type(value).__name__}"
        name = str(dtype).removeprefix("torch.")
        cures = {torch.uint8: "(value * 255).round().to(torch.uint8)", torch.uint16: "value.round().to(torch.uint16)"}
        cure = cures.get(dtype, "value.float()")
        _refuse(key, f"expected {name}, found {found}", f"{cure}, or give it another key")
    dimensions = {_STATE: 3, "action": 3}.get(key, 5 if key.startswith(_IMAGES) else 2)
    if value.ndim < dimensions or (value.ndim > dimensions and not key.startswith(_SENSORS)):
        _refuse(key, f"expected {dimensions} dimensions, found {tuple(value.shape)}", "see docs/policies.md")
    if not isinstance(is_pad, Tensor) or is_pad.dtype != torch.bool or is_pad.shape != value.shape[:2]:
        found = "nothing" if is_pad is None else f"{getattr(is_pad, 'dtype', type(is_pad).__name__)}"
        shape = tuple(getattr(is_pad, "shape", ()))
        problem = f"expected bool {tuple(value.shape[:2])}, found {found}{f' {shape}' if shape else ''}"
        _refuse(f"{key}_is_pad", problem, "say which rows are padding")


def _check_action_form(spec: SampleSpec, transforms: Transforms, changed: set[str]) -> None:
    if spec.action_form is None and not spec.embodiments:
        return
    for key in ("action", _STATE):
        if key in changed and spec.embodiments:
            problem = f"transforms {', '.join(transforms.names)}: change {key}, which is normalized for each robot"
            raise UsageError(problem, "leave out embodiments, or the transform")
        if key in changed:
            problem = f"transforms {', '.join(transforms.names)}: change {key}, and the action's form needs it as it is"
            raise UsageError(problem, "leave out action_form and rotation, or the transform")


def _refuse(key: str, problem: str, cure: str) -> NoReturn:
    raise UsageError(f"transforms: {key}: {problem}", cure)
