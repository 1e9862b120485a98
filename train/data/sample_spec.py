"""Defines what one sample holds: shapes, the statistics to normalize with, and what the numbers are called.

A checkpoint keeps the spec as JSON, so that a policy can be built and used without its dataset. Shape letters: T rows
of a window, H action horizon, A action size, D state size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlapipe.pipeline.shards.mapped.layout import STATE
from vlapipe.train.data.actions.action_form import ActionForm
from vlapipe.train.data.arguments import Fit
from vlapipe.train.data.dataset_group import IMAGES, SENSORS
from vlapipe.train.data.description import Description
from vlapipe.train.data.joining.embodiments import Embodiment
from vlapipe.train.data.moments import Moments

__all__ = ["SampleSpec"]

_ARRAYS = dict.fromkeys(("mean", "std", "min", "max", "q01", "q99", "floor"), np.float32) | {"count": np.float64}
_SHOWN = 12  # columns, and instructions, that the text shows


@dataclass(frozen=True, kw_only=True, repr=False)
class SampleSpec:
    """Shapes of one sample, without the batch dimension, and the statistics to normalize with."""

    state: tuple[int, int]  # (T, D) float32 of "observation.state"
    sensors: dict[str, tuple[int, ...]] = field(default_factory=dict)  # name -> (T, ...) float32
    # Camera -> (T, 3, height, width) uint8, or (T, 1, height, width) uint16 of a depth camera.
    images: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    depth: dict[str, float] = field(default_factory=dict)  # depth camera -> metres of one count
    action: tuple[int, int] = (0, 0)  # (H, A) float32 of "action"
    moments: dict[str, Moments] = field(default_factory=dict)  # batch key -> statistics
    optional: frozenset[str] = frozenset()  # batch keys that may be wholly padding in a sample
    newest: int = -1  # the frame's own row in the window of the state
    ahead_rows: int = 0  # rows at the end of each window of an observation that come after the frame
    action_form: ActionForm | None = None  # how "action" follows from the recorded actions; None: as recorded
    image_resize: Fit = "stretch"  # how images of another size are brought to the size in ``images``
    normalize: dict[str, str] = field(default_factory=dict)  # batch key -> kind; a key that it lacks has "mean_std"
    embodiments: dict[str, Embodiment] = field(default_factory=dict)  # robots by name, if padded to one size
    description: Description = field(default_factory=Description)  # names, units, rates and instructions, if known

    @property
    def sensor_keys(self) -> list[str]:
        """The batch keys of the sensors."""
        return [f"observation.sensors.{name}" for name in self.sensors]

    def is_depth(self, key: str) -> bool:
        """Whether a batch key is that of a depth camera."""
        return key.removeprefix(IMAGES) in self.depth and key.startswith(IMAGES)

    @property
    def recorded_action_size(self) -> int:
        """The number of columns that ``act`` returns: of an action as it was recorded."""
        return self.action[1] if self.action_form is None else self.action_form.recorded_size

    @property
    def state_names(self) -> tuple[str, ...]:
        """The name of each column of the state; numbered if the names are unknown."""
        return self.description.names_of(STATE, self.state[1])

    @property
    def state_units(self) -> tuple[str, ...]:
        """The unit of each column of the state; empty texts if they are unknown."""
        return self.description.units_of(STATE, self.state[1])

    @property
    def action_names(self) -> tuple[str, ...]:
        """The name of each column of a recorded action; numbered if the names are unknown."""
        return self.description.names_of("action", self.recorded_action_size)

    @property
    def action_units(self) -> tuple[str, ...]:
        """The unit of each column of a recorded action; empty texts if they are unknown."""
        return self.description.units_of("action", self.recorded_action_size)

    @property
    def rates_hz(self) -> Mapping[str, float]:
        """Batch key to the rate of its rows, or of the actions of a chunk; without keys whose rate is unknown."""
        return self.description.rates_hz

    @property
    def tasks(self) -> tuple[str, ...] | None:
        """The instructions of the training split; None if they are unknown, or too many to keep."""
        return self.description.tasks

    def __repr__(self) -> str:
        (T, D), (H, _) = self.state, self.action
        lines = [f"state    {T} x {D}{self._every(STATE)}: {_columns(self.state_names, self.state_units)}"]
        for name, shape in self.sensors.items():
            key = f"{SENSORS}{name}"
            lines.append(f"sensor   {name} {' x '.join(map(str, shape))}{self._every(key)}{self._may_lack(key)}")
        for camera, (rows, channels, height, width) in self.images.items():
            key = f"{IMAGES}{camera}"
            kind = f"uint16 depth, {self.depth[camera]:g} m a count" if camera in self.depth else "uint8 RGB"
            several = f"{rows} x " if rows > 1 else ""
            size = f"{several}{height} x {width} x {channels} {kind}{self._every(key)}{self._may_lack(key)}"
            lines.append(f"camera   {camera} {size}; other sizes are {_FITS[self.image_resize]}")
        columns = _columns(self.action_names, self.action_units)
        lines.append(f"action   {H} x {self.recorded_action_size}{self._every('action')}: {columns}")
        of = self.description
        if of.action_kind:
            over = f" over {of.action_period_s:g} s" if of.action_period_s else ""
            lines.append(f"         recorded as {of.action_kind}{over}")
        if self.action_form is not None:
            written = f", rotations as {self.action_form.rotation}" if self.action_form.rotation else ""
            lines.append(f"         trained as {self.action_form.kind}{written}; given as recorded")
        if self.embodiments:
            lines.append(f"robots   {', '.join(self.embodiments)}")
        if self.tasks is not None:
            more = f" and {len(self.tasks) - _SHOWN} more" if len(self.tasks) > _SHOWN else ""
            lines.append(f"tasks    {', '.join(map(repr, self.tasks[:_SHOWN]))}{more}")
        return "\n".join(lines)

    def _every(self, key: str) -> str:
        rate = self.rates_hz.get(key)
        return "" if rate is None else f" at {rate:.4g} Hz"

    def _may_lack(self, key: str) -> str:
        return ", may lack" if key in self.optional else ""

    def to_json(self) -> dict[str, Any]:
        """Returns the spec as JSON values. float32 statistics survive the round trip exactly."""

        def moments(of: Moments) -> dict[str, Any]:
            arrays = {name: getattr(of, name) for name in _ARRAYS}
            known = {name: values.tolist() for name, values in arrays.items() if values is not None}
            return {**known, "is_finite": of.is_finite}

        return {
            "state": list(self.state),
            "sensors": {name: list(shape) for name, shape in self.sensors.items()},
            "images": {camera: list(shape) for camera, shape in self.images.items()},
            "depth": self.depth,
            "action": list(self.action),
            "moments": {key: moments(of) for key, of in self.moments.items()},
            "optional": sorted(self.optional),
            "newest": self.newest,
            "ahead_rows": self.ahead_rows,
            "action_form": None if self.action_form is None else self.action_form.to_json(),
            "image_resize": self.image_resize,
            "normalize": self.normalize,
            "description": self.description.to_json(),
            "embodiments": {
                name: {
                    "state": robot.state,
                    "action": robot.action,
                    "moments": {key: moments(of) for key, of in robot.moments.items()},
                }
                for name, robot in self.embodiments.items()
            },
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SampleSpec:
        """Returns the spec from the result of ``to_json``, also of an older version, which lacks some of it."""

        def moments(entry: Mapping[str, Any]) -> Moments:
            arrays: dict[str, Any] = {
                name: np.array(entry[name], kind) for name, kind in _ARRAYS.items() if name in entry
            }
            return Moments(**arrays, is_finite=entry.get("is_finite", True))

        def embodiment(entry: Mapping[str, Any]) -> Embodiment:
            of_keys = {key: moments(of) for key, of in entry["moments"].items()}
            return Embodiment(state=entry["state"], action=entry["action"], moments=of_keys)

        T, D = values["state"]
        H, A = values["action"]
        return cls(
            state=(T, D),
            sensors={name: tuple(shape) for name, shape in values["sensors"].items()},
            images={camera: (shape[0], shape[1], shape[2], shape[3]) for camera, shape in values["images"].items()},
            depth=dict(values.get("depth", {})),
            action=(H, A),
            moments={key: moments(entry) for key, entry in values["moments"].items()},
            optional=frozenset(values.get("optional", ())),
            newest=values.get("newest", -1),
            ahead_rows=values.get("ahead_rows", 0),
            action_form=ActionForm.from_json(values["action_form"]) if values.get("action_form") else None,
            image_resize=values.get("image_resize", "stretch"),
            normalize=dict(values.get("normalize", {})),
            description=Description.from_json(values["description"]) if "description" in values else Description(),
            embodiments={name: embodiment(entry) for name, entry in values.get("embodiments", {}).items()},
        )


_FITS = {"stretch": "stretched", "crop": "cropped", "pad": "padded"}


def _columns(names: tuple[str, ...], units: tuple[str, ...]) -> str:
    shown = [f"{name} [{unit}]" if unit else name for name, unit in zip(names, units, strict=True)]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return f"{', '.join(shown[:_SHOWN])}{more}"
