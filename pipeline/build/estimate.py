"""Estimates the size and duration of a real run, from a dry run's records and one encoded episode a shard."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.build.record import Record
from vlapipe.pipeline.shards.format.image_decode import decode_depth, decode_rgb, is_deep
from vlapipe.pipeline.stream_rows import ImageRows

__all__ = ["Estimate", "decode_seconds", "estimate_run"]

_TIMED = 4  # images of a camera that are decoded to measure how long that takes

# Besides encoding, a real run writes the bytes, waits for the disk, and reads them back to compare.
_WRITING_OVER_ENCODING = 1.3


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimate of a real run: bytes at rest, and seconds on this machine."""

    stored_bytes: int
    seconds: float


def estimate_run(records: Iterable[Record], anchor: str, *, read_seconds: float, num_parallel: int) -> Estimate:
    """Scale each shard's sample of each stream up to the whole shard, stream by stream, and sum over the shards.

    Args:
        records: records of a dry run, one a shard.
        anchor: the stream whose number of rows scales the derived arrays and the encoding time.
        read_seconds: how long reading and checking everything took.
        num_parallel: number of threads or processes that encode at once.
    """
    stored_bytes, encoding_s = 0.0, 0.0
    for record in records:
        sample = record["sample"]
        if sample is None:
            continue
        times = {
            name: sum(row[f"{name}/rows"] for row in record["episodes"]) / rows for name, rows in sample["rows"].items()
        }
        stored_bytes += sum(times.get(name, times[anchor]) * size for name, size in sample["stored_bytes"].items())
        encoding_s += times[anchor] * sample["seconds"]
    seconds = read_seconds + encoding_s * _WRITING_OVER_ENCODING / num_parallel
    return Estimate(stored_bytes=round(stored_bytes), seconds=seconds)


def decode_seconds(rows: ImageRows) -> float:
    """Measure how long training takes to decode one image of a camera at full size, on one core; 0 for pixels."""
    if rows.offset is None:
        return 0.0
    used: dict[tuple[int, int], NDArray[Any]] = {}  # training decodes into memory that was used before
    timed = []
    for row in [0, *np.linspace(0, rows.num_rows - 1, _TIMED).astype(int).tolist()]:  # the first one warms up
        image = rows.encoded(row).data
        began = time.perf_counter()
        if is_deep(image):
            decode_depth(image, lambda *at: used.setdefault(at, np.empty(at, dtype=np.uint16)))
        else:
            size = rows.height, rows.width
            decode_rgb(
                image,
                size,
                lambda *at: used.setdefault(at, np.empty((*at, 3), dtype=np.uint8)),
                pass_over=lambda _: None,
            )
        timed.append(time.perf_counter() - began)
    return float(np.median(timed[1:]))
