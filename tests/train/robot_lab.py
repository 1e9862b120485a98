"""A tiny trained run and observations for it, for the tests of what a robot holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from test_loop import config

from vlapipe.train.loop import train
from vlapipe.train.robot.runner import RunnerMaker

TASK = "insert the needle into the red target"


def make_run(data: Path, out: Path, **changes: Any) -> Path:
    """A run of one step of a policy of a few hundred numbers; its sample is short."""
    sample = {
        "state_rows": 5,
        "state_stride": 2,
        "sensor_rows": 3,
        "action_rows": 6,
        "sensors": {"force": "sensor/force"},
    }
    tiny = {"policy": "tiny_policy:TinyPolicy", "policy_args": {}}
    train(config(data, out, **({"max_steps": 1, "batch_size": 4, "sample": sample} | tiny | changes)))
    return out


def observed(**changes: Any) -> dict[str, Any]:
    """An observation of the arm of ``factories.make_dataset``."""
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (24, 32, 3), dtype=np.uint8) for name in ("View1", "View2")}
    whole = {"state": np.linspace(-1, 1, 12), "sensors": {"force": 0.5}, "images": images, "task": TASK}
    return whole | changes


def without_camera(policy: Any, camera: str) -> Any:
    """A maker of runners of the same policy, as if some episodes of training had lacked a camera."""
    spec = replace(policy.spec, optional=frozenset({f"observation.images.{camera}"}))
    policy.act._spec = spec
    return RunnerMaker(policy, spec)
