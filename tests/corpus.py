"""Judges what ``schema infer`` makes of a corpus of small recordings.

``tests/pipeline/infer/corpus/fit/<dialect>/`` and ``.../kept/<dialect>/`` each hold one recording and a ``facts.toml``.
The facts are what a schema by an expert states. Weights may be fitted to the cases under ``fit``, never to those under
``kept``. A new dialect is a new folder. Keys of ``facts.toml``, all optional but the first two:

- ``about``: what recorded it. ``answer``: ``right`` (no question needed), ``asked`` (a question is due), or ``either``.
- ``made``: a function of ``corpus_made``, which writes binary files; ``[[images]]``: JPEG files to be written.
- ``asks``: if there is a question, fault or refusal, one of these texts stands in it.
- ``built_in``: the refusal that names this built-in schema is right.
- ``delimiter``, ``decimal``, ``num_rows`` (of the anchor), ``episodes``, ``kept`` and ``not_kept`` (columns),
  ``num_columns`` (kept, the clock's not counted), ``rows_of`` (column: rows of its stream), ``units`` (column: unit).
- ``clock``: the columns that hold the time, ``[]`` for none; ``rate_hz``, within 2 %; ``start_s``, within a second.
- ``action_kind`` (any of a list), ``action`` (exactly these columns), ``action_has``, ``action_not``, ``state_has``,
  ``state_not``.
- ``cameras`` (name: images), ``camera_rows`` (images of each, whatever their names), ``paired`` (each image belongs to
  the row of its number).
- ``together`` (columns of one field each), ``periods`` (column: period of an angle, or 0).
- ``quaternions`` (first column: order in the file), ``values`` (column: first and last value), ``missing`` (column:
  cells without a value). ``#2`` is the second column.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe import Dataset, open_dataset
from vlapipe.pipeline.infer.infer import Inferred, infer_schema
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.schema import WHITESPACE, CsvStream, FieldSpec, ImageStream, Schema

__all__ = ["CORPUS", "Case", "Confusion", "Verdict", "asked_about", "cases", "judge", "judge_folder", "make_recording"]

CORPUS = Path(__file__).parent / "pipeline" / "infer" / "corpus"
_FACTS = "facts.toml"
_WRITTEN = {"about", "answer", "made", "images", "asks", "built_in"}


@dataclass(frozen=True)
class Case:
    """One recording of the corpus, and what is true of it."""

    half: str
    name: str
    facts: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Returns the folder of the recording's text files."""
        return CORPUS / self.half / self.name


@dataclass(frozen=True)
class Confusion:
    """A fact that an inferred schema states wrongly."""

    fact: str
    expected: object
    found: object


@dataclass(frozen=True)
class Verdict:
    """``right``, ``asked`` or ``wrong``; the facts that are wrong; what was asked; and the schema."""

    answer: str
    confusions: tuple[Confusion, ...] = ()
    asked: tuple[str, ...] = ()
    toml: str = ""


def cases(half: str = "*") -> list[Case]:
    """Returns the cases of ``fit``, of ``kept``, or of both."""
    return [
        Case(path.parent.parent.name, path.parent.name, tomllib.loads(path.read_text(encoding="utf-8")))
        for path in sorted(CORPUS.glob(f"{half}/*/{_FACTS}"))
    ]


def make_recording(case: Case, root: Path) -> Path:
    """Copy the text files of a case to ``root``, and write its binary ones there."""
    shutil.copytree(case.folder, root, ignore=shutil.ignore_patterns(_FACTS))
    if "made" in case.facts:
        getattr(importlib.import_module("corpus_made"), case.facts["made"])(root)
    for images in case.facts.get("images", []):
        importlib.import_module("corpus_made").images(root, **images)
    return root


def asked_about(inferred: Inferred) -> tuple[str, ...]:
    """Returns the faults and questions for which ``schema infer`` exits with 1."""
    return (*inferred.faults, *inferred.questions)


def judge(case: Case) -> Verdict:
    """Infer a schema for a case, ingest by it, and compare what is stored with the facts."""
    with tempfile.TemporaryDirectory() as scratch:
        return judge_folder(make_recording(case, Path(scratch) / "recordings"), case.facts)


