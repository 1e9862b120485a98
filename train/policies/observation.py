"""Checks an observation before a policy acts on it: keys, shapes, types and numbers are those of training.

On a robot, observations are made by hand. What a policy was not trained on must be refused, because the actions that
follow look like any others. Shape letters: B batch, T rows of a window.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.data.arguments import Fit
from vlapipe.train.data.batch_layout import Batch, SampleSpec
from vlapipe.train.data.joining.embodiments import EMBODIMENT
from vlapipe.train.data.transforms import Transforms, with_actions_of_padding

__all__ = ["CheckedAct", "check_observation", "observation_shapes"]

_STATE = "observation.state"
_IMAGES = "observation.images."


def check_observation(spec: SampleSpec, observation: Any) -> None:
    """Check that an observation has what the policy was trained on, so that no wrong one is taken silently.

    Each entry must have all rows of its window, with or without those that come after the frame. A row that is not
    there (at the start of an episode, or of an entry in ``spec.optional``) is marked in ``<key>_is_pad``, and may hold
    any numbers.

    Raises:
        UsageError: a key is missing, or an entry has another type, shape or device, or numbers that are not finite.
    """
    if torch.compiler.is_exporting():  # numbers are not known then
        return
    if not isinstance(observation, Mapping):
        _refuse("", f"expected a dict of tensors by key, found a {type(observation).__name__}", "see docs/policies.md")
    first: Tensor | None = None
    for key, shape in observation_shapes(spec).items():
        value, is_pad = (_tensor(observation, name) for name in (key, f"{key}_is_pad"))
        first = value if first is None else first
        if spec.ahead_rows and value.shape[1:2] == (shape[0] - spec.ahead_rows,):
            shape = (shape[0] - spec.ahead_rows, *shape[1:])
        if value.shape[1:] != shape or value.shape[:1] != first.shape[:1]:
            _refuse_shape(key, value, (first.shape[0] if first.ndim > 2 else 1, *shape), spec.image_resize)
        dtype = torch.uint8 if key.startswith(_IMAGES) else torch.float32
        dtype = torch.uint16 if spec.is_depth(key) else dtype
        if value.dtype != dtype:
            _refuse_type(key, value, dtype, spec.depth.get(key.removeprefix(_IMAGES)))
        if is_pad.shape != value.shape[:2] or is_pad.dtype != torch.bool:
            found = f"{_type(is_pad)} {tuple(is_pad.shape)}"
            cure = "False for each row that is there"
            _refuse(f"{key}_is_pad", f"expected bool {tuple(value.shape[:2])}, found {found}", cure)
        if value.device != first.device or is_pad.device != first.device:
            other, on = (key, value.device) if value.device != first.device else (f"{key}_is_pad", is_pad.device)
            _refuse(other, f"expected to be on {first.device} as the others, found on {on}", "use .to(device)")
        if key in spec.moments and spec.moments[key].is_finite:
            _require_finite(key, value, is_pad)
    assert first is not None
    form = spec.action_form
    needs_state = form is not None and form.needs_state and form.origin_may_lack
    if form is not None and needs_state and bool(observation[f"{_STATE}_is_pad"][:, spec.newest].any()):
        problem = f"expected a state of the frame itself, since actions are {form.kind} to it, found padding"
        _refuse(f"{_STATE}_is_pad", problem, "wait for a reading")
    if spec.embodiments:
        _require_embodiment(spec, observation, first)
    _require_task(observation, len(first))


class CheckedAct:
    """A policy's ``act`` that first checks the observation and applies the transforms of the run.

    ``spec`` is that of observations before the transforms. The object belongs to one policy, and is copied with it.
    """

    def __init__(self, policy: nn.Module, spec: SampleSpec, transforms: Transforms | None = None) -> None:
        self._policy, self._spec, self._transforms = policy, spec, transforms

    @property
    def has_transforms(self) -> bool:
        """Whether the observation is changed by functions of the user's before the policy gets it."""
        return self._transforms is not None

    def __call__(self, observation: Batch) -> Any:
        """Returns the policy's actions.

        Raises:
            UsageError: the observation is not what the policy was trained on.
        """
        check_observation(self._spec, observation)
        act = partial(type(self._policy).act, self._policy)  # type: ignore[attr-defined]
        if self._transforms is None:
            return act(observation)
        # A transform may write into the tensors that it is given, and the observation is the caller's.
        own = {key: value.clone() if isinstance(value, Tensor) else value for key, value in observation.items()}
        transformed = self._transforms(with_actions_of_padding(self._spec, own))
        return self._transforms.undo(act(transformed))


