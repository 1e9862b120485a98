"""Runs a policy in an environment, episode by episode, and counts its successes. The seeds decide everything."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.format.atomic import write_bytes
from vlapipe.schemas.errors import UsageError, VlapipeError
from vlapipe.train.data.named_object import one_line, place_of
from vlapipe.train.data.sample_spec import SampleSpec
from vlapipe.train.evaluation.environments import Environment, observation_for, require_rate
from vlapipe.train.evaluation.film import Film
from vlapipe.train.evaluation.success import ClosedLoopEpisode, Share, by_task, share_of
from vlapipe.train.robot.runner import Runner

__all__ = ["ClosedLoopResult", "Films", "episode_seeds", "run_episodes"]

_SEEDS_APART = 1_000_000  # between the first episodes of two seeds; a multiple of the demo's four colours
_MOST_STEPS = 10_000  # of an episode whose environment sets no limit
_OWN = {"is_success", "success", "outcome", "task"}


def episode_seeds(seed: int, num_episodes: int) -> range:
    """Returns the seeds of the episodes: the same for the same ``seed``, and others for another one."""
    return range(seed * _SEEDS_APART, seed * _SEEDS_APART + num_episodes)


@dataclass(frozen=True, kw_only=True)
class ClosedLoopResult:
    """All episodes of an evaluation, and where the films of some of them are."""

    environment: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seed: int
    episodes: Sequence[ClosedLoopEpisode]
    films: Sequence[Path] = ()

    @property
    def success(self) -> Share:
        """Successes of all episodes."""
        return share_of(self.episodes)

    def to_json(self) -> dict[str, Any]:
        """Returns the result as JSON values."""
        return {
            "environment": self.environment,
            "arguments": dict(self.arguments),
            "seed": self.seed,
            "success": self.success.to_json(),
            "tasks": {task: share.to_json() for task, share in by_task(self.episodes).items()},
            "outcomes": self._outcomes(),
            "films": [str(path) for path in self.films],
            "episodes": [episode.to_json() for episode in self.episodes],
        }

    def write(self, path: Path) -> None:
        """Write the result as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, (json.dumps(self.to_json(), indent=1) + "\n").encode())

    def lines(self) -> list[str]:
        """Returns the report: all episodes, then the tasks, the worst first, then how the others ended."""
        given = "".join(f" {key}={value}" for key, value in self.arguments.items())
        found = [f"{self.environment}{given}, seed {self.seed}: success {self.success}"]
        tasks = by_task(self.episodes)
        width = max(map(len, tasks), default=0)
        found += [f"  {task:<{width}}  {share}" for task, share in tasks.items()] if len(tasks) > 1 else []
        found += [f"  {count} x {outcome}" for outcome, count in self._outcomes().items()]
        return found

    def _outcomes(self) -> dict[str, int]:
        """How the episodes without success ended, the most frequent end first."""
        ends = [episode.outcome or "no success" for episode in self.episodes if not episode.is_success]
        return dict(sorted(((end, ends.count(end)) for end in set(ends)), key=lambda item: (-item[1], item[0])))


@dataclass(kw_only=True)
class Films:
    """Writes film strips into ``folder``: of failures, up to ``most``, and of the first success."""

    folder: Path
    most: int = 10
    written: list[Path] = field(default_factory=list)
    _num_failures: int = 0
    _has_success: bool = False

    def begin(self, environment: Environment) -> Film | None:
        """Returns an empty film, unless there are enough or the environment draws no pictures."""
        is_wanted = self.most > 0 and (self._num_failures < self.most or not self._has_success)
        return Film() if is_wanted and callable(getattr(environment, "render", None)) else None

    def keep(self, film: Film, episode: ClosedLoopEpisode) -> None:
        """Write the film, if one of this kind is still wanted."""
        if episode.is_success and self._has_success:
            return
        if not episode.is_success and self._num_failures >= self.most:
            return
        self._has_success |= episode.is_success
        self._num_failures += not episode.is_success
        kind = "success" if episode.is_success else "failure"
        name = re.sub(r"[^A-Za-z0-9]+", "-", episode.task).strip("-")[:60]
        path = self.folder / f"{kind}-{episode.seed}-{name}.png"
        end = "success" if episode.is_success else episode.outcome or "no success"
        film.write(path, f"{episode.instruction}  -  seed {episode.seed}: {end}", is_good=episode.is_success)
        if path.exists():
            self.written.append(path)


def run_episodes(
    runner: Runner,
    spec: SampleSpec,
    environment: Environment,
    seeds: Iterable[int],
    *,
    name: str = "environment",
    films: Films | None = None,
    after: Callable[[ClosedLoopEpisode], None] = lambda _: None,
) -> list[ClosedLoopEpisode]:
    """Run one episode for each seed. ``after`` is called with each, as it ends.

    Raises:
        UsageError: the environment fails, or gives or takes something else than the policy.
    """
    require_rate(environment, name, spec)
    episodes = []
    for seed in seeds:
        film = None if films is None else films.begin(environment)
        with _explained(name):
            episode = _run(runner, spec, environment, seed, film)
        if films is not None and film is not None:
            films.keep(film, episode)
        episodes.append(episode)
        after(episode)
    return episodes


def _run(runner: Runner, spec: SampleSpec, environment: Environment, seed: int, film: Film | None) -> ClosedLoopEpisode:
    runner.reset()
    observation, info = environment.reset(seed=seed)
    instruction = str(observation.get("task", "")) if isinstance(observation, Mapping) else ""
    task = str(info.get("task") or instruction or "all")
    total, step, ended = 0.0, 0, False
    _shoot(film, environment, step)
    while not ended and step < _MOST_STEPS:
        action = runner.step(observation_for(spec, observation))
        observation, reward, terminated, truncated, info = environment.step(action)
        step, total, ended = step + 1, total + float(reward), bool(terminated or truncated)
        _shoot(film, environment, step)
    outcome = str(info.get("outcome", "")) if ended else f"no end after {_MOST_STEPS:,} steps"
    return ClosedLoopEpisode(
        seed=seed,
        task=task,
        instruction=instruction,
        is_success=_is_success(info),
        num_steps=step,
        total_reward=total,
        outcome=outcome,
        info={key: _plain(value) for key, value in info.items() if key not in _OWN and _plain(value) is not None},
    )


def _is_success(info: Mapping[str, Any]) -> bool:
    for key in ("is_success", "success"):
        if key in info:
            return bool(np.all(info[key]))
    cure = 'set info["is_success"] in the adapter; see docs/evaluation.md'
    raise UsageError(f"info of the last step has no is_success; it has {', '.join(map(str, info)) or 'nothing'}", cure)


def _shoot(film: Film | None, environment: Any, step: int) -> None:
    picture: NDArray[Any] | None = None if film is None else environment.render()
    if film is not None and isinstance(picture, np.ndarray) and picture.ndim == 3 and picture.shape[2] == 3:
        film.add(step, picture)


def _plain(value: Any) -> Any:
    """Returns a value that JSON can hold, or None."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str | bool | int | float) else None


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn an error of the environment's own code into one line."""
    try:
        yield
    except (VlapipeError, OSError, MemoryError):
        raise
    except Exception as error:
        problem = f"environment {name}: fails: {one_line(error)}{place_of(error)}"
        raise UsageError(problem, "see docs/evaluation.md") from error
