"""The docs as a newcomer follows them: the quickstart runs as written, and every link has a target."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from free_ports import free_port

import vlapipe
from vlapipe.cli import cli

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted(path.stem for path in (ROOT / "docs" / "recipes").glob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def run_page(name: str, folder: Path, **replaced: str) -> int:
    """Run a page's commands and Python code in ``folder``, one after the other; gives how many there were.

    Code whose first line is the name of a file is written to that file. ``replaced`` gives another port, say.
    """
    (folder / "bin").mkdir()
    command = folder / "bin" / "vlapipe"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m vlapipe "$@"\n')
    command.chmod(0o755)
    steps = re.findall(r"^```(bash|python)\n(.*?)^```", (ROOT / "docs" / name).read_text(), re.MULTILINE | re.DOTALL)
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")}
    for language, code in steps:
        for old, new in replaced.items():
            code = code.replace(old.strip("_"), new)
        if file := re.match(r"# (\w+\.py)\n", code):
            (folder / file[1]).write_text(code)
            continue
        runner = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
        done = subprocess.run([*runner, code], cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return len(steps)


def test_quickstart_runs_as_it_stands(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    assert run_page("quickstart.md", tmp_path) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("page", RECIPES)
def test_recipe_runs_as_it_stands(page: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    assert run_page(f"recipes/{page}.md", tmp_path, _8786=str(free_port())) >= 1
    assert (tmp_path / "data" / "manifest.json").exists()


@pytest.mark.parametrize("page", RECIPES)
def test_code_of_a_recipe_is_code_and_its_options_are_ones_that_there_are(page: str) -> None:
    text = (ROOT / "docs" / "recipes" / f"{page}.md").read_text()
    for language, code in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if language == "python":
            compile(code, page, "exec")
            continue
        done = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for name, options in re.findall(r"vlapipe (\w+) ([^\n]*)", code.replace("\\\n", " ")):
            command = cli.commands[name]
            commands = [command, *getattr(command, "commands", {}).values()]
            known = {flag for each in commands for option in each.params for flag in option.opts}
            assert set(re.findall(r"(?<!\S)--[\w-]+", options)) <= known, code


def test_policy_of_ones_own_in_the_docs_trains_and_acts(tiny_dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "data").symlink_to(tiny_dataset)
    assert run_page("policies.md", tmp_path) == 5
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["policy"], config["policy_args"]) == ("my_policy:StatePolicy", {"width": 32})


def test_page_about_policies_says_what_a_batch_holds(tiny_dataset: Path) -> None:
    pytest.importorskip("torch")
    loader = vlapipe.Loader(vlapipe.open_dataset(tiny_dataset), batch_size=2, num_workers=0)
    batch, spec = next(iter(loader)), loader.spec
    assert len(batch.pop("task")) == 2
    general: dict[str, set[tuple[str, int]]] = {}
    for key, value in batch.items():
        name = re.sub(r"images\.\w+?(?=_is_pad|$)", "images.<camera>", key)
        name = re.sub(r"sensors\.\w+?(?=_is_pad|$)", "sensors.<name>", name)
        general.setdefault(name, set()).add((str(value.dtype).removeprefix("torch."), value.ndim))
    text = (ROOT / "docs" / "policies.md").read_text()
    table = re.findall(r"^\| `([\w.<>]+)` \| (\(B.*?\)) \| (\w+) \|", text, re.MULTILINE)
    assert {key for key, _, _ in table} == set(general)
    for key, shape, dtype in table:
        lengths = shape.strip("()").rstrip(",").split(", ")
        for found, num_dimensions in general[key]:
            assert found == dtype, key
            assert num_dimensions >= len(lengths) - 1 if "..." in lengths else num_dimensions == len(lengths), key
    assert set(spec.moments) <= set(batch)
    assert all(f"`spec.{field}`" in text for field in vars(spec))


def test_no_page_or_message_installs_vlapipe_from_a_package_index() -> None:
    """It is on none."""
    code = [path for room in ("src", "pipeline", "train", "schemas") for path in (ROOT / room).rglob("*.py")]
    assert len(code) > 100
    for path in [*PAGES, *code]:
        found = re.findall(r"pip install [^`\n]*?(?<![\w/.])vlapipe(?![\w/])", path.read_text())
        assert not found, f"{path}: {found}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_of_ours_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_schema_in_the_docs_is_one_that_parses() -> None:
    from vlapipe.schemas.parse import parse_schema

    text = "".join(blocks(ROOT / "docs" / "raw-data.md", "toml"))
    assert parse_schema(text, "docs/raw-data.md").name == "bench"


def test_every_column_of_the_episodes_table_is_documented(tiny_dataset: Path) -> None:
    text = (ROOT / "docs" / "shard-format.md").read_text()
    for column in vlapipe.open_dataset(tiny_dataset).episodes.column_names:
        stream, _, name = column.rpartition("/")
        kind = "<camera>" if name in ("height", "width", "red", "green", "blue") else "<stream>"
        if stream == "metadata":
            kind, name = stream, "<key>"
        assert f"`{kind}/{name}`" in text if stream else f"`{column}`" in text, column


def test_files_that_the_architecture_page_names_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`((?:schemas|pipeline|train|tests)/[\w/]+(?:\.py|/))`", text)
    assert len(named) > 25
    for path in named:
        assert (ROOT / path).exists(), path
    for folder, files in re.findall(r"`((?:schemas|pipeline|train)/[\w/]*?)(?:\w+\.py)`((?:, `\w+\.py`)+)", text):
        for name in re.findall(r"\w+\.py", files):
            assert (ROOT / folder / name).exists(), f"{folder}{name}"
