"""Turns folders of robot demonstrations into validated shards and a trained policy.

Each public name (``vlapipe.open_dataset``, ``vlapipe.Loader``, ``vlapipe.Window``, ...) is imported on first use, so
that ``import vlapipe`` is fast and ingest needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlapipe.pipeline.export.export import export
    from vlapipe.pipeline.shards.dataset import Dataset, Episode, open_dataset
    from vlapipe.train.checkpoint.saved_policy import load_policy
    from vlapipe.train.data.images.augment import Augmentation
    from vlapipe.train.data.joining.dataset_comparison import compare_datasets
    from vlapipe.train.data.loader import Loader
    from vlapipe.train.data.torch_dataset import torch_dataset
    from vlapipe.train.data.window_size import Window
    from vlapipe.train.policies.base import LossOutput
    from vlapipe.train.policies.registry import build_policy

__version__ = "0.1.0"
__all__ = [
    "Augmentation",
    "Dataset",
    "Episode",
    "Loader",
    "LossOutput",
    "Window",
    "__version__",
    "build_policy",
    "compare_datasets",
    "export",
    "load_policy",
    "open_dataset",
    "torch_dataset",
]

_HOMES = {
    "Dataset": "vlapipe.pipeline.shards.dataset",
    "Episode": "vlapipe.pipeline.shards.dataset",
    "export": "vlapipe.pipeline.export.export",
    "open_dataset": "vlapipe.pipeline.shards.dataset",
    "Loader": "vlapipe.train.data.loader",
    "LossOutput": "vlapipe.train.policies.base",
    "Window": "vlapipe.train.data.window_size",
    "Augmentation": "vlapipe.train.data.images.augment",
    "compare_datasets": "vlapipe.train.data.joining.dataset_comparison",
    "load_policy": "vlapipe.train.checkpoint.saved_policy",
    "torch_dataset": "vlapipe.train.data.torch_dataset",
    "build_policy": "vlapipe.train.policies.registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vlapipe' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
