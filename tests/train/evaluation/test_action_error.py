"""Errors are counted by task, step and dimension, without padding, round the circle for angles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlapipe.train.evaluation.action_error import OTHERS, ActionErrors, Dimensions, Figures

DIMENSIONS = Dimensions(names=("x", "angle", "fixed"), units=("mm", "deg", ""), periods=(0.0, 360.0, 0.0))


def errors_of(offset: list[float], *, tasks: list[str] | None = None, pad_last: bool = True) -> ActionErrors:
    """Four samples of two steps, each ``offset`` from what was recorded; the last step of sample 3 is padding."""
    recorded = torch.tensor([1.0, 179.0, 5.0]).expand(4, 2, 3)
    predicted = recorded + torch.tensor(offset)
    counts = torch.ones(4, 2, 3, dtype=torch.bool)
    if pad_last:
        counts[3, 1] = False
        predicted[3, 1] = torch.nan
    found = ActionErrors(["a", "b"], DIMENSIONS.periods)
    found.add(predicted, recorded, counts, tasks or ["a", "a", "b", "unknown"])
    return found


def figures_of(policy: list[float], mean: list[float]) -> Figures:
    found = {"policy": errors_of(policy), "mean": errors_of(mean)}
    sums = {name: of.sums.numpy() for name, of in found.items() if of.sums is not None}
    return Figures(dimensions=DIMENSIONS, tasks=found["policy"].tasks, sums=sums)


def test_errors_are_means_in_their_units_and_angles_go_the_short_way() -> None:
    figures = figures_of([-2.0, 358.0, 0.0], [4.0, 4.0, 0.0])
    assert figures.by_dimension("policy").tolist() == pytest.approx([2, 2, 0], abs=1e-4)
    assert figures.by_step("policy").shape == (2, 3)
    assert figures.sums["policy"][1].sum() == 7 * 3  # padding counts nothing


def test_relative_error_is_the_share_of_the_mean_yardsticks_over_dimensions_that_change() -> None:
    figures = figures_of([2.0, 1.0, 0.0], [4.0, 4.0, 0.0])
    assert figures.relative() == pytest.approx((0.5 + 0.25) / 2, abs=1e-4)
    assert figures.relative("mean") == pytest.approx(1)
    assert figures.metrics("val")["val/action_error/x"] == pytest.approx(2)
    assert set(figures.metrics("val")) == {
        *("val/action_error", "val/action_error/step_1", "val/action_error/step_2"),
        *(f"val/action_error/{name}" for name in DIMENSIONS.names),
    }


def test_tasks_come_worst_first_and_unknown_ones_together() -> None:
    found = ActionErrors(["a", "b"], DIMENSIONS.periods)
    recorded, counts = torch.zeros(3, 1, 3), torch.ones(3, 1, 3, dtype=torch.bool)
    found.add(recorded + torch.tensor([1.0, 3.0, 2.0])[:, None, None], recorded, counts, ["a", "b", "c"])
    assert found.sums is not None
    sums = found.sums.numpy()
    figures = Figures(dimensions=DIMENSIONS, tasks=found.tasks, sums={"policy": sums, "mean": sums})
    assert [(task, count) for task, _, count in figures.worst_tasks()] == [("b", 1), (OTHERS, 1), ("a", 1)]
    assert figures.worst_tasks()[0][1] == pytest.approx(1.5)
    lines = figures.lines()
    assert [line.split()[0] for line in lines[-3:]] == ["b", "other", "a"]
    assert any(line.startswith("angle (deg)") for line in lines)


def test_nothing_counted_is_null_in_json_and_no_number() -> None:
    found = ActionErrors([], DIMENSIONS.periods)
    found.add(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3), torch.zeros(1, 1, 3, dtype=torch.bool), ["a"])
    assert found.sums is not None
    sums = {"policy": found.sums.numpy(), "mean": found.sums.numpy()}
    figures = Figures(dimensions=DIMENSIONS, tasks=found.tasks, sums=sums)
    assert np.isnan(figures.relative())
    assert figures.to_json()["predictors"]["policy"]["by_dimension"] == [None] * 3
