"""Makes a shard's commit record: one row of the episodes table for each episode, and statistics for merging."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.build.statistics import FieldStatistics, Moments
from vlapipe.pipeline.check.clocks import steps_s
from vlapipe.pipeline.check.episode_rows import EVIDENCE
from vlapipe.pipeline.check.evidence import evidence_of
from vlapipe.pipeline.read.episode import Episode
from vlapipe.pipeline.shards.derive.actions import ACTION_VALUE
from vlapipe.pipeline.shards.derive.derived_fields import derive_fields
from vlapipe.pipeline.shards.derive.gaps import frames_between, gap_rows, rows_ahead, spans_across_gaps, window_rows
from vlapipe.pipeline.shards.derive.stamps import seconds, seconds_between
from vlapipe.pipeline.shards.manifest.gaps_table import gaps_table, spans_of
from vlapipe.pipeline.shards.ordered_map import in_order
from vlapipe.pipeline.stream_rows import ImageRows
from vlapipe.schemas.schema import Schema

__all__ = ["GAPS", "INSTRUCTIONS", "METADATA", "STORED", "Record", "ShardRecord", "finished_records", "record_file"]

Record = dict[str, Any]
GAPS = "gaps_beside_anchor"  # key in an episode's row; the gaps are stored in a table of their own
STORED = "stored_images"  # key in an episode's row: what each camera's images were stored as
METADATA = "metadata"  # key in an episode's row; the table has a column for each key of any episode
INSTRUCTIONS = "instructions"  # a column only if an episode has several


class ShardRecord:
    """Collects the description of a shard's good episodes, one after another.

    ``rows`` holds rows of the episodes table, without the columns that only the whole dataset can fill. Each row also
    carries its episode's gaps, and the evidence for the checks across episodes.
    """

    def __init__(self, schema: Schema) -> None:
        self.rows: list[Record] = []
        self._schema = schema
        self._next_row: dict[str, int] = {}
        self._train: dict[str, tuple[list[Moments], list[NDArray[Any]]]] = {}

    def add(self, episode: Episode, split: str) -> None:
        """Describe the next episode. Call this in the order in which the shard stores the episodes."""
        numbers = _numbers_of(episode, self._schema)
        moments = {path: Moments.of(values) for path, values in numbers.items()}
        # A stream that the episode lacks has no statistics there.
        kept = {path: each.to_dict() for path, each in moments.items() if len(numbers[path])}
        evidence = evidence_of(episode.streams, episode.looks, self._schema, kept)
        evidence["group"] = episode.raw.group  # of a container, whose episodes share the file's digest
        row = _describe(episode, split, self._schema, self._next_row)
        self.rows.append({**row, EVIDENCE: evidence, "statistics": kept})
        if split == "train":
            for path, values in numbers.items():
                of_path = self._train.setdefault(path, ([], []))
                of_path[0].append(moments[path])
                of_path[1].append(values)

    def statistics(self, num_threads: int) -> Record:
        """Return the statistics by ``<stream>/<field>``, each in the form that ``FieldStatistics.from_dict`` takes.

        Validation episodes are left out, so that training does not see their values.
        """
        jobs = (partial(FieldStatistics.with_moments, *each) for each in self._train.values())
        statistics = zip(self._train, in_order(jobs, num_threads), strict=True)
        return {path: field.to_dict() for path, field in statistics}


def _numbers_of(episode: Episode, schema: Schema) -> dict[str, NDArray[Any]]:
    fields = episode.fields()
    fields |= derive_fields(schema, fields)
    actions, valid = episode.sample(schema).actions(0, len(episode.action_row)), episode.action_row >= 0
    count = int(np.count_nonzero(valid))
    # Rows without an action are nearly always the last rows; a slice then needs no copy. Otherwise the valid rows are
    # selected on the transposed array, which keeps the column-major layout.
    fields[ACTION_VALUE] = actions[:count] if valid[:count].all() else actions.T[:, valid].T
    return {path: values for path, values in fields.items() if not _is_text(schema, path)}


def _is_text(schema: Schema, path: str) -> bool:
    return path != ACTION_VALUE and schema.field(path).text


def _describe(episode: Episode, split: str, schema: Schema, next_row: dict[str, int]) -> Record:
    """Return one row of the episodes table.

    ``next_row`` maps each stream to the shard row where its next episode begins; this call advances it.
    """
    cameras = (name for name, stream in episode.streams.items() if isinstance(stream, ImageRows))
    num_rows = window_rows(schema.sample, schema.anchor, cameras, episode.rate_hz)
    beside = _gaps_beside(episode, schema.anchor)
    row: Record = {
        "id": episode.raw.id,
        "task": episode.raw.task,
        "instruction": episode.instructions[0],
        "split": split,
        "source_row": episode.raw.rows[0] if episode.raw.rows else 0,  # where the episode begins in the anchor's file
        "frame_start": episode.frame_start,
        "num_frames": episode.num_frames,
        "num_left_out": _count_left_out(episode, schema, num_rows, beside),
        GAPS: beside,
        "seconds": seconds_between(episode.streams[schema.anchor].timestamp, 0, -1),
        METADATA: episode.metadata,
        INSTRUCTIONS: list(episode.instructions),
        STORED: {name: _stored(rows) for name, rows in episode.streams.items() if isinstance(rows, ImageRows)},
        "sources": [vars(stream.source) for stream in episode.streams.values()],
    }
    for name, stream in episode.streams.items():
        start = next_row.get(name, 0)
        next_row[name] = start + stream.num_rows
        row |= {f"{name}/start": start, f"{name}/rows": stream.num_rows, **_describe_clock(name, stream.timestamp)}
        row[f"{name}/gaps"] = episode.gaps[name].tolist()
        if name in episode.align:  # not the anchor; of an absent stream, each row is -1, and the first such row is 0
            row[f"{name}/begin"] = int(np.argmax(episode.align[name] >= 0))
        if isinstance(stream, ImageRows):
            row |= {f"{name}/height": stream.height, f"{name}/width": stream.width}
            colour = episode.looks[name].colour if name in episode.looks else (math.nan,) * 3
            row |= {f"{name}/{of}": level for of, level in zip(("red", "green", "blue"), colour, strict=True)}
    return row


def _stored(rows: ImageRows) -> Record:
    """Return what a camera's images were stored as, how many bytes they take, and what JPEG lost."""
    return {"as": " and ".join(rows.kinds), "images": rows.num_rows, "bytes": rows.data.nbytes, "psnr_db": rows.psnr_db}


