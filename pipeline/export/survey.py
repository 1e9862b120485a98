"""Looks at every episode once before anything is written: how many frames it has, its tasks, and what frames lack.

Names of columns, numbers of tasks and the index of each frame follow from it. Shards are unpacked on the way, as for
training. The survey is kept, so that an export that goes on does not repeat it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import accumulate

from vlapipe.pipeline.export.plan import ExportPlan
from vlapipe.pipeline.export.work_folder import WorkFolder
from vlapipe.pipeline.shards.ordered_map import in_order

__all__ = ["Survey", "survey"]

_RECORD = "survey"


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What is known of all exported episodes before the first is written."""

    lengths: list[int]  # frames of each episode
    tasks: list[str]  # each once, in the order in which frames first have it
    lacks_action: bool  # whether any frame has no action
    lacks_state: bool

    @property
    def starts(self) -> list[int]:
        """The index of each episode's first frame among all frames."""
        return [0, *accumulate(self.lengths[:-1])]


def survey(plan: ExportPlan, work: WorkFolder) -> Survey:
    """Returns the survey of the plan's episodes; the one that ``work`` holds if there is one.

    Raises:
        DamageError: a shard is missing, cut short or altered.
    """
    kept = work.record(_RECORD)
    if kept is not None:
        return Survey(**kept)
    lengths, tasks, lacks_action, lacks_state = list[int](), dict[str, None](), False, False
    looks = in_order((partial(_look, plan, i) for i in range(len(plan.episodes))), plan.workers)
    try:
        for length, own_tasks, no_action, no_state in looks:
            lengths.append(length)
            tasks |= own_tasks
            lacks_action |= no_action
            lacks_state |= no_state
    finally:
        looks.close()
    found = Survey(lengths=lengths, tasks=[*tasks], lacks_action=lacks_action, lacks_state=lacks_state)
    work.keep(_RECORD, vars(found))
    return found


def _look(plan: ExportPlan, i: int) -> tuple[int, dict[str, None], bool, bool]:
    episode = plan.read(i)
    no_action, no_state = bool(episode.has_no_action.any()), bool(episode.has_no_state.any())
    return len(episode), dict.fromkeys(episode.tasks), no_action, no_state
