"""Guesses a schema for a folder of recordings.

The likeliest whole schema is made first, then up to seven others that differ in one choice. The first episodes are read
by each of them, by the code that ingest runs. What the reader says is added to the evidence, and the best schema is
taken. If another one is nearly as good, the difference is a question to the user.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from vlapipe.pipeline.build.record import Record
from vlapipe.pipeline.discover.file_tree import WholeTree, match_end, walk
from vlapipe.pipeline.infer.assemble import guess_schema
from vlapipe.pipeline.infer.choices import Choice, Choices, Question, asked_once
from vlapipe.pipeline.infer.columns.clock import ASSUMED_HZ
from vlapipe.pipeline.infer.evidence import log_odds
from vlapipe.pipeline.infer.files.bags import bags_in
from vlapipe.pipeline.infer.files.heads import TABLES
from vlapipe.pipeline.infer.files.known_datasets import built_in_that_fits, recognize
from vlapipe.pipeline.infer.files.layout import files_of_one_row, likeliest_table
from vlapipe.pipeline.infer.guess import SchemaGuess
from vlapipe.pipeline.infer.lexicon import use_lexicon
from vlapipe.pipeline.infer.reading import Reading, read_by
from vlapipe.pipeline.infer.text.no_table import why_no_table
from vlapipe.pipeline.infer.write import schema_text
from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.schemas.errors import UsageError

__all__ = ["Inferred", "infer_schema"]

_TRIED_EPISODES = 3
_MOST_READ = 8  # whole schemas
_WORTH_READING = 6.0  # log-odds; an answer that the evidence puts further behind is not read
_MARGIN = 2.0  # log-odds between the best two schemas below which the difference is asked
_FEW_OBJECTS = 10
_NAMED = "the built-in schema {0!r} knows these arrays, with their meaning: try --schema {0} first"
_WRITE_BY_HAND = "for another write files = [...] by hand, starting from `vlapipe schema show`"
_GAPS = "some cells further down have no value: mask keeps the row and marks the cell"
_OF_A_BAG = (
    'no topic of numbers could be read: write [streams.robot] kind = "bag", files = [...], topic = "/TOPIC", '
    'time = { array = "received" }, fields.v = { array = "MEMBER", shape = [6] }'
)


@dataclass(frozen=True, kw_only=True)
class Inferred:
    """A guessed schema as text, the reasons for each guess, and what stands against taking it as it is.

    ``questions`` are what only a person can say, and ``faults`` the errors in the first episodes read by the schema.
    """

    toml: str
    reasons: tuple[str, ...]
    questions: tuple[str, ...]
    faults: tuple[str, ...]
    num_tried: int


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A whole schema, the choices that lead to it, and what reading by it told. ``score`` is in log-odds."""

    guess: SchemaGuess
    choices: Choices
    reading: Reading
    score: float


def infer_schema(root: Path, *, lexicon: Path | None = None) -> Inferred:
    """Guess a schema for the recordings below ``root``. ``lexicon`` is a user's own file of names and units.

    Raises:
        UsageError: the folder does not exist, or holds nothing that a schema could describe.
    """
    if not root.is_dir():
        problem = "not a folder" if root.exists() else "no such folder"
        raise UsageError(f"{root}: {problem}", "give the folder that holds the recordings")
    with use_lexicon(lexicon):
        tree = walk(root.resolve())
        _refuse_known(root, tree)
        return _inferred(root, tree)