def judge_folder(root: Path, facts: dict[str, Any], *, answered: Sequence[str] = ()) -> Verdict:
    """Infer a schema for a folder, ingest by it, and compare what is stored with the facts.

    A question that holds a text of ``answered`` is answered as ``--accept`` answers it. The verdict then is ``asked``
    with the question, or ``wrong`` if a fact is wrong in what is written all the same.
    """
    try:
        inferred = infer_schema(root)
    except UsageError as error:
        named = facts.get("built_in")
        known = named is not None and f"built-in schema {named!r}" in str(error)
        return Verdict("right") if known else Verdict("asked", asked=(str(error),))
    asked = asked_about(inferred)
    if any(not any(text in line for text in answered) for line in asked):
        return Verdict("asked", asked=asked, toml=inferred.toml)
    wrong = tuple(_wrong_facts(facts, root, inferred.toml))
    return Verdict("wrong" if wrong else "asked" if asked else "right", wrong, asked, inferred.toml)


def _wrong_facts(facts: dict[str, Any], root: Path, toml: str) -> Iterator[Confusion]:
    with tempfile.TemporaryDirectory() as scratch:
        schema_file, out = Path(scratch) / "schema.toml", Path(scratch) / "data"
        schema_file.write_text(toml, encoding="utf-8")
        report = ingest(IngestConfig(source=root, out=out, schema=str(schema_file), workers=1))
        if report.rejects:
            yield Confusion("ingest", "no episode set aside", report.rejects[0]["reasons"][0]["message"])
        if not report.num_episodes:
            return
        found = _Found(parse_schema(toml, "inferred"), open_dataset(out))
        for fact, expected in facts.items():
            if fact in _WRITTEN:
                continue
            seen = getattr(found, f"see_{fact}")(expected)
            if seen != expected:
                yield Confusion(fact, expected, seen)


@dataclass(frozen=True)
class _Stored:
    """Where one column of a file is stored."""

    stream: str
    field: FieldSpec
    place: int

    @property
    def path(self) -> str:
        return f"{self.stream}/{self.field.name}"


