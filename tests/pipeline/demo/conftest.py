"""One short recording and one small demo, made once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlapipe.pipeline.demo import DemoReport, make_demo
from vlapipe.pipeline.demo.episode import Recording, simulate
from vlapipe.pipeline.demo.recorder import write_episode


@pytest.fixture(scope="session")
def recording() -> Recording:
    """Everything that is recorded of episode 5, in full length."""
    return simulate(seed=3, index=5)


@pytest.fixture(scope="session")
def short_episode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a good episode of 1.2 s; not to be changed."""
    folder = tmp_path_factory.mktemp("short") / "episode"
    write_episode(folder, simulate(seed=3, index=5, max_duration_s=1.2))
    return folder


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoReport:
    """Two good episodes, made by one process; not to be changed."""
    return make_demo(tmp_path_factory.mktemp("demo") / "raw", num_episodes=2, seed=7, workers=1)
