"""Checks one observation of a robot, and brings it to the rows that training had. What is wrong is refused in one line.

Shape letters: K rows given at once, D state size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.mapped.layout import STATE
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.data.dataset_group import IMAGES, SENSORS
from vlapipe.train.data.moments import Moments
from vlapipe.train.data.sample_spec import SampleSpec

__all__ = ["Checker"]

KEYS = ("state", "sensors", "images", "task", "time")
_MOST_ROWS = 100_000  # in one observation
_FAR = 3.0  # spans of training beyond its lowest and highest value: another unit, not another place
_Rows = NDArray[Any]


class Checker:
    """Checks observations of one robot against the spec of a policy.

    ``doubt`` is called with a sentence, and the name of what it is about, for what may be a mistake and may be none.
    """

    def __init__(self, spec: SampleSpec, robot: str, doubt: Callable[[str, str, str], None]) -> None:
        """Prepare to check. ``robot`` is the name in ``spec.embodiments``, or empty if there are none."""
        self._spec, self._robot, self._doubt = spec, robot, doubt
        own = spec.embodiments[robot] if robot else None
        self._state_size = spec.state[1] if own is None else own.state
        self._names = spec.description.names_of(STATE, self._state_size, robot)
        self._units = spec.description.units_of(STATE, self._state_size, robot)
        moments = own.moments.get(STATE) if own is not None else spec.moments.get(STATE)
        self._limits = None if moments is None else _limits(moments, self._state_size)
        self._is_finite = {key: of.is_finite for key, of in spec.moments.items()}
        self._dark = {camera for camera in spec.images if camera not in spec.depth}  # no pixel above 1 seen yet

    def rows(self, observation: Any, *, partial: bool = False) -> dict[str, _Rows]:
        """Returns the rows ``(K, ...)`` of each batch key that the observation has: images as given, others float32.

        With ``partial``, anything may be missing.

        Raises:
            UsageError: the observation is not what the policy was trained on.
        """
        if not isinstance(observation, Mapping):
            cure = '{"state": ..., "images": {...}, "task": "..."}'
            refuse("", f"expected a dict, found a {type(observation).__name__}", cure)
        for key in observation:
            if key not in KEYS:
                refuse(f"{key}", "unknown key", did_you_mean(str(key), KEYS))
        found = {} if partial and observation.get("state") is None else {STATE: self._state(observation)}
        for name, value in self._members(observation, "sensors", SENSORS, partial=partial).items():
            shape = self._spec.sensors[name][1:]
            key = f"{SENSORS}{name}"
            rows = _numbers(f"sensors.{name}", value, shape)
            found[key] = self._finite(f"sensors.{name}", key, rows, ())
        for camera, value in self._members(observation, "images", IMAGES, partial=partial).items():
            found[f"{IMAGES}{camera}"] = self._images(camera, value)
        return found

    def task(self, observation: Mapping[str, Any]) -> str:
        """Returns the instruction; the only one of training if none is given.

        Raises:
            UsageError: there is none, or it is no text.
        """
        known = self._spec.tasks
        if observation.get("task") is None:
            if known is not None and len(known) == 1:
                return known[0]
            refuse("task", "missing", "the instruction as a text" + (f"; {_listed(known)}" if known else ""))
        task = observation["task"]
        if not isinstance(task, str):
            refuse("task", f"expected one text, found a {type(task).__name__}", '"pick up the red cup"')
        if known is not None and task not in known:
            self._doubt("task", f"task: {task!r:.200} was not seen in training", did_you_mean(task, known))
        return task

    def _state(self, observation: Mapping[str, Any]) -> _Rows:
        if observation.get("state") is None:
            refuse("state", "missing", f"{self._state_size} numbers: {_listed(self._names)}")
        value = observation["state"]
        if isinstance(value, Mapping):
            value = self._by_name(value)
        rows = _numbers("state", value, (self._state_size,), self._names)
        rows = self._finite("state", STATE, rows, self._names)
        if self._limits is not None:
            lowest, highest = self._limits
            outside = ((rows < lowest) | (rows > highest)).any(axis=0)
            if outside.any():
                i = int(outside.argmax())
                self._say_far(i, rows, lowest, highest)
        if self._state_size < self._spec.state[1]:
            rows = np.pad(rows, ((0, 0), (0, self._spec.state[1] - self._state_size)))
        return rows

    def _say_far(self, i: int, rows: _Rows, lowest: _Rows, highest: _Rows) -> None:
        worst = rows[:, i][np.argmax(np.abs(rows[:, i] - (lowest[i] + highest[i]) / 2))]
        span = (highest[i] - lowest[i]) / (1 + 2 * _FAR)
        unit = f" {self._units[i]}" if self._units[i] else ""
        seen = f"{lowest[i] + _FAR * span:.4g} to {highest[i] - _FAR * span:.4g}{unit}"
        problem = f"state: {self._names[i]} is {worst:.4g}, far from what training saw: {seen}"
        self._doubt(f"state.{i}", problem, "is it in that unit?")

    def _by_name(self, values: Mapping[Any, Any]) -> list[float]:
        """Returns the state's numbers in order, from numbers by the names of fields or of columns."""
        fields = self._spec.description.fields_of(STATE, self._robot)
        places: dict[str, list[int]] = {}
        first = 0
        for field in fields:
            columns = [*range(first, first + field.num_columns)]
            bare = field.path.partition("/")[2]
            places[field.path] = columns
            is_only = sum(other.path.partition("/")[2] == bare for other in fields) == 1
            if is_only:
                places[bare] = columns
            first += field.num_columns
        for i, name in enumerate(self._names):
            if self._names.count(name) == 1:
                places.setdefault(name, [i])
        found = dict[int, float]()
        for name, value in values.items():
            if name not in places:
                known = [field.path for field in fields] or [*places]
                refuse(f"state.{name}", "unknown name", did_you_mean(str(name), known))
            columns = places[name]
            given = np.atleast_1d(_array(f"state.{name}", value)).reshape(-1)
            if len(given) != len(columns):
                labels = _listed([self._names[i] for i in columns])
                refuse(f"state.{name}", f"expected {len(columns)} numbers, found {len(given)}", labels)
            found |= dict(zip(columns, given.tolist(), strict=True))
        missing = [self._names[i] for i in range(self._state_size) if i not in found]
        if missing:
            refuse("state", f"{_listed(missing)} missing", f"all of {_listed(self._names)}")
        return [found[i] for i in range(self._state_size)]

    def _members(self, observation: Mapping[str, Any], what: str, prefix: str, *, partial: bool) -> dict[str, Any]:
        """The sensors or cameras of an observation by name; those that may lack may be missing or None."""
        known = [*(self._spec.images if prefix == IMAGES else self._spec.sensors)]
        given = observation.get(what)
        given = {} if given is None else given
        if not isinstance(given, Mapping):
            refuse(what, f"expected a dict by name, found a {type(given).__name__}", f"known: {_listed(known)}")
        for name in given:
            if name not in known:
                one = what.removesuffix("s")
                cure = did_you_mean(str(name), known) if known else f"the policy has no {one}"
                refuse(f"{what}.{name}", f"unknown {one}", cure)
        present = {name: given[name] for name in known if given.get(name) is not None}
        for name in known:
            if not partial and name not in present and f"{prefix}{name}" not in self._spec.optional:
                refuse(f"{what}.{name}", "missing", f"every episode of training had it; given: {_listed([*given])}")
        return present

    def _finite(self, where: str, key: str, rows: _Rows, names: tuple[str, ...]) -> _Rows:
        if not self._is_finite.get(key, False) or np.isfinite(rows.sum(dtype=np.float64)):
            return rows
        is_finite = np.isfinite(rows).reshape(len(rows), -1)
        if is_finite.all():
            return rows
        row, column = np.argwhere(~is_finite)[0].tolist()
        at = names[column] if names else f"value {column}"
        found = rows.reshape(len(rows), -1)[row, column]
        return refuse(where, f"{at} is {found}", "wait for a reading; in training every number was there")

    def _images(self, camera: str, value: Any) -> _Rows:
        where = f"images.{camera}"
        _, channels, height, width = self._spec.images[camera]
        is_depth = camera in self._spec.depth
        if isinstance(value, bytes | bytearray | str):
            refuse(where, f"expected pixels, found {type(value).__name__}", "decode the image first")
        array = _as_array(where, value)
        if is_depth and array.ndim == 2:
            array = array[..., None]
        expected = f"({height}, {width}, {channels})"
        if array.ndim in (3, 4) and array.shape[-1] != channels and array.shape[-3] == channels:
            refuse(where, f"expected height x width x {channels}, found {array.shape}", _channels_last(array.ndim))
        if array.ndim not in (3, 4) or array.shape[-1] != channels:
            cure = "red, green, blue, in this order" if channels == 3 else "one channel of depth"
            refuse(where, f"expected {expected} of any height and width, found {array.shape}", cure)
        if 0 in array.shape:
            refuse(where, f"expected pixels, found an empty image {array.shape}", "wait for an image")
        if is_depth and array.dtype != np.uint16:
            unit = self._spec.depth[camera]
            cure = f"np.round(metres / {unit:g}).astype(np.uint16)"
            refuse(where, f"expected uint16 depth, each count {unit:g} m, found {array.dtype}", cure)
        if not is_depth and array.dtype != np.uint8:
            cure = "pixels as they come from the camera"
            if array.dtype.kind == "f":
                cure = "np.round(image * 255).astype(np.uint8) if they are from 0 to 1"
            refuse(where, f"expected uint8 pixels from 0 to 255, found {array.dtype}", cure)
        if camera in self._dark:
            if int(array.max()) > 1:
                self._dark.discard(camera)
            else:
                problem = f"{where}: no pixel is above 1 of 255"
                self._doubt(where, problem, "was it divided by 255? is the lens covered?")
        return array if array.ndim == 4 else array[None]


