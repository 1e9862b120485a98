"""Stands in for an optional stream that an episode lacks: arrays of no rows, with the dtypes and shapes of others."""

from __future__ import annotations

import numpy as np

from vlapipe.pipeline.read.images.image_options import ImageOptions
from vlapipe.pipeline.stream_rows import ImageRows, Rows, SourceFile, StreamRows
from vlapipe.schemas.schema import ImageStream, Stream

__all__ = ["absent_rows"]


def absent_rows(name: str, stream: Stream, images: ImageOptions) -> Rows:
    """Returns the rows of a stream without rows. Its source has no path.

    Args:
        name: the stream's name, or the camera's.
        stream: the schema's entry for it.
        images: how images are to be stored; pixels have a size even if there is none of them.
    """
    source = SourceFile(path="", num_files=0, num_bytes=0, sha256="")
    timestamp = np.empty(0, dtype=stream.time.dtype)
    if isinstance(stream, ImageStream):
        if images.made_from("raw" if stream.in_container else "jpeg") == "raw":
            width, height = images.size or dict(images.camera_sizes).get(name, (0, 0))
            is_depth = stream.unit is not None
            pixels = np.empty((0, height, width, 1 if is_depth else 3), dtype=np.uint16 if is_depth else np.uint8)
            return ImageRows(timestamp=timestamp, data=pixels, offset=None, height=0, width=0, source=source)
        data, offset = np.empty(0, dtype=np.uint8), np.zeros(1, dtype=np.int64)
        return ImageRows(timestamp=timestamp, data=data, offset=offset, height=0, width=0, source=source)
    specs = [each for field in stream.fields for each in (field, field.mask) if each is not None]
    fields = {spec.name: np.empty((0, *spec.shape), dtype=spec.dtype) for spec in specs}
    return StreamRows(timestamp=timestamp, fields=fields, source=source)
