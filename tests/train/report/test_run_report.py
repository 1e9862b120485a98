"""What vlapipe inspect says of a run: read without torch, whole or killed or damaged, on a terminal and as a page."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from launching import SMALL
from report_lab import faults_of

from vlapipe.cli import cli
from vlapipe.schemas.errors import UsageError
from vlapipe.train.config import TrainConfig
from vlapipe.train.evaluation.closed_loop import ClosedLoopResult
from vlapipe.train.evaluation.saved_run import evaluate_on_dataset
from vlapipe.train.evaluation.success import ClosedLoopEpisode
from vlapipe.train.loop import train
from vlapipe.train.report.metrics import MetricsLog
from vlapipe.train.report.run_comparison import compare_runs
from vlapipe.train.report.run_facts import MOST_POINTS, run_facts

HOSTILE = "<script>alert(1)</script>\x1b[31m\"'&{{ 7 * 7 }}"
DOCS = Path(__file__).parents[3] / "docs" / "runs.md"


@pytest.fixture(scope="module")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    options: dict[str, Any] = {"batch_size": 8, "max_steps": 6, "eval_every": 3, "num_workers": 1, "policy_args": SMALL}
    train(TrainConfig.of(data=tiny_dataset, out=out, wandb="disabled", precision="fp32", **options))
    evaluate_on_dataset(out, tiny_dataset, frames=16, pages=1)
    episodes = [
        ClosedLoopEpisode(
            seed=i,
            task=HOSTILE if i % 2 else "plain",
            instruction="",
            is_success=i == 0,
            num_steps=3,
            total_reward=0.0,
            outcome=HOSTILE,
        )
        for i in range(4)
    ]
    ClosedLoopResult(environment="demo", seed=1, episodes=episodes).write(out / "eval" / "demo-seed-1.json")
    return out


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


def inspected(*arguments: str | Path) -> str:
    done = CliRunner().invoke(cli, ["inspect", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_facts_of_a_finished_run_are_those_that_it_found_itself(run: Path) -> None:
    facts = json.loads(inspected(run, "--json"))
    saved = json.loads((run / "result.json").read_text())
    assert (facts["step"], facts["max_steps"], facts["is_finished"], facts["skipped"]) == (6, 6, True, [])
    assert (facts["num_parameters"], facts["device"], facts["precision"]) == (saved["num_parameters"], "cpu", "fp32")
    assert facts["time"]["verdict"] == saved["verdict"]
    assert "validation" in facts["time"]["shares"]  # which metrics.jsonl does not have
    assert facts["validation"] == json.loads((run / "validation.json").read_text())
    assert facts["loss"]["best_step"] in (3, 6)
    (recorded,), (closed,) = facts["recorded"], facts["closed_loop"]
    assert (run / recorded["pages"][0]).is_file()
    assert (closed["success"]["successes"], closed["success"]["num_episodes"]) == (1, 4)
    assert facts["options"]["data.batch_size"] == 8
    assert facts["curves"]["train/loss"]["steps"] == [1, 2, 3, 4, 5, 6]


def test_a_run_is_inspected_without_torch(run: Path) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from vlapipe.cli import cli; "
        "done = CliRunner().invoke(cli, ['inspect', sys.argv[1]], catch_exceptions=False); "
        "print(done.exit_code, sorted({'torch', 'dask', 'pandas', 'matplotlib'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "0 []"


def test_terminal_report_fits_80_columns_and_shows_curves_verdict_and_success(run: Path) -> None:
    shown = inspected(run)
    lines = [line for line in shown.splitlines() if str(run) not in line]
    assert max(map(len, lines)) <= 80
    assert re.search(r"train loss +[▁▂▃▄▅▆▇█]{6} ", shown)
    verdict = json.loads((run / "result.json").read_text())["verdict"]["lines"]
    assert "".join(verdict[0].split()) in "".join(shown.split())
    assert "success 1 of 4" in shown
    assert "\x1b" not in shown
    assert "\\x1b[31m" in shown
    ascii_only = subprocess.run(
        [sys.executable, "-m", "vlapipe", "inspect", str(run)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert b"\\u258" not in ascii_only.stdout


def test_a_killed_run_is_judged_by_its_metrics(copy: Path) -> None:
    (copy / "result.json").unlink()
    (copy / "validation.json").unlink()
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(lines[:4]) + lines[4][:30])
    facts = run_facts(copy)
    assert (facts["step"], facts["is_finished"], facts["validation"]) == (4, False, None)
    assert facts["time"]["verdict"]["cause"]
    assert facts["time"]["num_steps"] == 3  # the first step is not timed
    whole = [json.loads(line) for line in lines[:4]]
    assert facts["time"]["parts_ms"]["forward"] == pytest.approx(sum(w["time/forward_ms"] for w in whole[1:]) / 3)
    assert facts["time"]["step_ms"] == pytest.approx(sum(1e3 / w["train/step"] for w in whole[1:]) / 3)
    assert "not finished" in inspected(copy)


def test_the_result_of_an_earlier_process_is_not_that_of_a_run_that_went_on(copy: Path) -> None:
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "train/loss": 1.0, "train/step": 2.0, "time/forward_ms": 400.0}\n')
    assert run_facts(copy)["time"]["from"].startswith("metrics.jsonl")


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"dimensions": ["x"], "units": ["mm"], "predictors": {"policy": {"by_step": 3}}}', "[" * 9999],
)
def test_a_file_of_figures_with_something_else_is_skipped_and_named(copy: Path, content: str) -> None:
    (copy / "validation.json").write_text(content)
    (copy / "eval" / "other.json").write_text(content)
    facts = run_facts(copy)
    assert facts["validation"] is None
    assert [line.partition(":")[0] for line in facts["skipped"]] == [
        str(copy / "validation.json"),
        str(copy / "eval" / "other.json"),
    ]
    assert "skipped:" in inspected(copy)


def test_what_is_no_run_is_refused_in_one_line(copy: Path, tmp_path: Path, run: Path) -> None:
    (copy / "config.json").write_text("[1]")
    for arguments, said in (
        ([copy], "not the options of a vlapipe run"),
        ([run, "--compare", tmp_path], "not a run"),
        ([run, "--episodes"], "a run has no episodes"),
    ):
        with pytest.raises(UsageError, match=said):
            inspected(*arguments)


def test_runs_side_by_side_differ_in_the_options_that_differ(run: Path, copy: Path) -> None:
    saved = json.loads((copy / "config.json").read_text())
    saved["optim"]["learning_rate"], saved["out"] = 0.5, "elsewhere"
    (copy / "config.json").write_text(json.dumps(saved))
    found = json.loads(inspected(run, "--compare", copy, "--json"))
    assert found["options"] == [{"option": "optim.learning_rate", "values": [0.001, 0.5]}]
    figures = {each["figure"]: each["values"] for each in found["figures"]}
    assert figures["step"] == [6, 6]
    assert figures["success of demo-seed-1"] == [0.25, 0.25]
    shown = inspected(run, "--compare", copy)
    assert re.search(r"optim.learning_rate +0.001 +0.5", shown)
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert found == compare_runs([run_facts(run), run_facts(copy)])


def test_a_long_curve_keeps_its_mean_and_its_last_step(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        for step in range(1, 1001):
            log.write(step, {"train/loss": float(step), "train/grad_norm": float("nan")})
    (tmp_path / "config.json").write_text('{"policy": "regression"}')
    facts = run_facts(tmp_path)
    curve = facts["curves"]["train/loss"]
    assert len(curve["steps"]) == MOST_POINTS
    assert curve["steps"][-1] == 1000
    assert curve["values"][0] == 2.0  # the mean of 1, 2, 3
    assert facts["curves"]["train/grad_norm"]["values"] == [None] * MOST_POINTS
    assert facts["summary"]["train/loss"] == {"count": 1000, "last": 1000.0, "min": 1.0, "max": 1000.0, "median": 500.5}
    assert (facts["loss"]["first"], facts["loss"]["last"]) == (25.5, 975.5)


def test_facts_of_real_runs_are_as_the_schema_in_the_docs_says(run: Path) -> None:
    schema = json.loads(DOCS.with_name("runs.schema.json").read_text())
    facts = json.loads(inspected(run, "--json"))
    assert not faults_of(facts, schema["$defs"]["run"], schema)
    compared = json.loads(inspected(run, "--compare", run, "--json"))
    assert not faults_of(compared, schema["$defs"]["comparison"], schema)


def test_every_entry_of_the_report_has_a_row_in_the_docs(run: Path) -> None:
    rows = re.findall(r"^\| `(\w+)` \|", DOCS.read_text().partition("## As JSON")[2].partition("\n## ")[0], re.M)
    assert rows == [*run_facts(run)]


class _Page(HTMLParser):
    """Collects tags, the texts of table cells, and the numbers as the page has them for machines."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.numbers: set[float] = set()
        self._in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on") or name == "style"]
        assert not [
            v for name, v in attrs if name in ("src", "href") and not (v or "").startswith(("#", "data:image/"))
        ]
        self.numbers |= {json.loads(value or "") for name, value in attrs if tag == "data" and name == "value"}
        self._in_cell = tag in ("td", "th") or (self._in_cell and tag in ("bdi", "data"))
        self.cells += [""] if tag in ("td", "th") else []

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag in ("bdi", "data")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[-1] += data


