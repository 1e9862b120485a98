"""Collects what an episode tells for the checks that need all episodes at once. Evidence is plain data, as JSON has it.

A worker makes the evidence while the episode is in memory. ``check_across_episodes`` then judges the dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlapipe.pipeline.check.camera_looks import CameraLook
from vlapipe.pipeline.check.flicker import still_columns_of
from vlapipe.pipeline.check.same_content import sketch_of
from vlapipe.pipeline.check.spikes import columns_with_statistics, outliers_of
from vlapipe.pipeline.stream_rows import Rows, StreamRows
from vlapipe.schemas.schema import Schema

__all__ = ["evidence_of"]


def evidence_of(
    streams: Mapping[str, Rows], looks: Mapping[str, CameraLook], schema: Schema, statistics: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the evidence of one episode.

    Args:
        streams: the episode's streams.
        looks: what its cameras' images look like.
        schema: names the fields.
        statistics: the episode's statistics by path of a field, as in the episodes table.
    """
    tables = {name: rows for name, rows in streams.items() if isinstance(rows, StreamRows) and rows.num_rows}
    outliers = {
        path: outliers_of(tables[path.partition("/")[0]], field, statistics[path])
        for path, field in columns_with_statistics(schema, statistics)
        if not field.words
    }
    return {
        "outliers": {path: found for path, found in outliers.items() if found},
        "still": still_columns_of(tables, schema, statistics),
        "content": sketch_of(streams, schema),
        "grids": {camera: look.grid.round(1).tolist() for camera, look in looks.items()},
    }
