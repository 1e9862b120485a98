"""Makes the environment that a user names, and brings its observations to what a policy reads.

An environment has the methods of Gymnasium: ``reset(seed=...)`` gives an observation and ``info``, ``step(action)``
gives an observation, reward, ``terminated``, ``truncated`` and ``info``, and ``render()`` gives a picture. It need not
be Gymnasium's own. Its observation is that of ``Runner.step``. ``info["is_success"]`` of the last step says whether the
task is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.mapped.layout import STATE
from vlapipe.schemas.errors import UsageError, VlapipeError
from vlapipe.train.data.named_object import attribute, import_named, one_line, place_of
from vlapipe.train.data.sample_spec import SampleSpec

__all__ = ["BUILT_IN", "Environment", "make_environment", "observation_for", "require_rate"]

BUILT_IN = {"demo": "vlapipe.pipeline.demo.environment:DemoEnv"}  # by name, because training imports nothing of ingest
_CURE = "see docs/evaluation.md"


class Environment(Protocol):
    """What is called. ``render`` may be missing, and so may ``action_hz``, the actions that a second of it takes."""

    def reset(self, *, seed: int) -> tuple[Any, Mapping[str, Any]]:
        """Begin the episode of a seed."""

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, Mapping[str, Any]]:
        """Act for one step."""


def make_environment(name: str, arguments: Mapping[str, Any] | None = None) -> Environment:
    """Returns what the function or class ``pkg.module:make_env`` gives, or a built-in environment such as ``demo``.

    Raises:
        UsageError: there is no such environment, it cannot be made with these arguments, or it lacks a method.
    """
    target = BUILT_IN.get(name, name)
    module_name, _, function_name = target.partition(":")
    what = f"environment {name}"
    if not function_name:
        raise UsageError(f"{what}: unknown", f"{', '.join(BUILT_IN)}, or your own as pkg.module:make_env")
    module = import_named(what, module_name)
    make = attribute(module, function_name)
    if not callable(make):
        raise UsageError(f"{what}: {module_name} has no function {function_name!r}", _CURE)
    try:
        environment: Any = make(**(arguments or {}))
    except VlapipeError:
        raise
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in (arguments or {}).items())
        problem = f"{what}: {function_name}({given}) fails: {one_line(error)}{place_of(error)}"
        raise UsageError(problem, _CURE) from error
    for method in ("reset", "step"):
        if not callable(getattr(environment, method, None)):
            found = type(environment).__name__
            raise UsageError(f"{what}: expected an object with reset and step, found a {found} without {method}", _CURE)
    found_environment: Environment = environment
    return found_environment


def require_rate(environment: Environment, name: str, spec: SampleSpec) -> None:
    """Check that a chunk's actions are as far apart as the environment's steps, if both say how far.

    Raises:
        UsageError: they are not.
    """
    takes, gives = getattr(environment, "action_hz", None), spec.rates_hz.get("action")
    if takes and gives and abs(takes - gives) > 0.05 * takes:
        cure = "train with another action_stride, so that actions follow each other"
        raise UsageError(
            f"environment {name}: takes {takes:g} actions a second, the policy's chunk has {gives:g}", cure
        )


def observation_for(spec: SampleSpec, observation: Any) -> dict[str, Any]:
    """Returns what the runner takes of an observation that may have more: other fields, cameras or sensors.

    A ``state`` that is a dict of fields becomes their columns side by side, in the policy's order, (D,) or (K, D).

    Raises:
        UsageError: the observation is no dict, or lacks a field of the state.
    """
    if not isinstance(observation, Mapping):
        cure = 'give {"state": ..., "images": {...}, "task": "..."} in an adapter; ' + _CURE
        raise UsageError(f"environment: expected a dict as observation, found a {type(observation).__name__}", cure)
    chosen = {key: observation[key] for key in ("state", "task") if key in observation}
    for key, known in (("images", spec.images), ("sensors", spec.sensors)):
        given = observation.get(key)
        if isinstance(given, Mapping):
            chosen[key] = {name: value for name, value in given.items() if name in known}
    if isinstance(chosen.get("state"), Mapping):
        chosen["state"] = _side_by_side(spec, chosen["state"])
    return chosen


def _side_by_side(spec: SampleSpec, fields: Mapping[str, Any]) -> NDArray[Any]:
    wanted = [field.path for field in spec.description.fields_of(STATE)] or [*fields]
    missing = [path for path in wanted if path not in fields]
    if missing:
        problem = f"environment: state: {', '.join(missing)} missing; it has {', '.join(map(str, fields))}"
        raise UsageError(problem, "name the fields of the state as the dataset does, stream/field")
    return np.concatenate([np.atleast_1d(np.asarray(fields[path], dtype=np.float32)) for path in wanted], axis=-1)
