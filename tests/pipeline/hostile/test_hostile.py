"""Hostile files: each is refused with its place; nothing is executed, nothing outside is read, memory stays small.

The cases of one kind run in one process (``run_cases.py``), through the public command.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE)]

from hostile_schemas import SCHEMAS  # noqa: E402
from lab import CASES, MARKER, Case, Lab  # noqa: E402

for _path in sorted(_HERE.glob("*_cases.py")):
    if _path.stem != "run_cases":
        importlib.import_module(_path.stem)

_MOST_BYTES = 1_000_000_000
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_REPOSITORY = _HERE.parents[2]


@contextmanager
def _door() -> Iterator[socket.socket]:
    """Listens on loopback. No library may knock, whatever address a file names."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setblocking(False)
        yield door


def _prepare(case: Case, folder: Path, port: int) -> dict[str, Any]:
    lab = Lab(folder, port)
    lab.raw.mkdir(parents=True)
    lab.outside.mkdir()
    (lab.outside / "secret.txt").write_bytes(MARKER)
    case.make(lab)
    schema = folder / "schema.toml"
    arguments = ["ingest", "--dataset", str(lab.raw), "--out", str(folder / "data"), "--workers", "1"]
    arguments += ["--format", "npz", "--codec", "none", "--report", str(folder / "report.json")]
    if case.schema in SCHEMAS:
        schema.write_text(SCHEMAS[case.schema])
        arguments += ["--schema", str(schema)]
    else:
        arguments += ["--schema", case.schema]
    return {
        "folder": str(folder),
        "outside": str(lab.outside),
        "arguments": [*arguments, *case.arguments],
        "limit_s": case.limit_s,
        "allowed": [
            *(str(each) for each in (lab.raw, folder / "data", schema, folder / "report.json")),
            str(_REPOSITORY),
            str(Path(tempfile.gettempdir(), "vlapipe-")),
        ],
    }


def _lines(folder: Path, output: str) -> list[str]:
    """Return every line that the command said: on the terminal, and in its report."""
    lines = output.splitlines()
    report = folder / "report.json"
    if report.exists():
        said = json.loads(report.read_text())
        found = [*said["findings"], *(reason for reject in said["rejects"] for reason in reject["reasons"])]
        lines += [f"{each['severity']}: {each['message']}" for each in found]
    return lines


def _faults(case: Case, folder: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield what went wrong with one case."""
    output, code = result["output"], result["code"]
    if result["timed_out"]:
        yield f"not done after {case.limit_s:.0f} s"
    elif code < 0:
        yield f"killed by signal {-code}"
    elif code not in ((0, 1, 2) if case.kept else (1, 2)):
        yield f"exit code {code}"
    if "Traceback" in output:
        yield "a traceback"
    if result["peak_bytes"] > _MOST_BYTES:
        yield f"{result['peak_bytes'] / 1e6:,.0f} MB of memory"
    if (folder / "executed").exists():
        yield "code of the dataset was executed"
    if result["read_outside"]:
        yield "something outside the dataset was opened"
    if result["events"]:
        yield f"{len(result['events'])} events, such as {result['events'][0]}"
    if _CONTROLS.search(output):
        yield f"a control character in the output: {_CONTROLS.search(output)!r}"
    if MARKER.decode() in output or any(
        MARKER in path.read_bytes() for path in folder.glob("data/**/*") if path.is_file()
    ):
        yield "bytes from outside the dataset"
    lines = _lines(folder, output)
    if not any(all(text in line for text in case.says) for line in lines):
        yield f"no line with {case.says}"
    if code == 2 and sum(bool(line.strip()) for line in output.splitlines()) > 1:
        yield "more than one line"


def _run(cases: list[Case], folder: Path) -> None:
    with _door() as door:
        jobs = [_prepare(case, folder / f"{i:03d}", door.getsockname()[1]) for i, case in enumerate(cases)]
        (folder / "jobs.json").write_text(json.dumps(jobs))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        environment["PYTHONPATH"] = os.pathsep.join([str(_REPOSITORY / "src"), *sys.path])
        done = subprocess.run(
            [sys.executable, str(_HERE / "run_cases.py"), str(folder / "jobs.json")],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        try:
            door.accept()
            knocked = True
        except BlockingIOError:
            knocked = False
    bad = []
    for i, case in enumerate(cases):
        here = folder / f"{i:03d}"
        result = json.loads((here / "result.json").read_text())
        faults = list(_faults(case, here, result))
        if faults:
            bad.append(f"{case.name}: {'; '.join(faults)}\n    " + "\n    ".join(result["output"].splitlines()[-6:]))
        shutil.rmtree(here, ignore_errors=True)
    assert not knocked, "a library followed an address in a file"
    assert not bad, f"{len(bad)} of {len(cases)}\n" + "\n".join(bad)


_KINDS = [*dict.fromkeys(case.kind for case in CASES)]


@pytest.mark.parametrize(
    ("kind", "every"),
    [*((kind, 3) for kind in _KINDS), *(pytest.param(kind, 1, marks=pytest.mark.slow) for kind in _KINDS)],
)
def test_hostile_files_are_refused_with_their_place(kind: str, every: int, tmp_path: Path) -> None:
    """The fast suite tries a third of the cases, and none that takes long."""
    only = os.environ.get("HOSTILE_ONLY", "")
    cases = [case for case in CASES if case.kind == kind and only in case.name and (every == 1 or not case.slow)]
    _run(cases[::every], tmp_path)


def test_there_are_a_hundred_situations() -> None:
    assert len({(case.kind, case.name) for case in CASES}) == len(CASES) >= 100
