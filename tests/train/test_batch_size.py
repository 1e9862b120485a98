"""The search for the largest batch: what fits, how a step is divided, what is remembered, where it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_loop import config

from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.schemas.errors import UsageError
from vlapipe.train.batch_size import blank_batch, largest_that_fits, remembered, split_of_step
from vlapipe.train.build import _trial_step
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.loader import Loader
from vlapipe.train.loop import train
from vlapipe.train.parallel.ranks import Ranks


@given(limit=st.integers(0, 5000))
def test_search_finds_the_limit_in_few_steps(limit: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= limit

    assert largest_that_fits(fits) == min(limit, 4096)
    assert len(tried) <= 26
    assert max(tried) <= max(2 * limit, 1)  # never far beyond what fits


@given(samples=st.integers(1, 500), most=st.integers(1, 500))
def test_step_keeps_its_samples_with_the_largest_batch(samples: int, most: int) -> None:
    batch_size, grad_accum = split_of_step(samples, most)
    assert batch_size * grad_accum == samples
    assert batch_size <= most
    assert not any(samples % size == 0 for size in range(batch_size + 1, min(samples, most) + 1))


def test_result_is_remembered_for_the_same_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert remembered({"gpu": "A"}, lambda: 7) == 7
    assert remembered({"gpu": "A"}, lambda: 8) == 7
    assert remembered({"gpu": "B"}, lambda: 8) == 8
    (tmp_path / "vlapipe" / "batch_sizes.json").write_text("{torn")
    assert remembered({"gpu": "A"}, lambda: 9) == 9


def test_blank_batch_has_what_a_loader_gives(tiny_dataset: Path) -> None:
    loader = Loader(open_dataset(tiny_dataset), batch_size=3)
    real, blank = next(iter(loader)), blank_batch(loader.spec, 3, torch.device("cpu"))
    assert set(blank) == set(real)
    for key, value in real.items():
        if isinstance(value, torch.Tensor):
            assert (blank[key].shape, blank[key].dtype, blank[key].stride()) == (
                value.shape,
                value.dtype,
                value.stride(),
            )


def test_trial_makes_steps_and_leaves_nothing(tiny_dataset: Path, tmp_path: Path) -> None:
    ranks = Ranks(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))
    options = config(tiny_dataset, tmp_path / "run", batch_size=2, ema=0.9)
    loader = Loader(open_dataset(tiny_dataset), batch_size=2)
    _trial_step(options, ranks, Progress("train", 1, "step", silent=True), loader, "fp32")
    assert not (tmp_path / "run").exists()


def test_search_is_refused_on_a_cpu_in_one_line(tiny_dataset: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("has a GPU")
    with pytest.raises(UsageError, match=r"--batch-size auto: needs a GPU; .* \(give a number\)"):
        train(config(tiny_dataset, tmp_path / "run", batch_size="auto"))
    assert not (tmp_path / "run").exists()
    assert TrainConfig.of(data="a", out="b", batch_size="auto").data.batch_size == 0
    with pytest.raises(UsageError, match="batch_size: expected a whole number from 1, found 'all'"):
        TrainConfig.of(data="a", out="b", batch_size="all")


@pytest.mark.gpu
def test_largest_batch_of_a_gpu_is_found_and_trained_with(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert train(config(tiny_dataset, tmp_path / "run", batch_size="auto", max_steps=2)).step == 2
    assert "samples fit; 32 x 1 passes make the 32 of a step" in capsys.readouterr().err
