"""Reports made once: of a dataset with planted faults, and of one with hostile names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from report_lab import hostile_dataset, planted_dataset

from vlapipe.cli import cli


@dataclass(frozen=True)
class Report:
    """A page and what --json printed with it."""

    data: Path
    path: Path
    facts: dict[str, Any]

    @property
    def html(self) -> str:
        """The page."""
        return self.path.read_text(encoding="utf-8")


def reported(data: Path, name: str, *arguments: str) -> Report:
    pytest.importorskip("matplotlib", reason="plots need the extra 'report'")
    pytest.importorskip("jinja2", reason="pages need the extra 'report'")
    path = data.parent / name
    done = CliRunner().invoke(cli, ["inspect", str(data), "--html", str(path), "--json", *arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return Report(data, path, json.loads(done.stdout, parse_constant=pytest.fail))


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return reported(planted_dataset(tmp_path_factory.mktemp("planted")), "report.html")


@pytest.fixture(scope="session")
def planted_episode(planted: Report) -> Report:
    return reported(planted.data, "episode.html", "--episode", "1", "--png", str(planted.data.parent / "episode.png"))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return reported(hostile_dataset(tmp_path_factory.mktemp("hostile")), "report.html")
