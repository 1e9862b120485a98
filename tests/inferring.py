"""Infers a schema and ingests with it. Also makes the rows of numbers that tests print in different logging styles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vlapipe.pipeline.infer.infer import Inferred, infer_schema
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest

ROWS = 40
WAVE = np.cumsum(np.random.default_rng(7).normal(0, 0.01, (ROWS, 16)), axis=0)


def infer_and_ingest(root: Path, out: Path) -> tuple[Inferred, IngestReport]:
    """What ``schema infer`` writes, and what comes of an ingest by it."""
    inferred = infer_schema(root)
    assert inferred.faults == ()
    schema = out.with_suffix(".toml")
    schema.write_text(inferred.toml, encoding="utf-8")
    report = ingest(IngestConfig(source=root, out=out, schema=str(schema), workers=1))
    assert report.rejects == []
    return inferred, report


def asked(inferred: Inferred, what: str) -> set[str]:
    """The streams of which a question asks something, such as "a second" for their rate."""
    return {question.partition(":")[0] for question in inferred.questions if what in question}


def text_of(rows: Sequence[Sequence[object]], delimiter: str = ",", decimal: str = ".") -> str:
    def cell(value: object) -> str:
        text = f"{value:.6f}" if isinstance(value, float) else str(value)
        return text.replace(".", decimal) if isinstance(value, float) else text

    return "\n".join(delimiter.join(map(cell, row)) for row in rows) + "\n"
