"""A saved policy acts in an environment; successes, films and errors are what happened there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlapipe.cli import cli
from vlapipe.schemas.errors import UsageError
from vlapipe.train.checkpoint.saved_policy import chosen_checkpoint
from vlapipe.train.config import TrainConfig
from vlapipe.train.evaluation.closed_loop import episode_seeds
from vlapipe.train.evaluation.saved_run import evaluate_in_environment
from vlapipe.train.evaluation.success import wilson
from vlapipe.train.loop import train
from vlapipe.train.report.metrics import METRICS_FILE, read_metrics

HERE = "environments_under_test"


def options(data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    given = {"max_steps": 2, "batch_size": 4, "num_workers": 0, "policy": "tiny_policy:TinyPolicy"}
    return {"data": data, "out": out, "wandb": "disabled", "precision": "fp32", **given, **changes}


@pytest.fixture(scope="module")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny policy after two steps."""
    out = tmp_path_factory.mktemp("closed") / "run"
    train(TrainConfig.of(**options(tiny_dataset, out)))
    return out


def test_interval_is_wilsons() -> None:
    # Published examples: Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for successes, count, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(successes, count) == pytest.approx((low, high), abs=1e-4)
    assert wilson(0, 0) == (0, 1)


def test_another_seed_gives_other_episodes() -> None:
    assert set(episode_seeds(1, 50)).isdisjoint(episode_seeds(2, 50))
    assert [*episode_seeds(1, 3)] == [*episode_seeds(1, 5)][:3]


def test_successes_are_counted_by_task_with_films_of_failures(run: Path) -> None:
    result = evaluate_in_environment(run, f"{HERE}:Steps", episodes=6, seed=3, films=2)
    assert (result.success.successes, result.success.num_episodes) == (3, 6)
    written = json.loads((run / "eval" / f"{HERE}-seed-3.json").read_text())
    assert [(task, of["successes"]) for task, of in written["tasks"].items()] == [("task 1", 0), ("task 0", 3)]
    assert written["outcomes"] == {"missed": 3}
    assert [each["num_steps"] for each in written["episodes"]] == [5] * 6
    assert "success 3 of 6, 50%" in result.lines()[0]
    kinds = [path.name.split("-")[0] for path in result.films]
    assert sorted(kinds) == ["failure", "failure", "success"]
    with Image.open(result.films[0]) as film:
        assert film.width > 5 * 216  # six pictures, from the first to the last


def test_same_seed_gives_the_same_result(run: Path) -> None:
    first, second = (evaluate_in_environment(run, f"{HERE}:Steps", episodes=2, films=0).to_json() for _ in range(2))
    assert first == second


