"""Fixtures for the tests of several rooms: a small raw dataset, the same dataset ingested, and real logs."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from vlapipe.pipeline.ingest import IngestConfig, ingest

# For `import factories` and `import reference`; importlib mode adds no path.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "train")]

from factories import make_dataset  # noqa: E402
from store_server import BUCKET, environment, serve  # noqa: E402

# No example is late because the machine is busy. For `make test`: the same examples each time, so that a change alone
# decides; `make test-all` tries new ones.
settings.register_profile("unhurried", deadline=None)
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("unhurried")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REAL = Path(__file__).resolve().parents[2] / "shared" / "real"


class NoTorch(pytest.File):
    """The folder of the trainer's tests where torch is not installed: one skip that counts their files."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Skip them all."""
        pytest.skip(f"no torch here: {len(list(self.path.rglob('test_*.py')))} files of tests/train are not run")


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Keep out of tests/train where torch is not installed; a test elsewhere that needs it says so itself."""
    if path == Path(__file__).parent / "train" and importlib.util.find_spec("torch") is None:
        return NoTorch.from_parent(parent, path=path)
    return None


@pytest.fixture(scope="session")
def tiny_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four short raw episodes, two cameras, sensors."""
    return make_dataset(tmp_path_factory.mktemp("raw") / "lab")


@pytest.fixture(scope="session")
def tiny_dataset(tiny_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, ingested into two shards or more."""
    out = tmp_path_factory.mktemp("ingested") / "data"
    ingest(IngestConfig(source=tiny_raw, out=out, shard_bytes=2_000_000))
    return out


@pytest.fixture(scope="session")
def s3_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real S3 server on loopback, which has one bucket."""
    pytest.importorskip("moto", reason="needs moto (pip install 'moto[s3]' flask flask-cors)")
    pytest.importorskip("obstore", reason="needs obstore (pip install '.[store]')")
    with serve(tmp_path_factory.mktemp("s3") / "log") as port:
        yield port


@pytest.fixture
def s3(s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty folder of that server, which this process finds; copies lie in a folder of the test."""
    told = {"VLAPIPE_CACHE_DIR": str(tmp_path / "cache"), "VLAPIPE_STORE_WAIT": "20"}
    for name, value in {**environment(s3_port), **told}.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}"


@pytest.fixture
def new_threads() -> Callable[[str], list[threading.Thread]]:
    """Lists the threads whose names begin so and that the test has started; those of an earlier one may still end."""
    earlier = set(threading.enumerate())
    return lambda name: [
        thread for thread in threading.enumerate() if thread.name.startswith(name) and thread not in earlier
    ]


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real logs; skips where it is absent."""
    if not REAL.is_dir():
        pytest.skip("no real logs beside this checkout")
    return REAL


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium."""
    driver = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with driver.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()
