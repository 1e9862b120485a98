"""The docs as a newcomer follows them: the quickstart runs as it stands, and links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def test_quickstart_runs_as_it_stands(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "vlapipe"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m vlapipe "$@"\n')
    command.chmod(0o755)
    text = (ROOT / "docs" / "quickstart.md").read_text()
    steps = re.findall(r"^```(bash|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(steps) >= 5
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
    }
    for language, code in steps:
        runner = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
        done = subprocess.run(
            [*runner, code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_of_ours_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_schema_in_the_docs_is_one_that_parses() -> None:
    from vlapipe.schemas.parse import parse_schema

    text = "".join(blocks(ROOT / "docs" / "raw-data.md", "toml"))
    assert parse_schema(text, "docs/raw-data.md").name == "bench"


def test_every_column_of_the_episodes_table_is_documented(tiny_dataset: Path) -> None:
    import vlapipe

    text = (ROOT / "docs" / "shard-format.md").read_text()
    for column in vlapipe.open_dataset(tiny_dataset).episodes.column_names:
        stream, _, name = column.rpartition("/")
        kind = "<camera>" if name in ("height", "width") else "<stream>"
        assert f"`{kind}/{name}`" in text if stream else f"`{column}`" in text, column