def _inferred(root: Path, tree: WholeTree) -> Inferred:
    first = _candidate(tree, Choices())
    if first is None:
        raise _no_table(root, tree)
    others = []
    tried = _worth_reading(first.choices)
    with Progress("reading", 1 + len(tried), "schema") as progress:
        progress.advance()  # the likeliest one
        for choice, number in tried:
            other = _candidate(tree, Choices({choice.about: number}, apart=first.choices.apart), against=first)
            others += [(choice, number, other)] if other is not None else []
            progress.advance()
    best = max([first, *(other for _, _, other in others)], key=lambda each: each.score)
    if best is not first:  # of others only the first episode has been read
        best = replace(best, reading=read_by(tree, schema_text(best.guess), num_episodes=_TRIED_EPISODES))
    questions = [*_left_to_say(best.guess), *best.choices.questions, *_close(first, best, others)]
    guess, reading = best.guess, best.reading
    known = built_in_that_fits(guess.streams, guess.episodes)
    return Inferred(
        toml=schema_text(guess),
        reasons=(*([_NAMED.format(known)] if known else []), *guess.reasons, *_misnamed(tree)),
        questions=tuple(map(str, asked_once(questions))),
        faults=tuple(map(_said_of, reading.faults)),
        num_tried=reading.num_tried,
    )


def _worth_reading(choices: Choices) -> list[tuple[Choice, int]]:
    """List the answers that were not taken and are not far behind, the nearest first."""
    found = [(choice, number) for choice in choices.made for number in range(1, len(choice.options))]
    found = [each for each in found if each[0].lost_by(each[1]) < _WORTH_READING]
    return sorted(found, key=lambda each: each[0].lost_by(each[1]))[: _MOST_READ - 1]


def _candidate(tree: WholeTree, choices: Choices, against: _Candidate | None = None) -> _Candidate | None:
    """Make a whole schema by the choices, and read by it. Returns ``None`` if no file can be described."""
    guess = guess_schema(tree, choices)
    if guess is None or (against is not None and schema_text(guess) == schema_text(against.guess)):
        return None
    num_episodes = _TRIED_EPISODES if against is None else 1
    reading = read_by(tree, schema_text(guess), num_episodes=num_episodes)
    apart = _recorded_apart(guess, reading)
    if apart and not choices.apart:
        return _candidate(tree, Choices(choices.take, apart=apart), against)
    changed = _with_missing(guess, list(reading.faults))
    if changed is not None:
        again = read_by(tree, schema_text(changed), num_episodes=num_episodes)
        if len(again.faults) < len(reading.faults):
            guess, reading = changed, again
    lost = sum(choice.lost_by(choice.taken) for choice in choices.made)
    return _Candidate(guess=guess, choices=choices, reading=reading, score=log_odds("reading", reading.evidence) - lost)


def _left_to_say(guess: SchemaGuess) -> Iterator[Question]:
    """Yield a question for each rate that nothing states, and for each unit of depth that is only assumed."""
    for stream in guess.streams:
        if stream.assumed:
            rate = f"{stream.rate_hz or ASSUMED_HZ:.4g}"
            about = f"{stream.name}: how many rows a second, which nothing states"
            yield Question(about, rate, f"rate_hz = {rate}", "another rate", "rate_hz = ...")
        if stream.unit and not (stream.file_unit or stream.topic):  # ROS has depth in mm (REP 118)
            about = f"{stream.name}: what a depth of 1 is, which nothing states"
            yield Question(about, f"1 {stream.unit}", f'unit = "{stream.unit}"', "1 m", 'unit = "m"')


def _close(first: _Candidate, best: _Candidate, others: list[tuple[Choice, int, _Candidate]]) -> Iterator[Question]:
    """Yield a question for each schema that is nearly as good as the best, and differs in one choice from it."""
    for choice, number, other in others:
        is_best = other.choices is best.choices
        rival = first if is_best else other
        if not (is_best or best is first) or best.score - rival.score >= _MARGIN:
            continue
        ours, theirs = (number, 0) if is_best else (0, number)
        taken, against = choice.options[ours], choice.options[theirs]
        yield Question(choice.about, taken.says, taken.line, against.says, against.line)


def _refuse_known(root: Path, tree: WholeTree) -> None:
    """Refuse a dataset that a built-in schema reads: there is nothing to guess."""
    known = recognize(tree)
    if known is not None:
        place = f"{root}/{known.folder}" if known.folder else f"{root}"
        cure = f"nothing is to be guessed: vlapipe ingest --dataset {place} --schema {known.schema} --out OUT"
        raise UsageError(f"{root}: {known.what}, which the built-in schema {known.schema!r} reads", cure)


