"""The files in deploy/ name what there is, and the Slurm script ingests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_lab import ingest_lab, make_lab, schema_text

from vlapipe.cli import cli

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
SCRIPT = DEPLOY / "slurm-ingest.sh"


def kubernetes() -> dict[str, Any]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes-ingest.yaml").read_text())
    return {f"{document['kind']} {document['metadata']['name']}": document for document in documents}


def containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    template = document["spec"].get("template")
    return [] if template is None else template["spec"]["containers"]


def test_image_copies_files_that_are_there() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    assert {"pyproject.toml", "pipeline", "schemas", "src", "train"} <= set(names)
    assert all((ROOT / name).exists() for name in names)


def test_pods_of_kubernetes_find_each_other_and_give_options_that_there_are() -> None:
    documents = kubernetes()
    service = documents["Service vlapipe-scheduler"]["spec"]
    scheduler = documents["Deployment vlapipe-scheduler"]["spec"]["template"]
    assert service["selector"] == scheduler["metadata"]["labels"]
    address = f"tcp://vlapipe-scheduler:{service['ports'][0]['port']}"
    commands = {each["name"]: each["command"] for document in documents.values() for each in containers(document)}
    assert commands["scheduler"][commands["scheduler"].index("--port") + 1] == address.rpartition(":")[2]
    assert address in commands["worker"]
    assert commands["ingest"][:2] == ["vlapipe", "ingest"]
    assert address in commands["ingest"]
    known = {flag for option in cli.commands["ingest"].params for flag in option.opts}
    assert {word for word in commands["ingest"] if word.startswith("--")} <= known
    for name in ("scheduler", "worker"):
        program, module, *options = commands[name]
        done = subprocess.run(
            [sys.executable, "-m", program, module, "--help"], capture_output=True, text=True, check=True
        )
        assert all(word.rstrip("=") in done.stdout for word in options if word.startswith("--")), name
    volumes = {
        document["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
        for document in documents.values()
        if "volumes" in document["spec"].get("template", {}).get("spec", {})
    }
    assert volumes == {"recordings"}


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_script_for_slurm_has_no_fault_that_shellcheck_knows() -> None:
    subprocess.run(["shellcheck", SCRIPT], check=True)


@pytest.mark.slow
def test_script_for_slurm_makes_the_tree_of_one_machine(tmp_path: Path) -> None:
    """``srun`` is one that starts its command on this machine. The script itself was tried on a real ``slurmd``."""
    raw = make_lab(tmp_path / "raw", {f"ep{i}": {"n": i} for i in range(6)})
    ingest_lab(raw, tmp_path / "alone", schema_text(), shard_bytes=20)
    made = {"srun": 'exec "$@"', "hostname": "echo 127.0.0.1", "python3": f'exec {sys.executable} "$@"'}
    made |= {name: f'exec {sys.executable} -m {name} "$@"' for name in ("vlapipe", "dask")}
    (tmp_path / "bin").mkdir()
    for name, text in made.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT / "src"),
        "SLURM_JOB_ID": "7",
        "SLURM_CPUS_PER_TASK": "2",
    }
    command = [SCRIPT, raw, tmp_path / "data", "--schema", tmp_path / "alone.toml", "--shard-size", "20"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "dask-7.json").exists()
    trees = [
        {p.relative_to(data).as_posix(): p.read_bytes() for p in data.rglob("*") if p.is_file()}
        for data in (tmp_path / "data", tmp_path / "alone")
    ]
    assert trees[0] == trees[1]
    refused = subprocess.run([SCRIPT, raw], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert refused.returncode == 2
