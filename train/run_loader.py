"""Opens the datasets of a run, and makes the loaders that read them as its options say, in training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlapipe.pipeline.shards.dataset import Dataset, open_dataset
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.window_size import Window

__all__ = ["make_loader", "open_datasets"]


def open_datasets(config: TrainConfig) -> list[Dataset]:
    """Returns the datasets of the run, which share its cache.

    Raises:
        NotADatasetError: a path is no dataset.
    """
    data = config.data
    return [open_dataset(path, cache_dir=data.cache_dir, cache_bytes=data.cache_size) for path in data.paths]


def make_loader(config: TrainConfig, datasets: Sequence[Dataset], **options: Any) -> Loader:
    """Returns a loader of samples as the run reads them. ``options`` are those of ``Loader``, and override the run's.

    The run's transforms are among ``options`` or not: a saved policy applies them by itself.
    """
    read: dict[str, Any] = {
        "window": Window.from_table(config.sample, config.action),
        "where": config.data.where,
        "embodiments": config.data.embodiments,
        "image_size": config.data.image_size,
        "image_resize": config.data.image_resize,
    }
    return Loader(datasets, **{**read, **options})
