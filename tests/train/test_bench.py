"""vlapipe bench tells data from compute as the limit, by steps of training, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from launching import SMALL, options, run_ranks

from vlapipe.cli import cli
from vlapipe.schemas.errors import UsageError
from vlapipe.train import bench as bench_room
from vlapipe.train.bench import BenchResult, bench
from vlapipe.train.config import option_fields
from vlapipe.train.data.batch_maker import BatchMaker
from vlapipe.train.report.verdict import TimeSpent

QUICK: dict[str, Any] = {"batch_size": 4, "precision": "fp32", "policy_args": SMALL}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def measured(data: Path, **changes: Any) -> BenchResult:
    return bench(None, {"data": (data,), "num_workers": 1} | QUICK | changes, seconds=0.3)


def test_slow_policy_makes_compute_the_limit(tiny_dataset: Path) -> None:
    slow = {
        "policy": "policies_under_test:Slow",
        "policy_args": SMALL | {"seconds": 0.5},
    }  # far from the loader's time, even beside other tests
    result = measured(tiny_dataset, **slow)
    assert result.limit == "compute"
    assert 0 < result.together < 4 / 0.5
    assert 0 < result.policy < 4 / 0.5
    assert result.policy_ms["forward"] > 500
    assert result.headroom == pytest.approx(result.loader[1] / result.policy)
    assert f"compute is the limit: the loader makes {result.headroom:.1f} times" in "\n".join(result.lines())


@pytest.mark.parametrize(
    ("loader", "policy", "limit", "line"),
    [
        (10.0, 40.0, "data", "data is the limit: the policy takes 4.0 times what the loader makes"),
        (40.0, 16.0, "compute", "compute is the limit: the loader makes 2.5 times what the policy takes"),
    ],
)
def test_the_slower_one_alone_is_the_limit(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch, loader: float, policy: float, limit: str, line: str
) -> None:
    spent = TimeSpent(steps_s=10 * QUICK["batch_size"] / policy, num_steps=10)
    monkeypatch.setattr(bench_room, "_loader_speeds", lambda *_: {1: loader})
    monkeypatch.setattr(bench_room, "_step_for", lambda *_, **__: spent)
    result = measured(tiny_dataset)
    assert (result.limit, result.policy) == (limit, policy)
    assert line in result.lines()


@pytest.mark.slow  # a busy machine makes any policy slower than the loader
def test_slow_loader_makes_data_the_limit(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = BatchMaker.make

    def slowly(*args: Any) -> Any:
        time.sleep(0.4)
        return make(*args)

    monkeypatch.setattr(BatchMaker, "make", slowly)
    result = measured(tiny_dataset)
    assert result.limit == "data"
    assert result.loader[1] < result.policy
    assert result.data_share > 0.3
    assert any(line.startswith("data is the limit: the policy takes") for line in result.lines())
    assert re.search(r"try .* times as many samples/s at most, when no step waits for data", result.advice)


def test_threads_are_tried_unless_they_are_chosen(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlapipe.train.bench.threads_at_most", lambda: 3)
    result = measured(tiny_dataset, num_workers=None)
    assert list(result.loader) == [1, 2, 3]
    assert result.num_workers in result.loader
    assert list(measured(tiny_dataset, num_workers=0).loader) == [0]


def test_nothing_is_left_behind(
    tiny_dataset: Path, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    data_before = sorted(tiny_dataset.rglob("*"))
    file = tmp_path / "options.toml"
    file.write_text('out = "here/run"\nresume = true\nwandb = "offline"\ntensorboard = true\nprofile = 3\n')
    bench(file, {"data": (tiny_dataset,), "num_workers": 1} | QUICK, seconds=0.1)
    with pytest.raises(UsageError, match="unknown policy"):
        measured(tiny_dataset, policy="unheard-of")
    assert not list(here.iterdir())
    assert not list(temporary.iterdir())
    assert sorted(tiny_dataset.rglob("*")) == data_before


def test_command_prints_three_lines_and_a_verdict_or_json(tiny_dataset: Path, tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text(f"policy_args = {{ dim = {SMALL['dim']}, depth = 1, num_heads = 2, image_width = 8 }}\n")
    arguments = ["bench", "--data", str(tiny_dataset), "--config", str(file), "--seconds", "0.2", "--batch_size", "2"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == ["loader alone", "policy alone", "both together"]
    assert re.fullmatch(r"(data|compute) is the limit: the (policy|loader) (takes|makes) \d+\.\d times .*", lines[3])
    found = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).stdout)
    assert found["samples_a_step"] == 2
    assert found["together"] > 0
    assert found["limit"] in ("data", "compute")


def test_options_are_those_of_training() -> None:
    of = {name: {p.name: p for p in cli.commands[name].params} for name in ("train", "bench")}
    shared = set(of["bench"]) - {"seconds", "as_json"}
    assert all(of["bench"][name] is of["train"][name] for name in shared)
    assert {"data", "batch_size", "precision", "compile_mode", "image_resize_height", "image_resize_width"} <= shared
    groups = {name: group for name, (group, _) in option_fields().items()}
    assert not [name for name in shared if groups.get(name) in ("checkpoint", "eval", "log")]


def test_signal_ends_it(tiny_dataset: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        measured(tiny_dataset, policy="policies_under_test:SignalAtStep", policy_args=SMALL | {"at": 2})


@pytest.mark.slow
def test_ranks_measure_together(tiny_dataset: Path, tmp_path: Path) -> None:
    code = """
import json, sys
from vlapipe.train.bench import bench
values = json.loads(sys.argv[1])
values.pop("out")
print(json.dumps(bench(None, values, seconds=0.5).to_json()))
"""
    ranks = run_ranks(options(tiny_dataset, tmp_path / "run"), code=code)
    assert [rank.code for rank in ranks] == [0, 0, 0, 0], ranks[0].err
    found = [json.loads(rank.out) for rank in ranks]
    assert [each["samples_a_step"] for each in found] == [8, 8, 8, 8]
    assert found[0]["policy"] > 0
