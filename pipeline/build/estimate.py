"""Says what a real run would make and take, from what a dry run has read and from one episode a shard encoded."""

from __future__ import annotations

from dataclasses import dataclass

from vlapipe.pipeline.build.record import Record

__all__ = ["Estimate", "estimate_run"]

# Besides encoding, a real run writes the bytes, waits for the disk, and reads them back to compare.
_WRITING_OVER_ENCODING = 1.3


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """About what a real run would take: bytes at rest, and seconds on this machine."""

    stored_bytes: int
    seconds: float


def estimate_run(records: list[Record], anchor: str, *, read_seconds: float, num_parallel: int) -> Estimate:
    """Scale each shard's sample to the shard, stream by stream.

    Args:
        records: of a dry run, a shard each.
        anchor: the stream whose rows are the measure of all that is derived, and of the time.
        read_seconds: what it took to read and check everything.
        num_parallel: threads or processes that encode at once.
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