def numbers_of(value: Any) -> set[float]:
    if isinstance(value, dict | list):
        return set[float]().union(*map(numbers_of, value.values() if isinstance(value, dict) else value))
    return {value} if isinstance(value, int | float) else set()


def test_page_holds_figures_plots_and_pictures_and_runs_nothing(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install '.[report]'")
    page = tmp_path / "run.html"
    facts = json.loads(inspected(run, "--html", page, "--json"))
    found = _Page(page.read_text())
    assert "script" not in found.tags
    assert found.tags.count("svg") >= 8
    assert found.tags.count("img") == 1  # the page of the worst episode
    assert found.numbers <= numbers_of(facts)  # each number of the page is in the JSON, to the last digit
    assert numbers_of([one["by_dimension"] for one in facts["validation"]["predictors"].values()]) <= found.numbers
    assert numbers_of([facts["time"]["parts_ms"], facts["time"]["shares"], facts["loss"]]) <= found.numbers
    forward = f"{facts['time']['parts_ms']['forward']:,.4g}"
    assert forward in found.cells
    assert [cell for cell in found.cells if "alert(1)" in cell and "{{ 7 * 7 }}" in cell]
    assert "wrote" in inspected(run, "--compare", run, "--html", page)
    assert "script" not in _Page(page.read_text()).tags
