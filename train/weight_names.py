"""Finds the dataset that a key of ``[weights.dataset]`` or ``[mix]`` names, even if it is relative or has moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlapipe.train.data.joining.dataset_names import index_of

__all__ = ["by_position", "mix_by_position", "mix_with_dataset_names", "with_dataset_names"]


def with_dataset_names(weights: Any, data: Sequence[Path], names: Sequence[str]) -> Any:
    """Returns ``weights`` in which the key of each dataset of ``data`` is replaced by the dataset's entry of ``names``.

    Weights that are not a table, and keys that name no dataset, stay unchanged. The loader refuses them later.
    """
    if not isinstance(weights, Mapping) or "dataset" not in weights:
        return weights
    return {**weights, "dataset": mix_with_dataset_names(weights["dataset"], data, names)}


def mix_with_dataset_names(mix: Any, data: Sequence[Path], names: Sequence[str]) -> Any:
    """Returns a table by dataset, such as ``mix``, with its keys replaced as ``with_dataset_names`` says."""
    if not isinstance(mix, Mapping):
        return mix
    renamed = {}
    for name, share in mix.items():
        place = index_of(str(name), data)
        renamed[name if place is None else names[place]] = share
    return renamed


def by_position(weights: Any, data: Sequence[Path]) -> Any:
    """Returns ``weights`` with each dataset's index in ``data`` as its key, so that different paths compare equal."""
    return with_dataset_names(weights, data, _numbers(data))


def mix_by_position(mix: Any, data: Sequence[Path]) -> Any:
    """Returns ``mix`` with each dataset's index in ``data`` as its key, so that different paths compare equal."""
    return mix_with_dataset_names(mix, data, _numbers(data))


def _numbers(data: Sequence[Path]) -> list[str]:
    return [str(i) for i in range(len(data))]
