"""Runs a policy on a robot: keeps the history, asks the policy for a chunk when one is due, gives one action a step.

Shape letters: T rows of a window, H action horizon, A action size.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlapipe.pipeline.shards.mapped.layout import STATE
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.data.arguments import parse_number, parse_whole_number
from vlapipe.train.data.dataset_group import IMAGES, SENSORS
from vlapipe.train.data.images.resize import fit_into, resize, resize_depth
from vlapipe.train.data.joining.embodiments import EMBODIMENT
from vlapipe.train.data.sample_spec import SampleSpec
from vlapipe.train.robot.blending import ActionQueue
from vlapipe.train.robot.history import History
from vlapipe.train.robot.observed import Checker, refuse

__all__ = ["Runner", "RunnerMaker"]

_ENSEMBLE = 0.01  # m of ACT
_LATE = 1.5  # rows so many times as far apart as in training are told


class Runner:
    """Turns one observation into one action, step by step. An object for one robot, and for one thread.

    An observation is a dict:

    - ``state``: ``(D,)`` numbers in the units of the dataset, or a dict of them by field or by column.
    - ``images``: camera to ``(height, width, 3)`` uint8 RGB of any size, or ``(height, width)`` uint16 of depth.
    - ``sensors``: name to one row.
    - ``task``: the instruction. It may be left out if training saw only one.
    - ``time``: seconds, on any clock. Without it, each step is one action after the step before.

    State, sensors and images may also have several rows, the newest last, as far apart as the rows of training. That is
    how a signal is given whose rows are nearer to each other than the steps.
    """

    def __init__(
        self,
        policy: nn.Module,
        spec: SampleSpec,
        *,
        execute: int | None = None,
        ensemble: float | bool | None = None,
        strict: bool = False,
        embodiment: str | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare for the first observation of an episode.

        Args:
            policy: the policy; ``vlapipe.load_policy(run).runner(...)`` gives it and the spec.
            spec: what the policy was trained on.
            execute: actions of a chunk that are used before the policy is asked again. By default all of
                them, and 1 with ``ensemble``.
            ensemble: average all chunks that have an action for the step, the i-th oldest with weight
                ``exp(-ensemble * i)``; True is 0.01, as in ACT.
            strict: refuse an instruction that training did not see, and a state far from what training saw. Otherwise
                each is told once.
            embodiment: which robot, if the policy was trained on several.
            say: is called with each sentence that is told; without it, these are Python's warnings.

        Raises:
            UsageError: an argument cannot be used with this policy.
        """
        self.spec = spec
        H, _ = spec.action
        is_blended = ensemble is not None and ensemble is not False
        factor = _ENSEMBLE if ensemble is True else ensemble
        m = parse_number("runner: ensemble", factor, least=-math.inf) if is_blended else None
        by_default = 1 if is_blended else H
        self.execute = parse_whole_number(
            "runner: execute", by_default if execute is None else execute, least=1, most=H
        )
        self._policy, self._strict, self._say, self._told = policy, strict, say, set[str]()
        robot = _robot(spec, embodiment)
        self._action_size = spec.embodiments[robot].action if robot else spec.recorded_action_size
        fields = spec.description.fields_of("action", robot) if spec.description.action_kind != "delta" else ()
        is_known = sum(field.num_columns for field in fields) == self._action_size
        self._queue = ActionQueue(self.execute, m, fields if is_known else ())
        self._checker = Checker(spec, robot, self._doubt)
        self._numbers = {STATE: spec.state, **{f"{SENSORS}{name}": shape for name, shape in spec.sensors.items()}}
        self._cameras = {f"{IMAGES}{camera}": shape for camera, shape in spec.images.items()}
        self._batch: dict[str, Any] = {}
        self._out: dict[str, tuple[NDArray[Any], NDArray[np.bool_]]] = {}
        self._histories = {key: self._history(key) for key in (*self._numbers, *self._cameras)}
        if robot:
            self._batch[EMBODIMENT] = torch.tensor([[*spec.embodiments].index(robot)])
        rate = spec.rates_hz.get("action") or spec.rates_hz.get(STATE) or 1.0
        self._step_s = 1 / rate
        self._time_s: float | None = None

    def reset(self) -> None:
        """Begin an episode: forget the history, the chunks and the time."""
        for history in self._histories.values():
            history.clear()
        self._queue.clear()
        self._time_s = None

    def observe(self, observation: Mapping[str, Any]) -> None:
        """Take rows into the history without asking for an action; all but ``time`` may be missing.

        Raises:
            UsageError: the observation is not what the policy was trained on.
        """
        rows = self._checker.rows(observation, partial=True)
        if observation.get("time") is None:
            refuse("time", "missing", "say when, in seconds, and give each step its time too")
        self._keep(rows, self._now(observation["time"]), acts=False)

    def step(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        """Returns the next action ``(A,)`` float32 in the units of the dataset, as actions were recorded.

        Raises:
            UsageError: the observation is not what the policy was trained on. Nothing of it is kept.
        """
        rows, task = self._checker.rows(observation), self._checker.task(observation)
        acts = self._queue.needs_chunk
        self._keep(rows, self._now(observation.get("time")), acts=acts)
        if acts:
            self._queue.add(self._chunk(task, rows))
        return self._queue.next()

    def _keep(self, rows: Mapping[str, NDArray[Any]], now: float, *, acts: bool) -> None:
        """Put rows into the histories."""
        for key, values in rows.items():
            self._say_if_sparse(key, len(values), now)
            history, spacing = self._histories[key], 1 / self.spec.rates_hz.get(key, 1.0)
            if key in self._cameras and self._cameras[key][0] == 1 and not acts:
                continue  # of a single image, only the one that is acted on counts
            for row, place in self._places(history, values, now, spacing):
                if key in self._cameras:
                    self._resize(row, place[0])
                else:
                    place[...] = row
        self._time_s = now

    def _places(
        self, history: History, values: NDArray[Any], now: float, spacing: float
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield each row with the memory that it goes to."""
        last = len(values) - 1
        for i, row in enumerate(values):
            yield row, history.place(now - (last - i) * spacing)

    def _now(self, time: Any) -> float:
        if time is None:
            return 0.0 if self._time_s is None else self._time_s + self._step_s
        if isinstance(time, bool) or not isinstance(time, int | float | np.integer | np.floating):
            refuse("time", f"expected seconds, found a {type(time).__name__}", "time.monotonic()")
        if not math.isfinite(time):
            refuse("time", f"expected seconds, found {time}", "time.monotonic()")
        if self._time_s is not None and time <= self._time_s:
            refuse("time", f"{time:.6f} s is not after {self._time_s:.6f} s", "reset() begins a new episode")
        return float(time)

    def _chunk(self, task: str, given: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Returns the chunk ``(H, A)`` of the policy. What may lack, and is not ``given`` now, is padding."""
        for key, history in self._histories.items():
            out, is_pad = self._out[key]
            if key in given:
                history.window(out, is_pad)
            else:
                is_pad[:] = True
        device = next(self._policy.parameters()).device
        batch = {**self._batch, "task": [task]}
        if device.type != "cpu":
            batch = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
        with torch.inference_mode():  # a few percent faster than no_grad
            actions = self._policy.act(batch)  # type: ignore[operator]
        found = tuple(actions.shape) if isinstance(actions, Tensor) else type(actions).__name__
        if (
            not isinstance(actions, Tensor)
            or actions.ndim != 3
            or actions.shape[0] != 1
            or actions.shape[2] < self._action_size
        ):
            expected = (1, self.spec.action[0], self._action_size)
            refuse("", f"expected act to return actions {expected}, found {found}", "see docs/policies.md")
        chunk: NDArray[np.float32] = actions[0, :, : self._action_size].detach().float().cpu().numpy().copy()
        if not np.isfinite(chunk[: self.execute]).all():
            refuse("", "the policy's action is not finite", "stop the robot; validate the run again")
        return chunk

    def _history(self, key: str) -> History:
        """Returns the history of a key, and prepare its entries of the batch."""
        spec, camera = self.spec, key.removeprefix(IMAGES)
        if key in self._cameras:
            rows, channels, height, width = self._cameras[key]
            shape: tuple[int, ...] = (height, width, channels)
            dtype: Any = np.uint16 if camera in spec.depth else np.uint8
        else:
            rows, *rest = self._numbers[key]
            shape, dtype = tuple(rest), np.float32
        rows -= spec.ahead_rows
        out, is_pad = np.zeros((1, rows, *shape), dtype=dtype), np.zeros((1, rows), dtype=np.bool_)
        tensor = torch.from_numpy(out)
        self._batch[key] = tensor.permute(0, 1, 4, 2, 3) if key in self._cameras else tensor
        self._batch[f"{key}_is_pad"] = torch.from_numpy(is_pad)
        self._out[key] = out[0], is_pad[0]
        times = spec.description.window_times_s(key, rows)
        if times is not None and times[-1] > 1e-9:
            cure = "train with delta_timestamps that end at 0"
            refuse(key, f"the policy was trained on what comes {times[-1]:g} s after the frame", cure)
        return History(rows, shape, dtype, times)

    def _resize(self, image: NDArray[Any], place: NDArray[Any]) -> None:
        put = resize_depth if image.dtype == np.uint16 else resize
        put(*fit_into(image, place, self.spec.image_resize))

    def _say_if_sparse(self, key: str, num_given: int, now: float) -> None:
        """Say once if the rows of a window are further apart than in training, so that some of them repeat."""
        rate, shape = self.spec.rates_hz.get(key), self._numbers.get(key, (1,))
        if rate is None or self._time_s is None or shape[0] == 1:
            return
        apart_s = (now - self._time_s) / num_given
        if apart_s > _LATE / rate:
            name = "state" if key == STATE else f"sensors.{key.removeprefix(SENSORS)}"
            problem = f"{name}: rows {apart_s * 1e3:.3g} ms apart, and training had {1e3 / rate:.3g} ms: some repeat"
            self._tell(f"{key} apart", f"{problem} (give several rows at once, the newest last, or observe() between)")

    def _doubt(self, what: str, problem: str, cure: str) -> None:
        """Refuse what may be a mistake if the runner is strict; otherwise say it once."""
        if self._strict:
            raise UsageError(f"runner: {problem}", cure)
        self._tell(f"{what} {problem}" if what == "task" else what, f"{problem} ({cure})")

    def _tell(self, what: str, sentence: str) -> None:
        if what in self._told or len(self._told) > 1000:
            return
        self._told.add(what)
        if self._say is not None:
            self._say(f"runner: {sentence}")
        else:
            warnings.warn(f"runner: {sentence}", stacklevel=5)  # about where the user calls step


@dataclass(frozen=True)
class RunnerMaker:
    """Makes runners of one policy: ``policy.runner(execute=4)``. ``spec`` says what they take and give."""

    policy: nn.Module
    spec: SampleSpec

    def __call__(self, **options: Any) -> Runner:
        """Returns a runner; ``options`` are those of ``Runner``. The policy is no longer for training."""
        _put_channels_last(self.policy)
        return Runner(self.policy, self.spec, **options)


def _put_channels_last(policy: nn.Module) -> None:
    """Lay out the weights of convolutions as the images are, which saves an eighth of the time of ``act``.

    Weights that are trained keep torch's order: FSDP refuses another one.
    """
    for module in policy.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


def _robot(spec: SampleSpec, embodiment: str | None) -> str:
    """Returns the robot's name in ``spec.embodiments``; empty if the policy was trained on one robot."""
    known = [*spec.embodiments]
    if embodiment is None:
        if known:
            refuse("embodiment", "missing", f"the policy was trained on several robots: {', '.join(known)}")
        return ""
    if embodiment not in known:
        refuse("embodiment", f"{embodiment!r} is unknown", did_you_mean(embodiment, known) if known else "leave it out")
    return embodiment
