"""Runs all checks on every stream of an episode that could be read."""

from __future__ import annotations

from vlapipe.pipeline.check.as_trained import check_as_trained
from vlapipe.pipeline.check.clocks import check_clock
from vlapipe.pipeline.check.edges import check_drift, check_edges
from vlapipe.pipeline.check.poses import check_poses
from vlapipe.pipeline.check.values import check_values
from vlapipe.pipeline.stream_rows import ImageRows, Rows, StreamRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream, Schema, Stream

__all__ = ["check_streams"]


def check_streams(streams: dict[str, Rows], specs: dict[str, Stream], schema: Schema, findings: Findings) -> None:
    """Reports every fault of the streams' clocks, values and poses, and of how the streams fit the anchor.

    Args:
        streams: the streams that could be read; the other streams have their findings already.
        specs: the schema's entry for each stream; cameras have their own names.
        schema: names the anchor and says what counts as a fault.
        findings: collects the faults.
    """
    forwards: dict[str, Rows] = {}
    for name, rows in streams.items():
        stream = specs[name]
        if isinstance(rows, StreamRows):
            assert not isinstance(stream, ImageStream)
            check_poses(rows, stream, findings)
        if not check_clock(rows, stream, schema.checks, findings):
            continue
        forwards[name] = rows
        if isinstance(rows, StreamRows):
            assert not isinstance(stream, ImageStream)
            check_values(rows, stream, findings)
            check_as_trained(name, rows, schema, findings)
    check_drift(forwards, specs, schema.anchor, schema.checks, findings)
    anchor = streams.get(schema.anchor)
    if not isinstance(anchor, StreamRows):
        return
    _check_counts(anchor, streams, specs, findings)
    if schema.anchor in forwards:
        others = {name: rows for name, rows in forwards.items() if name != schema.anchor}
        check_edges(anchor, others, schema.checks, findings)


def _check_counts(anchor: StreamRows, streams: dict[str, Rows], specs: dict[str, Stream], findings: Findings) -> None:
    """Reports cameras with ``one_per_row`` whose number of images differs from the anchor's number of rows.

    Damaged images that were dropped count as images: they leave no other image in the wrong place.
    """
    for name, rows in streams.items():
        stream = specs[name]
        if not (isinstance(stream, ImageStream) and isinstance(rows, ImageRows) and stream.one_per_row):
            continue
        # The dropped images of a file of several episodes are not known part by part.
        if not 0 <= anchor.num_rows - rows.num_rows <= rows.num_dropped:
            expected = f"{anchor.num_rows} images, one a row of {anchor.source.path}"
            findings.add("image.count", rows.source.path, expected=expected, found=_counted(rows, anchor))


def _counted(rows: ImageRows, anchor: StreamRows) -> str:
    """Returns the number of images. A camera that is triggered between rows has one fewer than there are rows."""
    if rows.num_rows + rows.num_dropped != anchor.num_rows - 1:
        return f"{rows.num_rows}"
    last = anchor.num_rows - 2
    return f"{rows.num_rows}; numbered images belong to rows 0 to {last} if one_per_row is left out"
