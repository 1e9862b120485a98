"""Says what reading the first episodes by a schema tells for or against that schema, as evidence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vlapipe.pipeline.build.record import Record
from vlapipe.pipeline.discover.file_tree import WholeTree
from vlapipe.pipeline.infer.evidence import Evidence
from vlapipe.pipeline.infer.text.text_head import NoTextError, read_text_head
from vlapipe.pipeline.infer.trial import Trial, try_schema
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.schema import CsvStream, Schema

__all__ = ["Reading", "read_by"]

_FEW_IMAGES = 3
_NUMBER = re.compile(r"[-+.\d][\w.+-]*")
_COUNTED_LINES = 200
_FEW_FAULTS = 3


@dataclass(frozen=True)
class Reading:
    """What the reader says of a schema: its errors, the number of episodes read, and evidence about the whole."""

    faults: tuple[Record, ...]
    num_tried: int
    evidence: tuple[Evidence, ...]


def read_by(tree: WholeTree, toml: str, *, num_episodes: int) -> Reading:
    """Read the first episodes by a schema, as an ingest does."""
    schema = parse_schema(toml, "inferred")
    try:
        trial = try_schema(tree.root, schema, num_episodes=num_episodes, tree=tree)
    except UsageError as error:
        return Reading(({"code": "", "column": None, "message": str(error)},), 0, ())
    faults = [reason for reject in trial.rejects for reason in reject["reasons"] if reason["severity"] == "error"]
    faults += _shared_stamps(trial)
    return Reading(tuple(faults), len(trial.tried), tuple(_evidence(tree.root, schema, trial)))


def _evidence(root: Path, schema: Schema, trial: Trial) -> Iterator[Evidence]:
    """Yield evidence of the first episode, so that readings of one and of several episodes can be compared."""
    first = trial.tried[0]
    errors = [
        reason["count"]
        for reject in trial.rejects
        if reject["episode"] == first.id
        for reason in reject["reasons"]
        if reason["severity"] == "error"
    ]
    # A fault in a few cells speaks hardly against a schema: recordings have faults.
    few = 0 < sum(errors) <= _FEW_FAULTS
    yield Evidence("no_errors", 0.8 if few else float(not errors))
    row = next((row for row in trial.rows if row["id"] == first.id), None)
    shares: list[tuple[float, float]] = []
    if (row is not None or few) and first.rows is None:  # the episode is the whole of its files
        for stream in schema.streams:
            if isinstance(stream, CsvStream):
                paths = [root / file.path for file in first.files.get(stream.name, ())]
                shares += _kept(paths, stream, None if row is None else row[f"{stream.name}/rows"])
    if shares:
        yield Evidence("rows_kept", sum(rows for rows, _ in shares) / len(shares))
        yield Evidence("numbers_stored", sum(numbers for _, numbers in shares) / len(shares))
    faulty = sum(finding["code"].startswith("clock.") and finding["episode"] == first.id for finding in trial.findings)
    yield Evidence("clock_sound", 1 / (1 + faulty))


def _kept(paths: list[Path], stream: CsvStream, num_rows: int | None) -> Iterator[tuple[float, float]]:
    """Yield the share of a table's lines that became rows, and the share of the numbers in a line that are stored.

    ``num_rows`` is ``None`` if a few faults set the episode aside: then its lines count as rows.
    """
    try:
        heads = [read_text_head(path) for path in paths]
    except NoTextError:
        return
    every = [line for head in heads for line in head.lines if line.strip()]
    lines = [line for line in every if (stream.dialect.row_kind or "") in line]
    if not lines or num_rows == 0:
        return
    num_lines = len(lines) + sum(head.num_lines_below() for head in heads) * len(lines) / len(every)
    sample = lines[-_COUNTED_LINES:]
    per_line = sum(len(_NUMBER.findall(line)) for line in sample) / len(sample)
    stored = sum(len(field.columns) for field in stream.fields) + 1
    kept = 1.0 if num_rows is None else min(1.0, num_rows / num_lines)
    yield kept, min(1.0, stored / max(1.0, per_line))


def _shared_stamps(trial: Trial) -> list[Record]:
    """Find image streams in which most images share a stamp: the stamp was taken from the wrong part of their names."""
    images = {
        (row["id"], source["path"]): source["num_files"]
        for row in trial.rows
        for source in row["sources"]
        if source["num_files"] >= _FEW_IMAGES
    }
    shared = []
    for finding in trial.findings:
        num_images = images.get((finding["episode"], finding["file"]))
        if finding["code"] == "clock.duplicate" and num_images and 2 * finding["count"] >= num_images - 1:
            what = f"{finding['file']}: {finding['count'] + 1} of {num_images} images share one stamp with another"
            shared.append({**finding, "message": f"{what} (correct where its time is found, or its files)"})
    return shared
