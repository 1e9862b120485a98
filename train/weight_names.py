"""Which dataset a weight in ``[weights.dataset]`` names, however its path was written and wherever it is now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["by_position", "with_dataset_names"]


def with_dataset_names(weights: Any, data: Sequence[Path], names: Sequence[str]) -> Any:
    """``weights`` in which each dataset of ``data`` is called by its entry of ``names``.

    What is no table, or names no dataset, stays as it is: whoever uses the weights refuses it.
    """
    if not isinstance(weights, Mapping) or not isinstance(weights.get("dataset"), Mapping):
        return weights
    factors = {}
    for name, factor in weights["dataset"].items():
        place = _position(str(name), data)
        factors[name if place is None else names[place]] = factor
    return {**weights, "dataset": factors}


def by_position(weights: Any, data: Sequence[Path]) -> Any:
    """``weights`` in which a dataset is called by its number in ``data``, so that paths do not tell weights apart."""
    return with_dataset_names(weights, data, [str(i) for i in range(len(data))])


def _position(name: str, data: Sequence[Path]) -> int | None:
    """The dataset whose path ``name`` is; else the only one whose path ends with it, as seen from another folder."""
    paths = [path.resolve() for path in data]
    if Path(name).resolve() in paths:
        return paths.index(Path(name).resolve())
    end = Path(name).parts
    ending = [i for i, path in enumerate(paths) if path.parts[-len(end) :] == end] if end else []
    return ending[0] if len(ending) == 1 else None
