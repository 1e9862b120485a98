"""Damaged and hostile bags are refused with their place: nothing runs, no other file is read, memory stays small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bag_writing import STATES, robot, store_of, write_ros2
from hostile_bags import MCAP, ROS1, SQLITE, whole_bags, write_hostile

from vlapipe.pipeline.read.containers.container import open_container
from vlapipe.schemas.findings import Findings

READ_ALL = """
import json, resource, sys
from pathlib import Path
from vlapipe.pipeline.read.containers.container import open_container
from vlapipe.schemas.findings import Findings
told = {}
root = Path(sys.argv[1])
for file in sorted(root.iterdir()):
    findings = Findings()
    with open_container(root, [file.name], findings, kind="bag", base="/joint_states") as arrays:
        if arrays is not None and arrays.find(("position",), findings):
            arrays.load("position", findings)
    told[file.name] = [(f.code, f.file, str(f)) for f in findings]
print(json.dumps({"told": told, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


@pytest.mark.slow
def test_hostile_bags_are_refused_within_1_gb_of_memory(tmp_path: Path) -> None:
    bags, here = tmp_path / "bags", tmp_path / "here"
    bags.mkdir()
    here.mkdir()
    made = write_hostile(bags)
    assert len(made) == len(MCAP) + len(ROS1) + len(SQLITE) + 3
    command = [sys.executable, "-c", READ_ALL, str(bags)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=here)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert not [name for name, findings in report["told"].items() if len(findings) != 1], report["told"]
    for name, ((code, file, line),) in report["told"].items():
        assert code.startswith(("bag.", "npz.missing_array", "image.")), (name, line)
        assert file == name
        assert len(line) < 4000
        assert "\n" not in line
    assert report["mb"] < 1000
    assert not list(here.iterdir())  # one of them would make a file


def test_metadata_leads_to_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(2)
    bag = write_ros2(tmp_path / "raw" / "ep", list(robot(store)), store)
    secret = write_ros2(tmp_path / "secret", list(robot(store, seed=9)), store) / "secret.db3"
    metadata = bag / "metadata.yaml"
    before = metadata.read_text()
    opened: list[str] = []
    open_before = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *args, **options: opened.append(str(self)) or open_before(self, *args, **options)
    )
    for path in (str(secret), "../../secret/secret.db3", "/etc/passwd", "!!python/object/apply:os.system ['true']"):
        metadata.write_text(before.replace("- ep.db3", f"- {path}"))
        findings = Findings()
        with open_container(tmp_path / "raw", ["ep/ep.db3"], findings, kind="bag", base=STATES) as arrays:
            assert arrays is None or np.isfinite(arrays.load_any("position")).all()
        assert [f.code for f in findings] in ([], ["bag.incomplete"])
    assert not [path for path in opened if "secret" in path or "passwd" in path]


def test_missing_split_is_told(tmp_path: Path) -> None:
    store = store_of(2)
    bag = write_ros2(tmp_path / "ep", list(robot(store)), store)
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("- ep.db3\n", "- ep.db3\n  - ep_1.db3\n"))
    findings = Findings()
    with open_container(tmp_path, ["ep/ep.db3"], findings, kind="bag", base=STATES):
        pass
    assert [(f.code, f.found) for f in findings] == [("bag.incomplete", "not ep_1.db3")]


def test_log_beside_a_bag_that_was_not_closed_is_told(tmp_path: Path) -> None:
    store = store_of(2)
    write_ros2(tmp_path / "ep", list(robot(store)), store)
    (tmp_path / "ep" / "ep.db3-wal").write_bytes(b"messages")
    findings = Findings()
    with open_container(tmp_path, ["ep/ep.db3"], findings, kind="bag", base=STATES) as arrays:
        assert arrays is None
    assert [f.code for f in findings] == ["bag.cut_short"]


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9, 0.999])
def test_bag_that_is_cut_short_is_refused_or_taken_as_far_as_it_goes(tmp_path: Path, kept: float) -> None:
    for path in whole_bags(tmp_path):
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * kept)])
        for severity in ("error", "warning"):
            findings = Findings((("bag.cut_short", severity), ("bag.incomplete", severity)))
            with open_container(
                tmp_path, [str(path.relative_to(tmp_path))], findings, kind="bag", base=STATES
            ) as arrays:
                assert arrays is None or not findings.errors
            assert list(findings), path


def test_damaged_bytes_never_end_in_a_traceback(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for path in whole_bags(tmp_path):
        data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        for _ in range(60):
            damaged = data.copy()
            where = rng.integers(0, len(data), 4)
            damaged[where] = rng.integers(0, 256, 4)
            path.write_bytes(damaged.tobytes())
            findings = Findings()
            with open_container(
                tmp_path, [str(path.relative_to(tmp_path))], findings, kind="bag", base=STATES
            ) as arrays:
                for name in ("position", "header.stamp", "position[elbow]"):
                    loaded = None if arrays is None else arrays.load(name, findings)
                    assert loaded is not None or findings.errors
