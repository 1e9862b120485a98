"""Measures policies in closed loop on Meta-World's MT10, beside plain networks: one JSON line a case.

pip install metaworld
python benchmarks/bench_policies.py --suite state --work FOLDER --seeds 0,1,2
python benchmarks/bench_policies.py --suite camera --work FOLDER --case "4 epochs" --recorded 25 -- --epochs 4
python benchmarks/bench_policies.py --suite camera-goal --work FOLDER --seeds 0,1,2

It records 50 episodes a task with ``examples/metaworld/mt10.py``, ingests them, and for each seed and policy runs
``vlapipe train`` and ``vlapipe eval`` as a user would. The plain networks of ``plain_policies.py`` are trained by the
same command on the same samples in the same order. What differs from the defaults of ``vlapipe train`` is in
``options``. The suite ``camera`` has one camera and the hand; ``camera-goal`` tells the place of the goal too, because
one camera does not tell how far away a sphere of two pixels is.

``cpu_s`` is the processor's time of the whole command, its start and validations included. ``success`` is of episodes
that no recording has, with its 95 % interval (Wilson); ``lost`` counts the others by task.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from machine import machine, rounded

BENCHMARKS = Path(__file__).resolve().parent
EXAMPLE = BENCHMARKS.parent / "examples" / "metaworld"


class Suite(NamedTuple):
    """What a suite records, and what it tells the policy."""

    recorded: str  # names the recordings; suites of one name share them
    recorder: list[str]  # options of mt10.py
    schema: str
    plain: str  # the plain network
    state: list[str]  # options of vlapipe train
    env: list[str]  # options of vlapipe eval


STATES = Suite("state", [], "mt10.toml", "plain_policies:Perceptron", [], [])
CAMERA = Suite(
    "camera", ["--camera"], "mt10_camera.toml", "plain_policies:SmallConvNet", [], ["--env-arg", "camera=true"]
)
GOAL_TOLD = CAMERA._replace(
    state=["--state", "robot/state", "--state", "robot/goal"], env=[*CAMERA.env, "--env-arg", "goal=true"]
)
SUITES = {"state": STATES, "camera": CAMERA, "camera-goal": GOAL_TOLD}


def run(*arguments: object) -> float:
    """Run a command of Python, and return the processor's time that it took, in seconds."""
    paths = [str(BENCHMARKS), str(EXAMPLE), os.environ.get("PYTHONPATH", "")]
    given = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONWARNINGS": "ignore"}
    given = {"OMP_NUM_THREADS": "1", "MUJOCO_GL": "osmesa"} | given
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *map(str, arguments)], env=given, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def dataset_of(suite: Suite, work: Path, episodes: int) -> Path:
    """Return the dataset of a suite, which is recorded and ingested if it is not there."""
    raw, data = work / f"raw-{suite.recorded}", work / f"data-{suite.recorded}"
    if not raw.exists():
        run(EXAMPLE / "mt10.py", raw, "--episodes", episodes, *suite.recorder)
    if not data.exists():
        run("-m", "vlapipe", "ingest", "--dataset", raw, "--schema", EXAMPLE / suite.schema, "--out", data)
    return data


def measure(suite: Suite, data: Path, folder: Path, seed: int, options: list[str], episodes: int) -> dict[str, Any]:
    """Train and act; return a line's figures."""
    cpu_s = run("-m", "vlapipe", "train", "--data", data, "--out", folder, "--seed", seed, "--wandb=disabled", *options)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    validated = [line for line in lines if "val/loss" in line]
    config = json.loads((folder / "config.json").read_text())
    found = acting(suite, folder, episodes)
    return {
        "steps": lines[-1]["step"],
        "samples": lines[-1]["step"] * config["data"]["batch_size"],
        "cpu_s": cpu_s,
        "val_loss": validated[-1]["val/loss"],
        "action_error": validated[-1]["val/action_error"],
        **found,
    }


def acting(suite: Suite, folder: Path, episodes: int) -> dict[str, Any]:
    """Return the successes of a run."""
    command = ["eval", folder, "--env", "mt10:make_env", "--episodes", episodes, "--seed", 1, "--films", 0]
    run("-m", "vlapipe", *command, *suite.env)
    [written] = (folder / "eval").glob("*.json")
    result = json.loads(written.read_text())
    share = result["success"]
    lost = {task: of["num_episodes"] - of["successes"] for task, of in result["tasks"].items()}
    return {
        "success": [share["successes"], share["num_episodes"]],
        "interval": [share["low"], share["high"]],
        "lost": {task: number for task, number in lost.items() if number},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--suite", choices=[*SUITES], default="state")
    parser.add_argument("--work", type=Path, help="keeps recordings, dataset and runs")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--recorded", type=int, default=50, help="episodes of a task")
    parser.add_argument("--episodes", type=int, default=50, help="of the evaluation, in turns of the ten tasks")
    parser.add_argument("--case", default="default", help="name of the case")
    parser.add_argument("--plain", choices=["beside", "alone", "no"], default="beside", help="plain network as well")
    parser.add_argument("options", nargs="*", help="after --: options of vlapipe train")
    given = parser.parse_args()
    if importlib.util.find_spec("metaworld") is None:
        sys.stderr.write("metaworld: not installed, left out\n")
        return
    if given.work is None:
        given.work = Path(tempfile.mkdtemp(prefix="bench_policies_"))
    suite = SUITES[given.suite]
    data = dataset_of(suite, given.work, given.recorded)
    policies = {"regression": [], "plain": ["--policy", suite.plain]}
    wanted = {"beside": ["regression", "plain"], "alone": ["plain"], "no": ["regression"]}[given.plain]
    for seed in given.seeds.split(","):
        for name in wanted:
            options = [*policies[name], *suite.state, *given.options]
            folder = given.work / f"{given.suite}-{given.case}-{name}-{seed}".replace(" ", "-")
            line = {"bench": "policies", "suite": given.suite, "case": given.case, "policy": name, "options": options}
            line |= {"seed": int(seed), "recorded": given.recorded}
            found = measure(suite, data, folder, int(seed), options, given.episodes)
            found = {key: rounded(value) for key, value in found.items()}
            print(json.dumps(line | found | {"load": rounded(os.getloadavg()[0])} | machine()), flush=True)


if __name__ == "__main__":
    main()
