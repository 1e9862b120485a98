"""CI and `make`: the Python versions that are named, the pins, and the run on the newest Python."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAMED = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if c.startswith("Programming Language :: Python ::")]


def test_pythons_that_are_named_are_those_that_may_be_installed_on() -> None:
    least, most = (int(part.partition("3.")[2]) for part in PROJECT["requires-python"].split(","))
    assert PROJECT["requires-python"] == f">=3.{least},<3.{most}"
    assert [f"3.{minor}" for minor in range(least, most)] == NAMED
    assert "{}.{}".format(*sys.version_info) in NAMED


def needed(requirements: list[str]) -> set[str]:
    """Names of the packages that these lead to on this Python, as far as they are installed."""
    found: set[tuple[str, str]] = set()
    queue = [(Requirement(text), "") for text in requirements]
    while queue:
        requirement, extra = queue.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in ("", *requirement.extras):
            key = (canonicalize_name(requirement.name), wanted)
            if key not in found:
                found.add(key)
                with contextlib.suppress(PackageNotFoundError):  # the extra `train` where torch is not installed
                    queue += [(Requirement(text), wanted) for text in requires(requirement.name) or []]
    return {name for name, _ in found}


def test_everything_that_make_installs_is_pinned_for_this_python() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(str(pin.specifier).startswith("==") for pin in pins)
    here = [canonicalize_name(pin.name) for pin in pins if pin.marker is None or pin.marker.evaluate()]
    assert len(here) == len(set(here))
    extras = PROJECT["optional-dependencies"]
    names = needed([*PROJECT["dependencies"], *extras["train"], *extras["dev"]])
    assert len(names) > 50
    assert names - set(here) == set()


@pytest.mark.parametrize(
    ("default", "fails", "asked"),
    [
        ("3.0", "nothing", ["test", "test-core PYTHON=/opt/newest"]),
        ("3.0", "test", ["test"]),
        ("3.0", "test-core", ["test", "test-core PYTHON=/opt/newest"]),
        (NAMED[-1], "nothing", ["test"]),
    ],
)
def test_ci_runs_the_tests_on_the_newest_python_too_and_fails_if_either_run_does(
    tmp_path: Path, default: str, fails: str, asked: list[str]
) -> None:
    """CI's scripts as they are, where ``make`` only tells what it was asked for."""
    (tmp_path / ".ci").mkdir()
    for name in (".ci/run", ".ci/newest-python", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
        (tmp_path / name).chmod(0o755)
    programs = {
        "make": f'echo "$*" >> {tmp_path}/asked; [ "$1" != {fails} ]',
        "python3": f"echo {default}",
        f"python{NAMED[-1]}": f"echo /opt/newest {NAMED[-1]}",
    }
    for name, line in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYENV_ROOT": str(tmp_path)}
    done = subprocess.run(
        ["bash", tmp_path / ".ci" / "run"], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) == (fails == "nothing"), done
    assert (tmp_path / "asked").read_text().splitlines() == asked
    assert ("the tests ran on that one alone" in done.stdout) == (default == NAMED[-1])
