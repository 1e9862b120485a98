"""Looks for differences between datasets that no schema declares: exchanged colours, and numbers of another size.

Nothing is done about them but a warning, because they may be right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.train.data.joining.dataset_meaning import Row
from vlapipe.train.data.joining.field_conversions import field_pairs

__all__ = ["COLOURS", "compare_colours", "compare_magnitudes"]

COLOURS = ("red", "green", "blue")
_SWAPPED = 3  # colours are swapped if exchanging red and blue brings them so many times nearer
_LEAST_APART = 12.0  # levels of 255 between red and blue; greyer images say nothing
_FAR = 20.0  # times as large numbers: degrees are 57 times as large as radians, millimetres 1000 times


def compare_colours(datasets: Sequence[Dataset], names: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Compare the cameras' mean colours, and warn where red and blue look exchanged."""
    rows, warnings = [], []
    for camera in datasets[0].cameras:
        colours = [_mean_colour(dataset, camera) for dataset in datasets]
        swapped = [name for name, colour in zip(names, colours, strict=True) if _look_swapped(colours[0], colour)]
        texts = tuple(" ".join(f"{level:.0f}" for level in each) if each else "unknown" for each in colours)
        if swapped:
            rows.append(Row(what=f"observation.images.{camera}: mean colour", found=texts, done="look swapped"))
            warnings.append(
                f"camera {camera}: red and blue look swapped in {', '.join(swapped)}: mean red, green and blue are "
                f'{texts[names.index(swapped[0])]}, and {texts[0]} in {names[0]} (if so, say channels = "bgr" for '
                "the camera in the schema, and ingest again)"
            )
    return rows, warnings


def compare_magnitudes(
    datasets: Sequence[Dataset], first: int, other: int, names: Sequence[str]
) -> tuple[list[Row], list[str]]:
    """Warn of fields whose numbers are many times larger in one dataset, as those of an undeclared unit are."""
    rows, warnings = [], []
    ours, theirs = datasets[first], datasets[other]
    for path, their_path in dict.fromkeys(field_pairs(ours.schema, theirs.schema)):
        sizes = [_magnitudes(dataset, each) for dataset, each in ((ours, path), (theirs, their_path))]
        if sizes[0].shape != sizes[1].shape or not (varies := (sizes[0] > 0) & (sizes[1] > 0)).any():
            continue
        ratio = float(np.median(sizes[1][varies] / sizes[0][varies]))
        if 1 / _FAR < ratio < _FAR:
            continue
        texts = [f"up to {float(np.median(each[varies])):.3g}" for each in sizes]
        found = tuple(texts[0] if i == first else texts[1] if i == other else "-" for i in range(len(datasets)))
        rows.append(Row(what=f"{path.partition('/')[2]}: numbers", found=found, done="look unlike"))
        warnings.append(
            f"{path.partition('/')[2]}: numbers go {texts[0]} in {names[first]} and {texts[1]} in {names[other]}: are "
            "they in one unit? (declare unit in both schemas, and ingest again: other units are then converted)"
        )
    return rows, warnings


def _magnitudes(dataset: Dataset, path: str) -> NDArray[np.float64]:
    """How far from 0 the numbers of each column go, without the rarest; 0 for a column that does not vary."""
    summary = dataset.stats.get(path)
    if summary is None:
        return np.zeros(0)
    far: NDArray[np.float64] = np.maximum(np.abs(summary.q01), np.abs(summary.q99))
    return np.where(summary.std > 0, far, 0.0)


def _mean_colour(dataset: Dataset, camera: str) -> tuple[float, ...] | None:
    """The mean red, green and blue of a camera, from 0 to 255; ``None`` if ingest did not measure it."""
    columns = [f"{camera}/{colour}" for colour in COLOURS]
    if not set(columns) <= set(dataset.column_names):
        return None
    levels = np.stack([dataset.column(name).astype(np.float64) for name in columns])
    levels = levels[:, np.isfinite(levels).all(axis=0)]
    return tuple(levels.mean(axis=1).tolist()) if levels.shape[1] else None


def _look_swapped(ours: tuple[float, ...] | None, theirs: tuple[float, ...] | None) -> bool:
    if ours is None or theirs is None or min(abs(c[0] - c[2]) for c in (ours, theirs)) < _LEAST_APART:
        return False
    as_is, exchanged = np.abs(np.subtract(ours, theirs)).sum(), np.abs(np.subtract(ours, theirs[::-1])).sum()
    return bool(as_is > _SWAPPED * exchanged)