def _gaps_beside(episode: Episode, anchor: str) -> list[Record]:
    """Return the gaps of the streams other than the anchor, as rows for the table of gaps.

    A pause that is trimmed is a gap of the anchor's that has no row behind it: no frame lies in a pause, and windows of
    other frames may cross it.
    """
    found: list[Record] = [
        {"stream": anchor, "first": first, "until": until, "rows_behind": []} for first, until in episode.pauses
    ]
    for name in episode.align:
        max_gap_s = episode.max_gaps_s[name]
        if max_gap_s is not None and episode.streams[name].num_rows:
            clocks = episode.streams[anchor].timestamp, episode.streams[name].timestamp
            rows = gap_rows(*clocks, episode.align[name], episode.gaps[name], max_gap_s)
            found += [{"stream": name, **gap} for gap in rows]
    return found


def _count_left_out(episode: Episode, schema: Schema, num_rows: Mapping[str, int], beside: list[Record]) -> int:
    """Count the frames that are not drawn because their window, by the schema's own sizes, would cross a gap."""
    if not beside and not len(episode.gaps[schema.anchor]):
        return 0
    actions, observations = rows_ahead(schema.sample, episode.rate_hz(schema.anchor))
    _, others = spans_of(gaps_table((0, gap) for gap in beside), num_rows)
    others[:, 0] -= observations
    ours = spans_across_gaps(episode.gaps[schema.anchor], num_rows[schema.anchor], max(actions, observations))
    all_spans = np.concatenate([ours, others])
    _, _, lengths = frames_between(
        np.array([episode.frame_start]),
        np.array([episode.num_frames]),
        np.zeros(len(all_spans), dtype=np.int64),
        all_spans,
    )
    return episode.num_frames - int(lengths.sum())


def _describe_clock(name: str, timestamp: NDArray[Any]) -> Record:
    """Return the first and last time of the stream's clock in seconds, its jitter, and its longest step.

    The times of a stream without rows are NaN.
    """
    first, last = seconds(timestamp[[0, -1]]) if len(timestamp) else (math.nan, math.nan)
    steps = steps_s(timestamp)
    return {
        f"{name}/first_s": float(first),
        f"{name}/last_s": float(last),
        f"{name}/jitter_s": float(steps.std()) if len(steps) else 0.0,
        f"{name}/max_gap_s": float(steps.max()) if len(steps) else 0.0,
    }


def record_file(folder: Path, index: int) -> Path:
    """Return the file with the record of a shard, as its builder writes it."""
    return folder / f"shard-{index:05d}.json"


def finished_records(records: Path, shards: Path, planned: Mapping[int, str]) -> Iterator[Record]:
    """Yield the records of what an earlier run has finished: a resumed ingest keeps those shards.

    Args:
        records: the folder of the records, one JSON file for each shard that was finished.
        shards: the folder of the shards. A shard counts only if it has the size that its record says.
        planned: the digest of each shard of this run's plan. A record of another plan does not count.
    """
    for path in sorted(records.glob("shard-*.json")):
        record = json.loads(path.read_bytes())
        shard = shards / record["shard"]["file"]
        whole = shard.is_file() and shard.stat().st_size == record["shard"]["num_bytes"]
        if whole and record["plan"] == planned.get(record["index"]):
            yield record
