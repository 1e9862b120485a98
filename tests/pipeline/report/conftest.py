"""Reports made once: of a dataset with planted faults, and one page of each kind whose names are all hostile."""

from __future__ import annotations

import json

import pytest
from report_lab import (
    Report,
    hostile_columns,
    hostile_dataset,
    planted_dataset,
    reported,
    written,
    written_run,
)

from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.report.write import write_ingest_report


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return reported(planted_dataset(tmp_path_factory.mktemp("planted")), "report.html")


@pytest.fixture(scope="session")
def planted_episode(planted: Report) -> Report:
    return reported(planted.data, "episode.html", "--episode", "1", "--png", str(planted.data.parent / "episode.png"))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return reported(hostile_dataset(tmp_path_factory.mktemp("hostile")), "report.html")


@pytest.fixture(scope="session")
def columns(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A dataset with hostile names of episodes, files and columns."""
    return reported(hostile_columns(tmp_path_factory.mktemp("columns")), "report.html")


@pytest.fixture(scope="session")
def columns_episode(columns: Report) -> Report:
    return reported(columns.data, "episode.html", "--episode", "3")


@pytest.fixture(scope="session")
def columns_ingest(columns: Report) -> Report:
    """The page of its ingest; the facts are those of the report as JSON."""
    pytest.importorskip("jinja2", reason="pages need the extra 'report'")
    folder = columns.data.parent
    schema = str(folder / "hostile.toml")
    report = ingest(IngestConfig(source=folder / "raw", schema=schema, dry_run=True, workers=1))
    write_ingest_report(report, folder / "ingest.html", dry_run=True)
    return Report(columns.data, folder / "ingest.html", json.loads(report.to_json()))


@pytest.fixture(scope="session")
def difference(columns: Report, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """From that dataset to the same with other values: every episode has changed."""
    other = hostile_columns(tmp_path_factory.mktemp("shifted"), shift=0.5)
    path = columns.data.parent / "diff.html"
    return written(columns.data, path, "diff", str(columns.data), str(other), exit_code=1)


@pytest.fixture(scope="session")
def of_run(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return reported(written_run(tmp_path_factory.mktemp("runs") / "run"), "run.html")


@pytest.fixture(scope="session")
def comparison(of_run: Report) -> Report:
    other = written_run(of_run.data.parent / "other", learning_rate=3e-4)
    return reported(of_run.data, "runs.html", "--compare", str(other))
