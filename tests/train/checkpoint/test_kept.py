"""Which checkpoints are kept: the last ones, the best ones by a metric, and some at fixed steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from making_checkpoints import make, write

from vlapipe.train.checkpoint.files import FOLDER, all_checkpoints, step_of
from vlapipe.train.checkpoint.kept import KeepRules, remove_old

LOSSES = {10: 5.0, 20: 1.0, 30: 2.0, 40: float("nan"), 50: 4.0, 60: 3.0}


def kept(**rules: object) -> list[int]:
    metrics = {step: {"val/loss": loss} for step, loss in LOSSES.items()}
    return sorted(KeepRules(**rules).kept(metrics | {70: {}}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rules", "steps"),
    [
        ({"last": 1}, [70]),
        ({"last": 3}, [50, 60, 70]),
        ({"last": 1, "best": 1}, [20, 70]),
        ({"last": 1, "best": 2}, [20, 30, 70]),
        ({"last": 1, "best": 1, "lowest_is_best": False}, [10, 70]),
        ({"last": 1, "best": 9}, [10, 20, 30, 50, 60, 70]),  # one that was not measured is never the best
        ({"last": 1, "best": 1, "metric": "val/success"}, [70]),
        ({"last": 1, "every": 30}, [30, 60, 70]),
        ({"last": 2, "best": 1, "every": 50}, [20, 50, 60, 70]),
    ],
)
def test_rules_add_up(rules: dict[str, object], steps: list[int]) -> None:
    assert kept(**rules) == steps


def test_only_checkpoints_that_no_rule_keeps_are_removed(tmp_path: Path) -> None:
    mine = tmp_path / FOLDER / "step-best"
    mine.mkdir(parents=True)
    for step, loss in LOSSES.items():
        write(tmp_path, make(step, metrics={"val/loss": loss}))
        remove_old(tmp_path, KeepRules(last=2, best=1, every=50))
    assert [step_of(path) for path in all_checkpoints(tmp_path)] == [20, 50, 60]
    assert mine.exists()


def test_damaged_checkpoint_is_not_the_best_and_hinders_nothing(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        path = write(tmp_path, make(step, metrics={"val/loss": float(step)}))
        if step == 1:
            (path / "state.json").write_text("{")
    remove_old(tmp_path, KeepRules(last=1, best=1))
    assert [step_of(path) for path in all_checkpoints(tmp_path)] == [2, 3]