class _Found:
    """What a schema states and an ingest by it stored. Each ``see_<fact>`` returns what is expected, if it is true."""

    def __init__(self, schema: Schema, dataset: Dataset) -> None:
        self.schema = schema
        self.dataset = dataset
        self.anchor = schema.anchor_stream
        self.episode = dataset.episode(0)
        self.columns: dict[str, _Stored] = {}
        for stream in schema.streams:
            if isinstance(stream, ImageStream):
                continue
            for spec in stream.fields:
                if len(spec.columns) == spec.num_columns:
                    names = [accepted[0] for accepted in spec.columns]
                else:  # an array, or lists in cells: by one name
                    names = [spec.columns[0][0]]
                for place, name in enumerate(names):
                    self.columns.setdefault(name, _Stored(stream.name, spec, place))

    def _find(self, name: str) -> _Stored | None:
        """Find a column by its name; by its place, as in ``#2``; or by its name with its unit behind it."""
        if name.startswith("#") and isinstance(self.anchor, CsvStream) and self.anchor.dialect.names:
            name = self.anchor.dialect.names[0][int(name[1:]) - 1]
        if name in self.columns:
            return self.columns[name]
        longer = [key for key in self.columns if key.startswith(f"{name} ") or key.endswith(f" {name}")]
        return self.columns[longer[0]] if len(longer) == 1 else None

    def _those(self, names: list[str], paths: tuple[str, ...]) -> list[str]:
        """Returns the columns among ``names`` that belong to one of these fields."""
        found = {name: self._find(name) for name in names}
        return [name for name, stored in found.items() if stored is not None and stored.path in paths]

    def _values(self, stored: _Stored) -> NDArray[Any]:
        values = np.asarray(self.episode[stored.path])
        return values.reshape(len(values), -1)[:, stored.place]

    def _seconds(self) -> NDArray[np.float64]:
        stamps = np.asarray(self.episode[f"{self.schema.anchor}/timestamp"])
        return stamps / 1e9 if stamps.dtype == np.int64 else stamps

    def see_delimiter(self, expected: str) -> str:
        if not isinstance(self.anchor, CsvStream):
            return self.anchor.kind
        found = self.anchor.dialect.delimiter
        blanks = {expected, found} == {" ", WHITESPACE}
        return expected if blanks or found.strip(" ") == expected else found

    def see_decimal(self, _expected: str) -> str:
        return self.anchor.dialect.decimal if isinstance(self.anchor, CsvStream) else self.anchor.kind

    def see_num_rows(self, _expected: int) -> int:
        return len(self._seconds())

    def see_episodes(self, _expected: int) -> int:
        return self.dataset.episodes.num_rows

    def see_kept(self, expected: list[str]) -> list[str]:
        return [name for name in expected if self._find(name) is not None]

    def see_not_kept(self, expected: list[str]) -> list[str]:
        return [name for name in expected if self._find(name) is None]

    def see_num_columns(self, _expected: int) -> int:
        streams = [stream for stream in self.schema.streams if not isinstance(stream, ImageStream)]
        return sum(spec.num_columns for stream in streams for spec in stream.fields if not spec.text)

    def see_rows_of(self, expected: dict[str, int]) -> dict[str, int]:
        found = {name: self._find(name) for name in expected}
        return {name: len(self._values(stored)) for name, stored in found.items() if stored is not None}

    def see_units(self, expected: dict[str, str]) -> dict[str, str]:
        found = {name: self._find(name) for name in expected}
        return {
            name: (stored.field.file_unit or stored.field.unit)[stored.place]
            for name, stored in found.items()
            if stored is not None and (stored.field.file_unit or stored.field.unit)
        }

    def see_clock(self, expected: list[str]) -> list[str]:
        time = self.anchor.time
        named = [*time.sources[:1], *([time.plus] if time.plus else []), *(column for _, column in time.parts)]
        names = self.anchor.dialect.names[:1] if isinstance(self.anchor, CsvStream) else ()
        places = [name if not names or name in expected else f"#{names[0].index(name) + 1}" for name in named]
        named = [
            next((name for name in expected if place in (name, f"{name} ") or place.startswith(f"{name} ")), place)
            for place in places
        ]
        return expected if sorted(named) == sorted(expected) else named

    def see_rate_hz(self, expected: float) -> float:
        seconds = self._seconds()
        found = float((len(seconds) - 1) / (seconds[-1] - seconds[0]))
        return expected if abs(found / expected - 1) < 0.02 else round(found, 3)

    def see_start_s(self, expected: float) -> float:
        found = float(self._seconds()[0])
        return expected if abs(found - expected) <= 1 else found

    def see_action_kind(self, expected: list[str]) -> list[str]:
        return expected if self.schema.action.kind in expected else [self.schema.action.kind]

    def see_action(self, expected: list[str]) -> list[str]:
        paths = self.schema.action.of
        names = [name for name, stored in self.columns.items() if stored.path in paths]
        wanted = {self._find(name) for name in expected}
        return expected if {self.columns[name] for name in names} == wanted else names

    def see_action_has(self, expected: list[str]) -> list[str]:
        return self._those(expected, self.schema.action.of)

    def see_action_not(self, expected: list[str]) -> list[str]:
        within = self._those(expected, self.schema.action.of)
        return [name for name in expected if name not in within]

    def see_state_has(self, expected: list[str]) -> list[str]:
        return self._those(expected, self.schema.sample.state)

    def see_state_not(self, expected: list[str]) -> list[str]:
        within = self._those(expected, self.schema.sample.state)
        return [name for name in expected if name not in within]

    def see_cameras(self, _expected: dict[str, int]) -> dict[str, int]:
        return {name: len(np.asarray(self.episode[f"{name}/timestamp"])) for name in self.dataset.cameras}

    def see_camera_rows(self, _expected: list[int]) -> list[int]:
        return sorted(self.see_cameras({}).values())

    def see_paired(self, expected: bool) -> bool | list[int]:
        for name in self.see_cameras({}):
            align = np.asarray(self.episode[f"align/{name}"])
            if not np.array_equal(align, np.arange(len(align))):
                return align.tolist()[:20]
        return expected

    def see_quaternions(self, expected: dict[str, str]) -> dict[str, str]:
        found = {name: self._find(name) for name in expected}
        return {name: str(stored.field.quaternion) for name, stored in found.items() if stored is not None}

    def see_together(self, expected: list[list[str]]) -> list[list[str]]:
        found = [{stored.path if (stored := self._find(name)) else name for name in names} for names in expected]
        return [names if len(paths) == 1 else sorted(paths) for names, paths in zip(expected, found, strict=True)]

    def see_periods(self, expected: dict[str, float]) -> dict[str, float]:
        found = {name: self._find(name) for name in expected}
        return {name: (s.field.period or (0.0,) * 99)[s.place] for name, s in found.items() if s is not None}

    def see_values(self, expected: dict[str, list[float]]) -> dict[str, list[float]]:
        seen = {}
        for name, ends in expected.items():
            stored = self._find(name)
            if stored is None:
                continue
            values = (
                self._values(stored).astype(np.float64)[[0, -1]] / (stored.field.scale or (1.0,) * 99)[stored.place]
            )
            seen[name] = ends if np.allclose(values, ends, rtol=1e-5, atol=1e-6) else values.tolist()
        return seen

    def see_missing(self, expected: dict[str, int]) -> dict[str, int]:
        seen = {}
        for name in expected:
            stored = self._find(name)
            if stored is not None and stored.field.on_missing == "mask":
                mask = np.asarray(self.episode[f"{stored.path}_is_missing"])
                seen[name] = int(mask.reshape(len(mask), -1)[:, stored.place].sum())
        return seen
