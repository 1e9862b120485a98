"""Lets the policy of a run in progress act in an environment: the same episodes each time, dealt out to the ranks."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from vlapipe.train.evaluation.closed_loop import episode_seeds, run_episodes
from vlapipe.train.evaluation.success import Share
from vlapipe.train.faults import explain_device_errors
from vlapipe.train.parallel.ranks import agree, sum_of
from vlapipe.train.parallel.rng import seed_generators
from vlapipe.train.policies.observation import CheckedAct
from vlapipe.train.robot.runner import Runner
from vlapipe.train.run import Run

__all__ = ["act_in_environment"]

_SEED = 1000  # so that the episodes that choose the best checkpoint are not those of ``vlapipe eval --seed 0`` and on


def act_in_environment(run: Run) -> Mapping[str, float]:
    """Returns ``env/success``, ``env/reward`` and ``env/steps``: means over the episodes of all ranks. A collective.

    If the run averages its weights (EMA), the average acts.

    Raises:
        UsageError: the environment fails, or gives or takes something else than the policy.
    """
    config, ranks = run.config.eval, run.ranks
    assert config.eval_env is not None
    mine = [*episode_seeds(_SEED, config.eval_env_episodes)][ranks.rank :: ranks.world_size]
    modes = {module: module.training for module in run.policy.modules()}
    run.policy.eval()
    with run.log.aside("closed loop"), run.averaged(), ranks.during("closed loop"), agree(ranks):
        spec = run.loader.described(run.loader.read_spec)
        seed_generators(run.config.seed, "closed loop", step=0, rank=ranks.rank)
        with explain_device_errors(run):
            runner = Runner(_as_loaded(run), spec, say=run.console.say)
            episodes = run_episodes(runner, spec, run.environment, mine, name=config.eval_env)
    for module, mode in modes.items():
        module.training = mode
    sums = [(float(each.is_success), each.total_reward, float(each.num_steps), 1.0) for each in episodes]
    successes, reward, steps, count = sum_of([sum(column) for column in zip(*sums, strict=True)] or [0.0] * 4, ranks)
    share = Share(successes=round(successes), num_episodes=round(count))
    if ranks.is_first:
        run.console.say(f"closed loop at step {run.step}: {config.eval_env}: success {share}")
    return {"env/success": share.share, "env/reward": reward / count, "env/steps": steps / count}


def _as_loaded(run: Run) -> Any:
    """Returns the policy with ``act`` as ``load_policy`` makes it: checked, and with the transforms of the run."""
    checked = CheckedAct(run.policy, run.loader.read_spec, run.loader.transforms)
    return SimpleNamespace(act=checked, parameters=run.policy.parameters)
