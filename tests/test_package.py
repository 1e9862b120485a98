"""The package as it is laid out and shipped: links, wheel, import boundaries, commands."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import vlapipe

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("pipeline", "train", "schemas")


@pytest.mark.parametrize("room", ROOMS)
def test_link_under_src_resolves_to_the_top_level_room(room: str) -> None:
    link = ROOT / "src" / "vlapipe" / room
    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert link.resolve() == ROOT / room


def test_wheel_holds_every_module_of_all_rooms_and_the_schemas(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("vlapipe-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())
    expected = {
        f"vlapipe/{path.relative_to(ROOT).as_posix()}"
        for room in ROOMS
        for pattern in ("*.py", "robots/*.toml")
        for path in (ROOT / room).rglob(pattern)
    }
    assert len(expected) > 40
    assert expected <= shipped
    assert {"vlapipe/py.typed", "vlapipe/cli.py"} <= shipped


def imported_after(code: str) -> set[str]:
    """Top-level modules loaded by ``code`` in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint('\\n'.join(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment)
    return set(done.stdout.split())


def test_package_alone_loads_nothing_and_finds_every_name_when_it_is_used() -> None:
    assert not {"torch", "numpy", "pyarrow"} & imported_after("import vlapipe")
    assert all(getattr(vlapipe, name) for name in vlapipe.__all__)
    with pytest.raises(AttributeError, match="no attribute 'load_polcy'"):
        _ = vlapipe.load_polcy


def test_ingest_imports_no_torch() -> None:
    loaded = imported_after("import vlapipe.cli, vlapipe.pipeline.ingest, vlapipe.pipeline.inspection, distributed")
    assert "pyarrow" in loaded
    assert "torch" not in loaded


def test_training_imports_neither_dask_nor_pandas() -> None:
    loaded = imported_after("import vlapipe.cli, vlapipe.train.loop, vlapipe.train.loader, vlapipe.train.policies")
    assert "torch" in loaded
    assert not {"dask", "distributed", "pandas"} & loaded


def test_schemas_import_nothing_else_of_ours() -> None:
    code = "import vlapipe.schemas.registry, sys\nassert not any(m.startswith(('vlapipe.pipeline', 'vlapipe.train')) "
    imported_after(code + "for m in sys.modules)")


def test_shards_import_nothing_of_the_rest_of_pipeline() -> None:
    code = (
        "import vlapipe.pipeline.shards.dataset, vlapipe.pipeline.shards.shard_file, sys\n"
        "ours = [m for m in sys.modules if m.startswith('vlapipe.pipeline.')]\n"
        "assert all(m.startswith('vlapipe.pipeline.shards') for m in ours), ours"
    )
    imported_after(code)