def observation_shapes(spec: SampleSpec) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each entry of an observation by key, without the batch dimension."""
    shapes: dict[str, tuple[int, ...]] = {_STATE: spec.state}
    shapes |= {f"observation.sensors.{name}": shape for name, shape in spec.sensors.items()}
    return shapes | {f"{_IMAGES}{camera}": shape for camera, shape in spec.images.items()}


def _tensor(observation: Mapping[str, Any], key: str) -> Tensor:
    if key not in observation:
        if key.endswith("_is_pad"):  # the nearest key there is the entry that it marks, which is right
            _refuse(key, "missing", "a bool tensor (B, T): False for each row that is there")
        cure = did_you_mean(key, [str(name) for name in observation])
        _refuse(key, "missing", cure)
    value = observation[key]
    if not isinstance(value, Tensor):
        cure = "torch.from_numpy(array)" if type(value).__module__ == "numpy" else "torch.as_tensor(...)"
        _refuse(key, f"expected a tensor, found a {type(value).__name__}", cure)
    return value


def _refuse_shape(key: str, value: Tensor, expected: tuple[int, ...], fit: Fit) -> NoReturn:
    found, names = tuple(value.shape), _names(key, expected)
    cure = "see docs/policies.md"
    if found == expected[1:]:
        cure = "add the dimension of the batch: value[None]"
    elif len(found) == len(expected) and found[2:] == expected[2:] and found[1] != expected[1]:
        more = f"repeat the oldest row in front, and mark what is repeated in {key}_is_pad"
        cure = more if found[1] < expected[1] else f"give the newest {expected[1]} rows"
    elif key.startswith(_IMAGES) and len(found) == 5:
        num_channels, height, width = expected[2:]
        if found[2:] == (height, width, num_channels):
            cure = "channels come first: value.permute(0, 1, 4, 2, 3)"
        elif found[2] == num_channels:
            call = f"resized(image, ({height}, {width}), {fit!r})"
            cure = (
                f"resize to height {height} and width {width} as in training: vlapipe.train.data.images.resize.{call}"
            )
    _refuse(key, f"expected {names} = {expected}, found {found}", cure)


def _names(key: str, shape: tuple[int, ...]) -> str:
    if key.startswith(_IMAGES):
        return f"(B, T, {shape[2]}, height, width)"
    num_dimensions = len(shape)
    return "(B, T, D)" if key == _STATE else f"(B, T{', ...' if num_dimensions > 2 else ''})"


def _refuse_type(key: str, value: Tensor, expected: torch.dtype, depth_m: float | None) -> NoReturn:
    if depth_m is not None:
        cure = f"(metres / {depth_m:g}).round().to(torch.uint16)"
        _refuse(key, f"expected uint16 depth, each count {depth_m:g} m, found {_type(value)}", cure)
    if expected == torch.float32:
        _refuse(key, f"expected float32 in the dataset's units, found {_type(value)}", "value.float()")
    cure = "pixels as they come from the camera"
    if value.is_floating_point():
        cure = "(value * 255).round().to(torch.uint8) if they are from 0 to 1"
    _refuse(key, f"expected uint8 pixels from 0 to 255, found {_type(value)}", cure)


def _require_embodiment(spec: SampleSpec, observation: Mapping[str, Any], first: Tensor) -> None:
    """Refuse an observation that does not say of which robot it is, by the robot's number in ``spec.embodiments``."""
    robots = ", ".join(f"{i} {name}" for i, name in enumerate(spec.embodiments))
    if EMBODIMENT not in observation:
        _refuse(EMBODIMENT, "missing", f"torch.tensor([number] * B), of {robots}")
    number = _tensor(observation, EMBODIMENT)
    if number.shape != first.shape[:1] or number.dtype != torch.int64:
        found = f"{_type(number)} {tuple(number.shape)}"
        _refuse(EMBODIMENT, f"expected int64 {tuple(first.shape[:1])}, found {found}", f"one number each, of {robots}")
    if number.device != first.device:
        _refuse(
            EMBODIMENT, f"expected to be on {first.device} as the others, found on {number.device}", "use .to(device)"
        )
    if not 0 <= int(number.min()) <= int(number.max()) < len(spec.embodiments):
        _refuse(EMBODIMENT, f"expected numbers from 0 to {len(spec.embodiments) - 1}, found {number.tolist()}", robots)


def _require_finite(key: str, value: Tensor, is_pad: Tensor) -> None:
    if value.sum().isfinite():  # a sum of finite numbers, unless it overflows; a fifth of the time of looking at each
        return
    if not (value.isfinite().reshape(*is_pad.shape, -1).all(2) | is_pad).all():
        cure = "wait for a reading; in training every number of it was there"
        _refuse(key, "expected finite numbers, found NaN or infinity", cure)


def _require_task(observation: Mapping[str, Any], batch_size: int) -> None:
    task = observation.get("task")
    if task is None:
        if any(str(key).startswith("task.") for key in observation):
            return  # the policy's own ``prepare`` has taken it
        _refuse("task", "missing", f"a list of instructions, one for each of the {batch_size}")
    if isinstance(task, str):
        _refuse("task", "expected a list of instructions, found one text", "[text]")
    if len(task) != batch_size or not all(isinstance(text, str) for text in task):
        _refuse("task", f"expected {batch_size} texts, found {len(task)} of {task!r:.40}", "one for each observation")


def _type(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _refuse(key: str, problem: str, cure: str) -> NoReturn:
    raise UsageError(f"act: {key}: {problem}" if key else f"act: {problem}", cure)
