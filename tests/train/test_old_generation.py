"""A run that reads an older generation goes on beside gc; if gc was told to remove that one, a line says so."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_policy import CallsOnce

import vlapipe
from vlapipe.pipeline.change import work_folder
from vlapipe.pipeline.change.collect import Collected, collect
from vlapipe.pipeline.change.compact import compact
from vlapipe.pipeline.change.edit import Edit, edit
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.stores.copies import folder_of
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.paths import dataset_path
from vlapipe.train.config import TrainConfig
from vlapipe.train.loop import train

DAY_S = 86_400.0


@pytest.fixture(params=["disk", "store"])
def data(request: pytest.FixtureRequest, tiny_raw: Path, tmp_path: Path) -> Path:
    """A dataset whose four shards belong to generation 1 alone; generation 2 has joined them."""
    place: Path = dataset_path(request.getfixturevalue("s3")) if request.param == "store" else tmp_path / "data"
    ingest(IngestConfig(source=tiny_raw, out=place, shard_bytes=300_000))
    compact(folder_of(place), shard_bytes=100_000_000)
    return place


def train_on_the_first(data: Path, out: Path, meanwhile: Callable[[], object], max_steps: int) -> None:
    """Train on generation 1, and call ``meanwhile`` in the third step, when some shards have not been opened."""
    CallsOnce.call = staticmethod(meanwhile)
    config = TrainConfig.of(
        data=f"{data}@1",
        out=out,
        batch_size=2,
        max_steps=max_steps,
        shuffle_shards=1,
        cache_dir=out.parent / "cache-of-run",
        cache_size=600_000,
        wandb="disabled",
        precision="fp32",
        num_workers=1,
        prefetch_factor=1,
        policy="tiny_policy:CallsOnce",
    )
    train(config)


@pytest.mark.filterwarnings("ignore:.*more than --cache-size allows")
def test_run_on_an_old_generation_goes_on_beside_gc(data: Path, tmp_path: Path) -> None:
    done: list[Collected] = []
    train_on_the_first(
        data,
        tmp_path / "run",
        lambda: done.append(collect(folder_of(data), keep=1, older_than_s=DAY_S)),
        max_steps=90,
    )
    assert [(each.removed, each.files, each.kept, each.num_young) for each in done] == [([], [], [1, 2], 1)]


@pytest.mark.filterwarnings("ignore:.*more than --cache-size allows")
def test_run_whose_generation_is_removed_ends_with_the_reason(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_folder, "DAY_S", 1e-9)  # in a store, what no generation lists is kept for a day
    done: list[Collected] = []
    with pytest.raises(UsageError, match=r"generation 1 was removed by vlapipe gc, and with it \S+\.zip") as caught:
        train_on_the_first(data, tmp_path / "run", lambda: done.append(collect(folder_of(data), keep=1)), max_steps=90)
    assert str(caught.value).startswith(f"{data}: ")
    assert "--older-than" in caught.value.cure
    assert len([name for name in done[0].files if name.startswith("shards/")]) == 4


def test_table_that_gc_removed_is_told_so(tiny_dataset: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(tiny_dataset, tmp_path / "data"))
    edit(data, [vlapipe.open_dataset(data).column("id")[0]], Edit(drop=True))
    old = vlapipe.open_dataset(data, generation=1)
    collect(data, keep=1)
    with pytest.raises(UsageError, match=r"generation 1 was removed by vlapipe gc, and with it .*episodes-"):
        old.column("id")
