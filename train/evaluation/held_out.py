"""Compares a trained policy's actions with the recorded ones of a dataset: figures, and a page for some episodes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.format.atomic import write_bytes
from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.schemas.errors import UsageError
from vlapipe.train.checkpoint.saved_policy import LoadedPolicy
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.data.device_copy import to_device
from vlapipe.train.data.loader import Loader
from vlapipe.train.evaluation.action_error import ActionErrors, Dimensions, Figures, recorded_actions
from vlapipe.train.evaluation.pages import Chunk, write_page
from vlapipe.train.evaluation.yardsticks import RecordedActions, Yardsticks
from vlapipe.train.parallel.rng import seed_generators
from vlapipe.train.run_loader import make_loader, open_datasets

__all__ = ["HeldOutResult", "compare_with_recorded"]

_BATCH = 8  # frames that follow each other; batches are evenly spread over the split


@dataclass(frozen=True, kw_only=True)
class HeldOutResult:
    """The figures of a split of a dataset, and where the pages are, the worst episode first."""

    data: Path
    split: str
    num_frames: int  # that the policy acted on
    figures: Figures
    episodes: Sequence[tuple[str, float]]  # id and relative error, the worst first
    pages: Sequence[Path] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns the result as JSON values."""
        return {
            "data": str(self.data),
            "split": self.split,
            "num_frames": self.num_frames,
            **self.figures.to_json(),
            "episodes": [{"episode": name, "relative": error} for name, error in self.episodes],
            "pages": [str(page) for page in self.pages],
        }

    def write(self, path: Path) -> None:
        """Write the result as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, (json.dumps(self.to_json(), indent=1) + "\n").encode())

    def lines(self) -> list[str]:
        """Returns the report."""
        first = f"{self.data}, {self.split} split: action error over {self.num_frames:,} frames"
        worst = [f"worst episode {self.episodes[0][0]}  {self.episodes[0][1]:.2f}"] if self.episodes else []
        pages = [f"pages {self.pages[0].parent}"] if self.pages else []
        return [first, *self.figures.lines(), *worst, *pages]


def compare_with_recorded(
    policy: LoadedPolicy, config: TrainConfig, data: Path, *, split: str, frames: int, pages: int, out: Path
) -> HeldOutResult:
    """Let the policy act on ``frames`` evenly spread frames; draw the ``pages`` worst episodes into ``out``.

    ``config`` is that of the run. The policy's own transforms are part of its ``act``.

    Raises:
        UsageError: the dataset does not have what the policy was trained on, or the split has no frame.
    """
    config = replace(config, data=replace(config.data, paths=(data,), transforms=None))
    datasets = open_datasets(config)
    loader = _loader(config, datasets, split, _BATCH)
    if not loader.num_frames:
        raise UsageError(f"--data {data}: no frame in the {split} split", "vlapipe inspect shows what it holds")
    _require_fit(policy, loader, data)
    spec = loader.described(loader.spec)
    dimensions, names = Dimensions.of(spec), loader.instructions
    yardsticks = Yardsticks(config, split)
    recorded = yardsticks.recorded
    numbers = np.unique(recorded.episode).tolist()
    of_tasks: dict[str, ActionErrors] = {}
    of_episodes = {who: ActionErrors([str(n) for n in numbers], dimensions.periods) for who in ("policy", "mean")}
    num_batches = -(-loader.num_frames // _BATCH)
    count = min(num_batches, max(1, -(-frames // _BATCH)))
    steps = [i * num_batches // count for i in range(count)]
    num_frames = 0
    with Progress("eval", count, "batch") as progress:
        for number, batch in enumerate(loader.at_steps(steps, loader.parts[0])):
            target, counts = recorded_actions(loader.spec, batch)
            answers = {"policy": _act(policy, batch, number), **yardsticks.answers(batch)}
            for who, answer in answers.items():
                of_tasks.setdefault(who, ActionErrors(names, dimensions.periods)).add(
                    answer, target, counts, batch["task"]
                )
                if who in of_episodes:
                    of_episodes[who].add(answer, target, counts, [str(i) for i in batch["episode_index"].tolist()])
            num_frames += int((~batch["action_is_pad"]).any(1).sum())
            progress.advance()
    by_episode = _figures(dimensions, of_episodes).worst_tasks()
    worst = [(int(name), error) for name, error, _ in by_episode if name.isdigit()]
    of_numbers = datasets[0].episode_column("id")
    ids = {number: str(of_numbers[number].as_py()) for number in numbers}
    frame_by_frame, drawn = _loader(config, datasets, split, 1), []
    for place, (number, error) in enumerate(worst[:pages]):
        path = out / f"episode-{place + 1:02}-{number}.png"
        _draw(policy, frame_by_frame, recorded, dimensions, number, f"{ids[number]}", error, path)
        drawn.append(path)
    return HeldOutResult(
        data=data,
        split=split,
        num_frames=num_frames,
        figures=_figures(dimensions, of_tasks),
        episodes=[(ids[number], error) for number, error in worst],
        pages=drawn,
    )


def _figures(dimensions: Dimensions, errors: dict[str, ActionErrors]) -> Figures:
    sums = {who: of.sums.cpu().numpy() for who, of in errors.items() if of.sums is not None}
    return Figures(dimensions=dimensions, tasks=errors["policy"].tasks, sums=sums)


def _draw(
    policy: LoadedPolicy,
    loader: Loader,
    recorded: RecordedActions,
    dimensions: Dimensions,
    episode: int,
    name: str,
    error: float,
    path: Path,
) -> None:
    """Draw one episode: a chunk is predicted where the one before ends. ``loader`` reads a frame at a time."""
    frames = np.flatnonzero(recorded.episode == episode)
    times, rows, H = recorded.time_s[frames], recorded.row[frames], policy.spec.action[0]
    step_s = recorded.step_s or float(np.diff(times).mean() if len(times) > 1 else 1.0)
    starts = np.searchsorted(times, np.arange(times[0], times[-1], H * step_s) - 1e-6)
    chunks, instruction = [], ""
    of_loader, rows_of_loader = loader.places()
    starting = np.isin(rows_of_loader, rows[np.unique(starts.clip(0, len(rows) - 1))])
    wanted = np.flatnonzero((of_loader == episode) & starting).tolist()
    for number, batch in enumerate(loader.at_steps(wanted, loader.parts[0])):
        instruction = batch["task"][0]
        values = _act(policy, batch, number)[0].numpy()
        time_s = (float(batch["timestamp"][0]) + step_s * np.arange(H)).astype(np.float64)
        chunks.append(Chunk(time_s=time_s, values=values))
    labels = [f"{n} ({u})" if u else n for n, u in zip(dimensions.names, dimensions.units, strict=True)]
    subtitle = f"{instruction}  -  relative error {error:.2f} (1: no better than the mean action)"
    write_page(
        path,
        title=name,
        subtitle=subtitle,
        labels=labels,
        time_s=times,
        recorded=recorded.action[frames],
        chunks=chunks,
    )


def _act(policy: LoadedPolicy, batch: Batch, number: int) -> torch.Tensor:
    observation = {key: value for key, value in batch.items() if not key.startswith("action")}
    seed_generators(0, "validation", step=number, rank=0)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        actions = policy.act(to_device(observation, next(policy.parameters()).device))
    return actions.float().cpu()


def _loader(config: TrainConfig, datasets: Sequence[Dataset], split: str, batch_size: int) -> Loader:
    quiet: dict[str, Any] = {"num_workers": 1, "shuffle": False, "say": lambda _: None}
    return make_loader(config, datasets, split=split, batch_size=batch_size, **quiet)


def _require_fit(policy: LoadedPolicy, loader: Loader, data: Path) -> None:
    for what in ("state", "sensors", "images", "action"):
        trained, here = getattr(policy.spec, what), getattr(loader.spec, what)
        if trained != here:
            problem = f"--data {data}: {what} is {here}, the policy was trained on {trained}"
            raise UsageError(problem, "give a dataset of the same kind, or the run's own")
