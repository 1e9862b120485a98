"""The difference of two datasets: each kind of change is found, named, and nothing else is; exit codes as diff has."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tiny_lab import ingest_lab, make_lab, schema_text

import vlapipe
from vlapipe.pipeline.show.difference import _differ, difference_of

EPISODES = {f"task/ep{i}": {"operator": "ann", "instruction": f"do {i % 2}"} for i in range(4)}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ingested(tmp_path_factory.mktemp("old"))


def ingested(folder: Path, edit: Callable[[Path], None] = lambda _: None, text: str = "", **options: Any) -> Path:
    raw = make_lab(folder / "raw", EPISODES)
    edit(raw)
    ingest_lab(raw, folder / "data", text or schema_text(), **options)
    return folder / "data"


def between(old: Path, new: Path) -> dict[str, Any]:
    found = difference_of(vlapipe.open_dataset(old), vlapipe.open_dataset(new))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def command(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vlapipe", "diff", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, **environment},
        check=False,
    )


def test_the_same_recordings_ingested_into_other_shards_are_equal(old: Path, tmp_path: Path) -> None:
    found = between(old, ingested(tmp_path, shard_bytes=1))
    assert found["b"]["stored_bytes"] != found["a"]["stored_bytes"]  # really other shards
    assert found["equal"]
    assert found["episodes"]["same"] == 4


def test_episodes_added_removed_and_renamed_are_told_apart(old: Path, tmp_path: Path) -> None:
    def edit(raw: Path) -> None:
        (raw / "task/ep0").rename(raw / "task/ep9")
        for file in (raw / "task/ep1").iterdir():
            file.unlink()
        (raw / "task/ep1").rmdir()
        make_lab(raw, {"task/ep7": None}, num_rows=15)

    episodes = between(old, ingested(tmp_path, edit))["episodes"]
    assert (episodes["added"], episodes["removed"]) == (["task/ep7"], ["task/ep1"])
    assert episodes["renamed"] == [{"from": "task/ep0", "to": "task/ep9"}]
    assert (episodes["same"], episodes["changed"]) == (2, [])


def test_a_changed_recording_and_a_changed_instruction_are_named_as_such(old: Path, tmp_path: Path) -> None:
    def edit(raw: Path) -> None:
        table = raw / "task/ep2/robot.csv"
        table.write_text(table.read_text().replace("2.05", "2.06"))
        (raw / "task/ep3/metadata.json").write_text('{"operator": "ann", "instruction": "push"}')

    found = between(old, ingested(tmp_path, edit))
    what = {entry["id"]: entry["what"] for entry in found["episodes"]["changed"]}
    assert what == {
        "task/ep2": ["recording", "values of action/value", "values of robot/q"],
        "task/ep3": ["instruction", "metadata instruction"],
    }
    (column,) = [each for each in found["statistics"]["columns"] if each["path"] == "robot/q"]
    assert 0 < column["shift"] < 0.01
    assert column["a"]["mean"] < column["b"]["mean"]


def test_the_last_episode_of_a_thousand_is_found_and_no_other(tmp_path: Path) -> None:
    rows = [[float(i), float("nan") if i == 3 else 1.0] for i in range(1000)]
    changed = [*rows[:-1], [999.0, 2.0]]
    (place,) = _differ(pa.array(rows[4:]), pa.array(changed[4:])).nonzero()[0]
    assert place == 995
    flat = [pa.array([1.0, float("nan"), None, 4.0]), pa.array([1.0, float("nan"), None, 5.0])]
    assert _differ(*flat).tolist() == [False, False, False, True]
    assert _differ(pa.array([None, 1]), pa.array([1, None])).tolist() == [True, True]


def test_another_schema_and_another_codec_are_differences(old: Path, tmp_path: Path) -> None:
    text = schema_text().replace('columns = ["q"]', 'columns = ["q"]\nunit = "deg"\ndtype = "float64"')
    found = between(old, ingested(tmp_path, text=text, codec="lz4"))
    assert {"what": "robot/q dtype", "a": "float32", "b": "float64"} in found["schema"]["fields"]
    assert '+dtype = "float64"' in found["schema"]["text"]
    assert [change["what"] for change in found["options"]] == ["codec"]
    assert not found["equal"]


def test_a_metadata_key_that_one_dataset_lacks_is_a_change_of_those_that_have_it(old: Path, tmp_path: Path) -> None:
    def edit(raw: Path) -> None:
        (raw / "task/ep3/metadata.json").write_text('{"operator": "ann", "instruction": "do 1", "robot": "r2"}')

    changed = between(old, ingested(tmp_path, edit))["episodes"]["changed"]
    assert changed == [{"id": "task/ep3", "what": ["metadata robot"]}]


def test_exit_codes_are_those_of_diff_and_text_fits_80_columns(old: Path, tmp_path: Path) -> None:
    def edit(raw: Path) -> None:
        (raw / "task/ep0").rename(raw / f"task/ep-{'long' * 40}")
        (raw / "task/ep1").rename(raw / "task/ep[red]\x1b[31m")

    new = ingested(tmp_path, edit)
    same, differs = command(old, old), command(old, new)
    assert (same.returncode, differs.returncode) == (0, 1), same.stderr + differs.stderr
    assert "equal" in same.stdout
    assert max(map(len, differs.stdout.splitlines())) <= 80
    assert "\x1b" not in differs.stdout
    assert "[red]\\x1b[31m" in differs.stdout
    assert "long" * 40 in differs.stdout.replace("\n", "").replace(" ", "")
    none = command(old, tmp_path)
    assert none.returncode == 3
    assert "not a vlapipe dataset" in none.stderr
    assert json.loads(command(old, new, "--json").stdout) == between(old, new)


def test_every_entry_of_the_report_has_a_row_in_the_docs(old: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "runs.md").read_text().partition("| entry of `--json` |")[2]
    assert re.findall(r"^\| `(\w+)` \|", text, re.M) == [*between(old, old)]


def test_page_shows_hostile_names_as_text_and_draws_distributions(old: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install '.[report]'")

    def edit(raw: Path) -> None:
        (raw / "task/ep0").rename(raw / "task/ep<img src=x onerror=alert(1)>")
        table = raw / "task/ep2/robot.csv"
        table.write_text(table.read_text().replace("2.05", "2.06"))

    page = tmp_path / "diff.html"
    assert command(old, ingested(tmp_path, edit), "--html", page).returncode == 1
    text = page.read_text()
    assert "<script" not in text
    assert "<img" not in text
    assert "ep&lt;img src=x onerror=alert(1)&gt;" in text
    assert text.count("<svg") >= 2
    assert "default-src 'none'" in html.unescape(text)
