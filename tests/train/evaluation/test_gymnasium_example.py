"""The example with a public environment works as its page says: record, ingest, train, act."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.train.config import TrainConfig
from vlapipe.train.evaluation.saved_run import evaluate_in_environment
from vlapipe.train.loop import train

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "gymnasium"


def test_pendulum_is_recorded_trained_and_acted_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gymnasium")
    raw, data, out = (tmp_path / name for name in ("raw", "data", "run"))
    script = [sys.executable, str(EXAMPLE / "pendulum.py"), str(raw), "--episodes", "10"]
    said = subprocess.run(script, capture_output=True, text=True, timeout=600, check=True).stdout
    reward = float(said.partition("mean reward ")[2].partition(",")[0])
    assert reward > -400  # the expert swings it up in spite of the noise; without acting, it is about -1200
    ingest(IngestConfig(source=raw, out=data, schema=str(EXAMPLE / "pendulum.toml")))
    given = {"max_steps": 3, "batch_size": 8, "num_workers": 0, "wandb": "disabled", "policy": "tiny_policy:TinyPolicy"}
    train(TrainConfig.of(data=data, out=out, **given))
    monkeypatch.syspath_prepend(str(EXAMPLE))
    result = evaluate_in_environment(out, "pendulum:make_env", episodes=2, films=0, execute=1)
    assert [episode.num_steps for episode in result.episodes] == [200, 200]
    assert not any(episode.is_success for episode in result.episodes)
    assert all(-2000 < episode.total_reward < -500 for episode in result.episodes)
