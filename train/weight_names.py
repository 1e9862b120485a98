"""Finds the dataset that a key of ``[weights.dataset]`` names, even if the key is relative or the dataset has moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["by_position", "with_dataset_names"]


def with_dataset_names(weights: Any, data: Sequence[Path], names: Sequence[str]) -> Any:
    """Returns ``weights`` in which the key of each dataset of ``data`` is replaced by the dataset's entry of ``names``.

    Weights that are not a table, and keys that name no dataset, stay unchanged. The loader refuses them later.
    """
    if not isinstance(weights, Mapping) or not isinstance(weights.get("dataset"), Mapping):
        return weights
    factors = {}
    for name, factor in weights["dataset"].items():
        place = _position(str(name), data)
        factors[name if place is None else names[place]] = factor
    return {**weights, "dataset": factors}


def by_position(weights: Any, data: Sequence[Path]) -> Any:
    """Returns ``weights`` with each dataset's index in ``data`` as its key, so that different paths compare equal."""
    return with_dataset_names(weights, data, [str(i) for i in range(len(data))])


def _position(name: str, data: Sequence[Path]) -> int | None:
    """Returns the index of the dataset with path ``name``; else of the only dataset whose path ends with ``name``."""
    paths = [path.resolve() for path in data]
    if Path(name).resolve() in paths:
        return paths.index(Path(name).resolve())
    end = Path(name).parts
    ending = [i for i, path in enumerate(paths) if path.parts[-len(end) :] == end] if end else []
    return ending[0] if len(ending) == 1 else None