def _misnamed(tree: WholeTree) -> list[str]:
    if not tree.misnamed:
        return []
    return [f"left out: {len(tree.misnamed)} names that are no UTF-8 text or too long, such as {tree.misnamed[0]}"]


def _no_table(root: Path, tree: WholeTree) -> UsageError:
    """Return an error that says why no file below ``root`` can be described by a schema."""
    single = files_of_one_row(tree)
    if single:
        problem = f"{root}: each of {len(single)} tables, such as {single[0]}, holds one row, or one matrix"
        return UsageError(problem, f"say one_row_a_file = true in a csv stream; {_WRITE_BY_HAND}")
    objects = [path for path in tree.files if path.lower().endswith(".json")]
    if len(objects) >= _FEW_OBJECTS:
        problem = f"{root}: no table of numbers in it, but {len(objects)} JSON files, such as {objects[0]}"
        cure = f"if each holds a row, say one_row_a_file = true in a csv stream; {_WRITE_BY_HAND}"
        return UsageError(problem, cure)
    if bags := bags_in(tree):
        return UsageError(f"{root}: no table of numbers in it, but {len(bags)} bags, such as {bags[0]}", _OF_A_BAG)
    likeliest = likeliest_table(tree)
    if likeliest is not None:
        why, cure = why_no_table(tree.root / likeliest, likeliest)
        return UsageError(f"{root}: no table of numbers in it; {why}", cure or _WRITE_BY_HAND)
    kinds = ", ".join(sorted({PurePosixPath(path).suffix or path for path in tree.files})[:12]) or "nothing"
    looked_at = " ".join(sorted([*TABLES, ".npz", ".hdf5", ".zarr", ".parquet"]))
    cure = f"a table with a row a sample is needed ({looked_at}, or other plain text); {_WRITE_BY_HAND}"
    return UsageError(f"{root}: no table of numbers in it, only {kinds}", cure)


def _recorded_apart(guess: SchemaGuess, reading: Reading) -> dict[str, str]:
    """Return the streams that were never recorded at the same time as the robot, such as a calibration, by file."""
    files = [fault["file"] for fault in reading.faults if fault["code"] == "clock.no_overlap"]
    apart = {}
    for stream in guess.streams[1:]:
        own = [file for file in files if any(match_end(file, pattern) is not None for pattern in stream.files)]
        if own and len(own) == reading.num_tried:
            apart[stream.name] = own[0]
    return apart


def _with_missing(guess: SchemaGuess, faults: list[Record]) -> SchemaGuess | None:
    """Return the guess with cells marked as missing that the trial found empty below the first rows."""
    missing = [f for f in faults if f["code"] in ("csv.missing_value", "csv.not_finite") and f["column"]]
    if not missing:
        return None
    columns = {fault["column"] for fault in missing}
    texts = {_quoted(fault["found"]) for fault in missing if fault["code"] == "csv.not_finite"} - {""}
    streams = []
    for stream in guess.streams:
        fields = tuple(
            replace(field, on_missing="mask", reasons=(*field.reasons, _GAPS))
            if columns & set(field.columns) and not field.on_missing
            else field
            for field in stream.fields
        )
        texts_here = tuple(sorted({*stream.missing, *texts})) if stream.kind == "csv" else ()
        streams.append(replace(stream, fields=fields, missing=texts_here))
    return replace(guess, streams=tuple(streams))


def _said_of(fault: Record) -> str:
    """Return what a fault says, and how a word among numbers is said to mean that there is no value."""
    word = _quoted(fault["found"] or "") if fault["code"] == "csv.not_a_number" else ""
    if not word.isalpha():
        return str(fault["message"])
    cure = f'missing = ["{word}"] in the stream and on_missing = "mask" in the field'
    return f"{fault['message']}; if {word} means no value, say {cure}"


def _quoted(found: str) -> str:
    return found.strip("'\"") if len(found) < 20 else ""