def refuse(where: str, problem: str, cure: str) -> NoReturn:
    """Refuse an observation, or what a runner was asked for."""
    raise UsageError(f"runner: {where}: {problem}" if where else f"runner: {problem}", cure)


def _numbers(where: str, value: Any, shape: tuple[int, ...], names: tuple[str, ...] = ()) -> _Rows:
    """Returns numbers as float32 rows ``(K, *shape)``, of one row or of several."""
    array = _array(where, value)
    if array.shape == shape:
        array = array[None]
    if array.shape[1:] != shape or array.ndim != len(shape) + 1:
        wanted = f"{shape[0]} numbers" if len(shape) == 1 else f"shape {shape}" if shape else "a number"
        cure = _listed(names) if names else "one row, or several rows with the newest last"
        refuse(where, f"expected {wanted}, found {_found(value, array)}", cure)
    if not 0 < len(array) <= _MOST_ROWS:
        refuse(
            where, f"expected 1 to {_MOST_ROWS:,} rows, found {len(array):,}", "one row, or several, the newest last"
        )
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _array(where: str, value: Any) -> _Rows:
    """Returns numbers of any kind as an array."""
    array = _as_array(where, value)
    if array.dtype.kind not in "fiu":
        refuse(where, f"expected numbers, found {array.dtype if array.dtype.kind != 'O' else 'objects'}", "float32")
    return array


