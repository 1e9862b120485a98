"""Fixtures that several rooms' tests share: a small raw dataset, the same ingested, and the real logs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import settings

from vlapipe.pipeline.ingest import IngestConfig, ingest

# For `import factories` and `import reference`; importlib mode adds no path.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "train")]

from factories import make_dataset  # noqa: E402

# For `make test`: the same examples each time, so that a change alone decides; `make test-all` tries new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)

REAL = Path(__file__).resolve().parents[2] / "shared" / "real"


@pytest.fixture(scope="session")
def tiny_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four short raw episodes, two views, sensors."""
    return make_dataset(tmp_path_factory.mktemp("raw") / "lab")


@pytest.fixture(scope="session")
def tiny_dataset(tiny_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, ingested into two shards or more."""
    out = tmp_path_factory.mktemp("ingested") / "data"
    ingest(IngestConfig(source=tiny_raw, out=out, shard_bytes=2_000_000))
    return out


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real logs; skips where it is absent."""
    if not REAL.is_dir():
        pytest.skip("no real logs beside this checkout")
    return REAL
