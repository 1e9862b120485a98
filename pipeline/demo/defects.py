"""Catalogue of the faults that a demo can hold, with the location where each fault was planted.

Each broken episode has exactly one fault, so that a validator must find exactly this location. ``DEFECTS`` set their
episode aside. ``KEPT_DEFECTS`` do not: they are for who looks at the dataset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vlapipe.pipeline.demo.csv_defects import CSV_DEFECTS
from vlapipe.pipeline.demo.fault_location import FaultLocation
from vlapipe.pipeline.demo.image_defects import IMAGE_DEFECTS
from vlapipe.pipeline.demo.kept_defects import KEPT_DEFECTS
from vlapipe.pipeline.demo.sensor_defects import SENSOR_DEFECTS

__all__ = ["DEFECTS", "KEPT_DEFECTS", "PlantedDefect", "plant"]

DEFECTS: dict[str, Callable[[Path], FaultLocation]] = {**CSV_DEFECTS, **SENSOR_DEFECTS, **IMAGE_DEFECTS}


@dataclass(frozen=True, kw_only=True)
class PlantedDefect:
    """A fault of the demo.

    ``episode`` and ``file`` are relative to the dataset, with ``/``. ``file`` is the broken or missing file. ``line``
    is the first faulty line, where the CSV's header is line 1. ``column`` names a CSV column or an array. ``is_kept``
    says that ingest keeps the episode.
    """

    name: str
    episode: str
    file: str
    line: int | None
    column: str | None
    description: str
    is_kept: bool


def plant(name: str, folder: Path, episode: str) -> PlantedDefect:
    """Break the episode in ``folder``, which will be called ``episode`` in the dataset."""
    place = {**DEFECTS, **KEPT_DEFECTS}[name](folder)
    return PlantedDefect(
        name=name,
        episode=episode,
        file=f"{episode}/{place.file}",
        line=place.line,
        column=place.column,
        description=place.description,
        is_kept=name in KEPT_DEFECTS,
    )
