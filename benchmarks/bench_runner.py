"""Measures ``runner.step`` at batch 1 on one thread: one JSON line a case, and how many ticks of 50 Hz are kept.

``step_ms`` is of steps that ask the policy (``execute=1``); ``queued_ms`` of those that take an action from a chunk.
The baseline is the policy's ``act`` alone on a batch that is ready, so that ``ratio`` says what the runner costs.
``held`` is the share of ticks of 20 ms whose step ended before the next tick. ``growth_bytes`` is what Python's and
NumPy's memory grew by over 10,000 steps. Weights are random: they change no time. ``load`` is that of the machine after
the case: with more than 1 on two cores, only ``step_cpu_ms``, ``ratio`` and ``growth_bytes`` say something.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
import tracemalloc
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from machine import machine, rounded

from vlapipe.train.data.batch_layout import Moments, SampleSpec
from vlapipe.train.data.description import Description
from vlapipe.train.policies.registry import build_policy
from vlapipe.train.robot.runner import Runner, RunnerMaker

STATE, CAMERAS = "observation.state", ("front", "wrist")
CASES: dict[str, dict[str, Any]] = {
    "states": {"images": (), "state_rows": 1},
    "states, 20 rows": {"images": (), "state_rows": 20},
    "two 224 cameras": {"images": CAMERAS, "state_rows": 1},
    "two 224 cameras from 640x480": {"images": CAMERAS, "state_rows": 1, "recorded": (480, 640)},
}
TICK_S, TICKS, STEPS = 0.02, 1000, 10_000


def moments(size: int) -> Moments:
    low, high = np.full(size, -3, np.float32), np.full(size, 3, np.float32)
    return Moments(mean=np.zeros(size, np.float32), std=np.ones(size, np.float32), min=low, max=high)


def spec_of(images: tuple[str, ...], state_rows: int) -> SampleSpec:
    rates = {STATE: 50.0, "action": 50.0, **{f"observation.images.{camera}": 30.0 for camera in images}}
    return SampleSpec(
        state=(state_rows, 14),
        images=dict.fromkeys(images, (1, 3, 224, 224)),
        action=(16, 14),
        moments={STATE: moments(14), "action": moments(14)},
        newest=state_rows - 1,
        description=Description(rates_hz=rates, tasks=("put the cup into the sink",)),
    )


def observations(spec: SampleSpec, size: tuple[int, int]) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "state": rng.normal(size=spec.state[1]),
            "images": {camera: rng.integers(0, 256, (*size, 3), dtype=np.uint8) for camera in spec.images},
            "task": "put the cup into the sink",
        }
        for _ in range(8)
    ]


def times_ms(runner: Runner, given: list[dict[str, Any]], count: int) -> list[float]:
    found = []
    for i in range(count):
        start = time.perf_counter()
        runner.step(given[i % len(given)])
        found.append((time.perf_counter() - start) * 1e3)
    return found


def cpu_ms(runner: Runner, given: list[dict[str, Any]], count: int) -> float:
    """The processor's time of a step, which other work on the machine changes little."""
    start = time.thread_time()
    for i in range(count):
        runner.step(given[i % len(given)])
    return (time.thread_time() - start) * 1e3 / count


def act_ms(policy: Any, runner: Runner, count: int) -> float:
    """The time of ``act`` alone, on the batch that the runner made last."""
    batch = {**runner._batch, "task": ["put the cup into the sink"]}
    found = []
    for _ in range(count):
        start = time.perf_counter()
        policy.act(batch)
        found.append((time.perf_counter() - start) * 1e3)
    return float(np.median(found))


def ticks_held(runner: Runner, given: list[dict[str, Any]], count: int) -> float:
    """The share of ticks whose step ended before the next tick."""
    begin, held = time.perf_counter() + TICK_S, 0
    for i in range(count):
        due = begin + i * TICK_S
        time.sleep(max(0.0, due - time.perf_counter()))
        runner.step(given[i % len(given)])
        held += time.perf_counter() < due + TICK_S
    return held / count


def growth_bytes(runner: Runner, given: list[dict[str, Any]], count: int) -> int:
    gc.collect()
    tracemalloc.start()
    times_ms(runner, given, 100)
    before = tracemalloc.get_traced_memory()[0]
    for i in range(count):
        runner.step(given[i % len(given)])
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return after - before


def measure(case: Mapping[str, Any], args: Mapping[str, Any], steps: int, ticks: int) -> dict[str, Any]:
    spec = spec_of(case["images"], case["state_rows"])
    policy = build_policy("regression", spec, args).eval()
    given = observations(spec, case.get("recorded", (224, 224)))
    make = RunnerMaker(policy, spec)
    runner = make(execute=1, say=print)
    times_ms(runner, given, 20)
    each = times_ms(runner, given, 200)
    alone = act_ms(policy, runner, 200)
    queued = times_ms(make(execute=16, say=print), given, 160)
    return {
        "step_ms": float(np.median(each)),
        "step_cpu_ms": cpu_ms(runner, given, 200),
        "step_ms_p99": float(np.percentile(each, 99)),
        "act_ms": alone,
        "ratio": float(np.median(each)) / alone,
        "queued_ms": float(np.median(queued)),
        "held": ticks_held(runner, given, ticks),
        "ticks": ticks,
        "growth_bytes": growth_bytes(runner, given, steps),
        "steps": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--policy-args", default="{}", help="JSON of [policy_args], for example of another size")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--ticks", type=int, default=TICKS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    args = json.loads(options.policy_args)
    for name, case in CASES.items():
        found = {key: rounded(value) for key, value in measure(case, args, options.steps, options.ticks).items()}
        line = {"bench": "runner", "case": name, "policy": "regression", "policy_args": args}
        print(json.dumps(line | found | {"load": rounded(os.getloadavg()[0])} | machine()), flush=True)


if __name__ == "__main__":
    main()
