"""Evaluates the policy of a run that has been trained: what ``vlapipe eval`` calls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.schemas.errors import UsageError
from vlapipe.train.checkpoint.saved_policy import LoadedPolicy, load_policy
from vlapipe.train.config import CONFIG_FILE, TrainConfig, read_saved_config
from vlapipe.train.evaluation.closed_loop import ClosedLoopResult, Films, episode_seeds, run_episodes
from vlapipe.train.evaluation.environments import make_environment
from vlapipe.train.evaluation.held_out import HeldOutResult, compare_with_recorded
from vlapipe.train.run_files import EVAL_FOLDER

__all__ = ["evaluate_in_environment", "evaluate_on_dataset", "folder_name"]


def evaluate_in_environment(
    run: Path,
    environment: str,
    *,
    episodes: int = 50,
    seed: int = 0,
    arguments: Mapping[str, Any] | None = None,
    checkpoint: str = "newest",
    execute: int | None = None,
    ensemble: float | None = None,
    films: int = 10,
) -> ClosedLoopResult:
    """Run the policy of ``run`` in closed loop; write the result and films of failures under ``run/eval``.

    Args:
        run: the run's folder, or one of its checkpoints.
        environment: ``demo``, or ``pkg.module:make_env``; see ``make_environment``.
        episodes: number of episodes.
        seed: which episodes; the same seed gives the same ones.
        arguments: keywords for the environment.
        checkpoint: ``newest`` or ``best``.
        execute: actions of a chunk that are used; see ``Runner``.
        ensemble: average overlapping chunks; see ``Runner``.
        films: number of failures that are drawn; with 0, none, and no success either.

    Raises:
        UsageError: there is no such run or environment, or they do not fit each other.
    """
    made = make_environment(environment, arguments)
    policy = _on_device(load_policy(run, checkpoint=checkpoint))
    folder = _run_folder(run)
    asked = {"checkpoint": _which(run, folder, checkpoint), "execute": execute, "ensemble": ensemble}
    name, out = folder_name(environment, arguments or {}, seed, asked), folder / EVAL_FOLDER
    with Progress("eval", episodes, "episode") as progress:
        kept = Films(folder=out / name, most=films)
        runner = policy.runner(execute=execute, ensemble=ensemble, say=progress.say)
        seeds, spec = episode_seeds(seed, episodes), policy.spec
        found = run_episodes(
            runner, spec, made, seeds, name=environment, films=kept, after=lambda _: progress.advance()
        )
    result = ClosedLoopResult(
        environment=environment, arguments=dict(arguments or {}), seed=seed, episodes=found, films=kept.written
    )
    result.write(out / f"{name}.json")
    return result


def evaluate_on_dataset(
    run: Path, data: Path, *, split: str = "val", frames: int = 2000, pages: int = 6, checkpoint: str = "newest"
) -> HeldOutResult:
    """Compare the policy of ``run`` with the recorded actions of a dataset; write figures and pages under ``run/eval``.

    Args:
        run: the run's folder, or one of its checkpoints.
        data: the dataset, with the same kind of samples as the run's.
        split: of the dataset, ``val`` or ``train``.
        frames: about how many frames the policy acts on, evenly spread over the split.
        pages: number of episodes that are drawn, the worst first.
        checkpoint: ``newest`` or ``best``.

    Raises:
        UsageError: there is no such run or dataset, or they do not fit each other.
    """
    policy = _on_device(load_policy(run, checkpoint=checkpoint))
    folder = _run_folder(run)
    unused = {"data": [data], "weights": {}, "mix": {}, "resume": False, "batch_size": 1}
    config = TrainConfig.of(**{**read_saved_config(folder), **unused})
    which = _which(run, folder, checkpoint)
    out = folder / EVAL_FOLDER / "-".join(filter(None, [data.resolve().name, split, which]))
    result = compare_with_recorded(policy, config, data, split=split, frames=frames, pages=pages, out=out)
    result.write(out.with_name(f"{out.name}.json"))
    return result


def folder_name(environment: str, arguments: Mapping[str, Any], seed: int, asked: Mapping[str, Any]) -> str:
    """Returns the name of the files of an evaluation, so that no other evaluation has the same.

    It says the environment, its arguments, the seed, and what was ``asked`` of the policy beside the defaults.
    """
    beside = {key: value for key, value in asked.items() if value is not None}
    told = [f"{key}-{value}" for key, value in {**arguments, **beside}.items()]
    parts = [environment.rpartition(":")[0] or environment, *told, f"seed-{seed}"]
    return "-".join("".join(c if c.isalnum() or c in "._-" else "-" for c in part) for part in parts)


def _run_folder(run: Path) -> Path:
    """Returns the folder of a run, also for the folder of one of its checkpoints."""
    folder = run if (run / CONFIG_FILE).is_file() else run.parent.parent
    if not (folder / CONFIG_FILE).is_file():
        raise UsageError(f"{run}: no run", "give the --out folder of vlapipe train")
    return folder


def _which(run: Path, folder: Path, checkpoint: str) -> str | None:
    """Returns the checkpoint that is asked for; None if it is the newest of the run in ``folder``."""
    if run != folder:
        return run.name
    return None if checkpoint == "newest" else checkpoint


def _on_device(policy: LoadedPolicy) -> LoadedPolicy:
    return policy.to("cuda") if torch.cuda.is_available() else policy
