"""Reports made once: of a dataset with planted faults, and of one with hostile names."""

from __future__ import annotations

import pytest
from report_lab import Report, hostile_dataset, planted_dataset, reported


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return reported(planted_dataset(tmp_path_factory.mktemp("planted")), "report.html")


@pytest.fixture(scope="session")
def planted_episode(planted: Report) -> Report:
    return reported(planted.data, "episode.html", "--episode", "1", "--png", str(planted.data.parent / "episode.png"))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return reported(hostile_dataset(tmp_path_factory.mktemp("hostile")), "report.html")
