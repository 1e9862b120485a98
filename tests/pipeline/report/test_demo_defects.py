"""The page of a demo with planted faults that ingest keeps: they come first, and each is flagged and seen in a plot."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from report_lab import Report, reported

from vlapipe.pipeline.demo import dataset, make_demo
from vlapipe.pipeline.ingest import IngestConfig, ingest

pytestmark = pytest.mark.slow
KINDS = {"sensor_clock_drift": "rate", "robot_gap": "gap", "camera_frozen": "frozen", "sensor_stuck": "stuck"}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Report]:
    """The planted faults by their episode, and the report of twelve good episodes and those."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "DEFECTS", {})  # the other faults set their episode aside; test_ingest has them
        made = make_demo(folder / "raw", num_episodes=12, defects=True, workers=1)
    ingest(IngestConfig(source=folder / "raw", out=folder / "data", workers=1))
    return {defect.episode: defect.name for defect in made.defects}, reported(folder / "data", "report.html")


def test_worst_episodes_are_the_planted_ones_each_with_its_reason_first(
    shown: tuple[dict[str, str], Report],
) -> None:
    planted, report = shown
    odd = report.facts["report"]["odd"]
    assert {one["id"] for one in odd[:4]} == set(planted)
    assert {planted[one["id"]]: one["reasons"][0]["kind"] for one in odd[:4]} == KINDS
    assert re.findall(r'<h3 id="episode-\d+" tabindex="-1">\d+\. <bdi>([^<]*)', report.html)[:4] == [
        one["id"] for one in odd[:4]
    ]


def test_each_planted_fault_is_seen_in_its_plot(shown: tuple[dict[str, str], Report]) -> None:
    planted, report = shown
    traces: dict[str, Any] = {planted.get(one["id"]): one["traces"][0] for one in report.facts["report"]["odd"]}
    drift, gap, frozen, stuck = (traces[name] for name in KINDS)
    assert drift["y"][-1] == pytest.approx(0.02 * drift["x"][-1] * 1e3, rel=0.15)  # ms, and a slope to there
    assert max(map(abs, drift["typical_y"])) < 0.2 * drift["y"][-1]
    (first, last), *_ = gap["spans"]
    assert last - first == pytest.approx(0.61, abs=0.02)
    assert max(gap["y"]) - min(gap["y"]) == pytest.approx(600, abs=30)
    still = [y for x, y in zip(frozen["x"], frozen["y"], strict=True) if inside(x, frozen)]
    assert len(still) >= 15
    assert max(still) == 0
    kept = [y for x, y in zip(stuck["x"], stuck["y"], strict=True) if inside(x, stuck)]
    assert len(set(kept)) == 1 < len(kept)
    assert report.html.count("Marked: ") >= 3


def inside(at: float, trace: dict[str, Any]) -> bool:
    first, last = trace["spans"][0]
    return bool(first < at < last)


def test_demo_without_defects_has_no_planted_episode_and_the_bytes_of_the_good_ones(
    shown: tuple[dict[str, str], Report], tmp_path: Path
) -> None:
    _, report = shown
    raw = report.data.parent / "raw"
    plain = make_demo(tmp_path / "raw", num_episodes=2, workers=1)
    files = [path.relative_to(plain.directory) for path in plain.directory.rglob("*") if path.is_file()]
    assert [(raw / file).read_bytes() for file in files] == [(plain.directory / file).read_bytes() for file in files]
    assert len(json.loads((raw / "planted_defects.json").read_text())) == 4
