"""Measures a policy of the demo in closed loop: does it do the task, look, and listen? One JSON line a seed.

python benchmarks/bench_demo.py --work FOLDER --seeds 0,1 -- --max-steps 3600

It records and ingests the demo as ``make demo`` does, trains with ``docs/demo.toml`` and the options after ``--``, and
evaluates fresh episodes: as they are (``success``), with black images (``blank``), with another pad of the scene named
(``swapped``: the share of episodes in which the needle enters the pad that is named) and in wordings that no recording
has (``paraphrased``). ``cpu_s`` is the processor's time of the training command, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from bench_policies import run
from machine import machine, rounded

from vlapipe.train.evaluation.success import Share

CONFIG = Path(__file__).resolve().parents[1] / "docs" / "demo.toml"
CASES: dict[str, tuple[str, ...]] = {
    "success": (),
    "blank": ("images=blank",),
    "swapped": ("instructions=swapped",),
    "paraphrased": ("instructions=paraphrased",),
}


def dataset_of(work: Path, recorded: int) -> Path:
    """Return the dataset, which is recorded and ingested if it is not there."""
    raw, data = work / f"raw-demo-{recorded}", work / f"data-demo-{recorded}"
    if not raw.exists():
        run("-m", "vlapipe", "demo", raw, "--episodes", recorded)
    if not (data / "manifest.json").exists():
        run("-m", "vlapipe", "ingest", "--dataset", raw, "--out", data, "--image-size", "128x96")
    return data


def acting(folder: Path, case: str, episodes: int) -> dict[str, Any]:
    """Return the share of episodes in which the needle entered the pad that was named."""
    arguments = [part for each in CASES[case] for part in ("--env-arg", each)]
    before = {*(folder / "eval").glob("*.json")}
    run("-m", "vlapipe", "eval", folder, "--env", "demo", "--episodes", episodes, "--seed", 1, "--films", 0, *arguments)
    [written] = {*(folder / "eval").glob("*.json")} - before
    found = [episode["info"] for episode in json.loads(written.read_text())["episodes"]]
    entered = sum(info.get("entered") == info["told"] for info in found)
    return Share(successes=entered, num_episodes=len(found)).to_json()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="keeps recordings, dataset and runs")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--recorded", type=int, default=100, help="episodes to learn from")
    parser.add_argument("--episodes", type=int, default=50, help="of each evaluation")
    parser.add_argument("--case", default="default", help="name of the case")
    parser.add_argument("--only", default=",".join(CASES), help="which evaluations, by comma")
    parser.add_argument("options", nargs="*", help="after --: options of vlapipe train")
    given = parser.parse_args()
    data = dataset_of(given.work, given.recorded)
    for seed in given.seeds.split(","):
        folder = given.work / f"demo-{given.case}-{seed}"
        command = ["train", "--data", data, "--out", folder, "--config", CONFIG, "--seed", seed, "--wandb=disabled"]
        cpu_s = run("-m", "vlapipe", *command, *given.options)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        config = json.loads((folder / "config.json").read_text())
        line = {"bench": "policies", "suite": "demo", "case": given.case, "policy": config["policy"]}
        line |= {"options": given.options, "seed": int(seed), "recorded": given.recorded}
        line |= {"steps": lines[-1]["step"], "samples": lines[-1]["step"] * config["data"]["batch_size"]}
        line |= {"cpu_s": rounded(cpu_s), "val_loss": [line for line in lines if "val/loss" in line][-1]["val/loss"]}
        line |= {case: acting(folder, case, given.episodes) for case in given.only.split(",")}
        print(json.dumps(line | {"load": rounded(os.getloadavg()[0])} | machine()), flush=True)


if __name__ == "__main__":
    main()