def _as_array(where: str, value: Any) -> _Rows:
    try:
        return value if isinstance(value, np.ndarray) else np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        first = str(error).partition("\n")[0]
        return refuse(where, f"expected an array, found a {type(value).__name__}: {first:.100}", "numpy.ndarray")


def _found(value: Any, array: _Rows) -> str:
    return f"{array.shape[0]}" if array.ndim == 1 else f"shape {array.shape}" if array.ndim else f"{value!r:.40}"


def _channels_last(num_dimensions: int) -> str:
    order = "1, 2, 0" if num_dimensions == 3 else "0, 2, 3, 1"
    return f"channels come last: image.transpose({order})"


def _listed(names: Any) -> str:
    shown = [str(name) for name in [*names][:20]]
    return ", ".join(shown) + (f" and {len(names) - 20} more" if len(names) > 20 else "") if names else "none"


def _limits(moments: Moments, size: int) -> tuple[_Rows, _Rows] | None:
    """The values beyond which a column is far from what training saw; infinite of a column that never changed."""
    if moments.min is None or moments.max is None:
        return None
    low, high = (np.broadcast_to(each.astype(np.float64), moments.mean.shape) for each in (moments.min, moments.max))
    span = high - low
    varies = (span > 0) & np.isfinite(span)
    lowest = np.where(varies, low - _FAR * span, -np.inf)[:size]
    highest = np.where(varies, high + _FAR * span, np.inf)[:size]
    return (lowest, highest) if len(lowest) == size else None