def test_other_ways_to_act_are_kept_beside_each_other(run: Path) -> None:
    [saved] = (run / "checkpoints").glob("step-*")
    ways: list[dict[str, Any]] = [{}, {"execute": 1}, {"execute": 2}, {"ensemble": 0.01, "execute": 1}]
    for way in ways:
        evaluate_in_environment(run, f"{HERE}:Steps", episodes=2, seed=7, films=0, **way)
    evaluate_in_environment(saved, f"{HERE}:Steps", episodes=2, seed=7, films=0)
    assert len([*(run / "eval").glob("*seed-7.json")]) == len(ways) + 1


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("demmo", {}, "environment demmo: unknown"),
        ("no_such_module:make_env", {}, "no module 'no_such_module'"),
        (f"{HERE}:NoSuch", {}, "has no function 'NoSuch'"),
        (f"{HERE}:no_environment", {}, "expected an object with reset and step, found a str"),
        (f"{HERE}:fails", {}, "fails: RuntimeError: no simulator here"),
        (f"{HERE}:Steps", {"speed": 1}, "unexpected keyword argument"),
        (f"{HERE}:Breaks", {}, "fails: ZeroDivisionError"),
        (f"{HERE}:SaysNothing", {}, "info of the last step has no is_success"),
        (f"{HERE}:Steps", {"action_hz": 50.0}, "takes 50 actions a second, the policy's chunk has 10"),
        ("demo", {"images": "blnk"}, "environment demo: images 'blnk': unknown"),
    ],
)
def test_environment_that_cannot_be_used_is_refused_in_one_line(
    run: Path, name: str, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UsageError) as caught:
        evaluate_in_environment(run, name, arguments=arguments, episodes=1)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_policy_with_images_acts_in_the_demo(tiny_dataset: Path, tmp_path: Path) -> None:
    sizes = {"dim": 16, "depth": 1, "num_heads": 2, "image_width": 8, "num_word_buckets": 64}
    given = {"policy": "regression", "policy_args": sizes, "image_resize_height": 24, "image_resize_width": 32}
    train(TrainConfig.of(**options(tiny_dataset, tmp_path, **given)))
    limit = {"time_limit_s": 0.5}
    result = evaluate_in_environment(tmp_path, "demo", episodes=2, seed=1, arguments=limit, films=1)
    assert [episode.num_steps for episode in result.episodes] == [5, 5]
    assert {episode.outcome for episode in result.episodes} == {"the time is up"}
    assert {"named", "told"} <= set(result.episodes[0].info or {})
    assert len(result.films) == 1


def test_command_prints_the_report_and_the_json(
    run: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["eval", str(run), "--env", f"{HERE}:Steps", "--episodes", "2", "--films", "0"], standalone_mode=False)
    assert f"{HERE}:Steps, seed 0: success 1 of 2, 50% (95 %: 9% to 91%)" in capsys.readouterr().out
    both = ["eval", str(run), "--env", f"{HERE}:Steps", "--episodes", "2", "--films", "0", "--env-arg", "task=red"]
    cli.main([*both, "--data", str(tiny_dataset), "--pages", "0", "--json"], standalone_mode=False)
    of_data, of_environment = json.loads(capsys.readouterr().out)
    assert of_data["predictors"]["mean"]["relative"] == pytest.approx(1)
    assert of_environment["episodes"][0]["instruction"] == "red"
    with pytest.raises(UsageError, match="of what"):
        cli.main(["eval", str(run)], standalone_mode=False)
    with pytest.raises(UsageError, match="expected KEY=VALUE"):
        cli.main(["eval", str(run), "--env", "demo", "--env-arg", "images"], standalone_mode=False)


def test_best_checkpoint_is_that_of_the_most_successes(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Success is 1/2, 2/2, 1/2: the one in the middle stays, though it is neither the newest nor of the lowest loss."""
    given = {"eval_env": f"{HERE}:SucceedsInTheMiddle", "eval_env_every": 2, "eval_env_episodes": 2, "max_steps": 6}
    train(TrainConfig.of(**options(tiny_dataset, tmp_path, **given, keep_checkpoints=1, eval_every=6)))
    lines = [line for line in read_metrics(tmp_path / METRICS_FILE) if "env/success" in line]
    assert [(line["step"], line["env/success"]) for line in lines] == [(2, 0.5), (4, 1.0), (6, 0.5)]
    assert {line["env/steps"] for line in lines} == {5.0}
    assert chosen_checkpoint(tmp_path, "best").name == "step-00000004"
    assert "closed loop at step 4" in capsys.readouterr().err


def test_closed_loop_in_training_needs_its_environment_and_a_whole_policy(tiny_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="in which environment"):
        TrainConfig.of(**options(tiny_dataset, tmp_path, eval_env_every=5))
    with pytest.raises(UsageError, match="only a part of the policy with parallel 'fsdp'"):
        TrainConfig.of(**options(tiny_dataset, tmp_path, eval_env="demo", parallel="fsdp"))
    with pytest.raises(UsageError, match="environment nowhere: unknown"):
        train(TrainConfig.of(**options(tiny_dataset, tmp_path / "run", eval_env="nowhere")))
