"""The package's layout and distribution: links, wheel, licence, import boundaries."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
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


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel and an sdist of this checkout."""
    out = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "build", "--sdist", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return out


def test_wheel_holds_every_module_of_all_rooms_and_the_schemas(built: Path) -> None:
    (wheel,) = built.glob("vlapipe-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())
    expected = {
        f"vlapipe/{path.relative_to(ROOT).as_posix()}"
        for room in ROOMS
        for pattern in ("*.py", "robots/*.toml", "report/assets/*", "report/templates/*")
        for path in (ROOT / room).rglob(pattern)
    }
    assert len(expected) > 40
    assert expected <= shipped
    assert {"vlapipe/py.typed", "vlapipe/cli.py"} <= shipped


def test_licence_is_in_the_wheel_and_in_the_sdist(built: Path) -> None:
    text = (ROOT / "LICENSE").read_bytes()
    assert b"Apache License" in text
    assert b"END OF TERMS AND CONDITIONS" in text
    (wheel,) = built.glob("vlapipe-*.whl")
    (sdist,) = built.glob("vlapipe-*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        info = f"vlapipe-{vlapipe.__version__}.dist-info"
        assert archive.read(f"{info}/licenses/LICENSE") == text
        assert "\nLicense-Expression: Apache-2.0\n" in archive.read(f"{info}/METADATA").decode()
    with tarfile.open(sdist) as packed:
        licence = packed.extractfile(f"vlapipe-{vlapipe.__version__}/LICENSE")
        assert licence is not None
        assert licence.read() == text


def imported_after(code: str) -> set[str]:
    """Top-level modules loaded by ``code`` in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint('\\n'.join(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment)
    return set(done.stdout.split())


def test_package_alone_loads_nothing() -> None:
    assert not {"torch", "numpy", "pyarrow"} & imported_after("import vlapipe")


def test_package_finds_every_name_when_it_is_used() -> None:
    pytest.importorskip("torch")
    assert all(getattr(vlapipe, name) for name in vlapipe.__all__)
    with pytest.raises(AttributeError, match="no attribute 'load_polcy'"):
        _ = vlapipe.load_polcy


def test_ingest_imports_no_torch() -> None:
    loaded = imported_after(
        "import vlapipe.cli, vlapipe.pipeline.ingest, vlapipe.pipeline.show.inspection, distributed"
    )
    assert "pyarrow" in loaded
    assert "torch" not in loaded


def test_training_imports_neither_dask_nor_pandas() -> None:
    pytest.importorskip("torch")
    loaded = imported_after("import vlapipe.cli, vlapipe.train.loop, vlapipe.train.data.loader, vlapipe.train.policies")
    assert "torch" in loaded
    assert not {"dask", "distributed", "pandas"} & loaded


def test_schemas_import_nothing_else_of_ours() -> None:
    code = "import vlapipe.schemas.registry, sys\nassert not any(m.startswith(('vlapipe.pipeline', 'vlapipe.train')) "
    imported_after(code + "for m in sys.modules)")


def test_shards_import_nothing_of_the_rest_of_pipeline() -> None:
    code = (
        "import vlapipe.pipeline.shards.dataset, vlapipe.pipeline.shards.format.shard_file, sys\n"
        "ours = [m for m in sys.modules if m.startswith('vlapipe.pipeline.')]\n"
        "assert all(m.startswith('vlapipe.pipeline.shards') for m in ours), ours"
    )
    imported_after(code)
