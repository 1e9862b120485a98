"""Guesses a schema for a folder of recordings, and tries the schema by reading the first episodes with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from vlapipe.pipeline.build.record import Record
from vlapipe.pipeline.discover.file_tree import FileTree, match_end, walk
from vlapipe.pipeline.infer.arrays.containers import guess_containers
from vlapipe.pipeline.infer.assemble import guess_schema
from vlapipe.pipeline.infer.files.bags import why_no_table_but_bags
from vlapipe.pipeline.infer.files.known_datasets import built_in_that_fits, recognize
from vlapipe.pipeline.infer.files.layout import TABLES, files_of_one_row, find_layout, likeliest_table
from vlapipe.pipeline.infer.files.one_step_files import OneStepFiles, one_step_a_file
from vlapipe.pipeline.infer.guess import SchemaGuess
from vlapipe.pipeline.infer.text.no_table import why_no_table
from vlapipe.pipeline.infer.trial import Trial, try_schema
from vlapipe.pipeline.infer.write import schema_text
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema

__all__ = ["Inferred", "infer_schema"]

_TRIED_EPISODES = 3
_FEW_IMAGES = 3
_FEW_OBJECTS = 10
_NAMED = "the built-in schema {0!r} knows these arrays, with their meaning: try --schema {0} first"
_WRITE_BY_HAND = "for another write files = [...] by hand, starting from `vlapipe schema show`"


@dataclass(frozen=True, kw_only=True)
class Inferred:
    """A guessed schema as text, the reasons for each guess, and the errors in the first episodes read with it."""

    toml: str
    reasons: tuple[str, ...]
    assumed: tuple[str, ...]  # streams whose rate is only assumed, because nothing states it
    units: tuple[str, ...]  # cameras whose unit of depth is only assumed
    faults: tuple[str, ...]
    num_tried: int


def infer_schema(root: Path) -> Inferred:
    """Guess a schema for the recordings below ``root``.

    Raises:
        UsageError: the folder does not exist, or holds nothing that a schema could describe.
    """
    if not root.is_dir():
        problem = "not a folder" if root.exists() else "no such folder"
        raise UsageError(f"{root}: {problem}", "give the folder that holds the recordings")
    tree = walk(root.resolve())
    _refuse_known(root, tree)
    steps = one_step_a_file(tree)
    if steps is not None:
        return _inferred_of_steps(root, steps)
    layout = find_layout(tree)
    guess = None if layout is None else guess_schema(layout)
    guess = guess or guess_containers(tree)
    if guess is None:
        raise _no_table(root, tree)
    known = built_in_that_fits(guess)
    faults, num_tried = _try(root, guess)
    for mend in (_without_other_times, _with_missing):
        changed = mend(guess, faults, num_tried)
        if changed is None:
            continue
        again, num_tried = _try(root, changed)
        if len(again) < len(faults):
            guess, faults = changed, again
    messages = tuple(fault["message"] for fault in faults)
    return Inferred(
        toml=schema_text(guess),
        reasons=(*([_NAMED.format(known)] if known else []), *guess.reasons, *_misnamed(tree)),
        assumed=tuple(stream.name for stream in guess.streams if stream.assumed),
        units=tuple(stream.name for stream in guess.streams if stream.unit and not stream.file_unit),
        faults=messages,
        num_tried=num_tried,
    )


def _refuse_known(root: Path, tree: FileTree) -> None:
    """Refuse a dataset that a built-in schema reads: there is nothing to guess."""
    known = recognize(tree)
    if known is not None:
        place = f"{root}/{known.folder}" if known.folder else f"{root}"
        cure = f"nothing is to be guessed: vlapipe ingest --dataset {place} --schema {known.schema} --out OUT"
        raise UsageError(f"{root}: {known.what}, which the built-in schema {known.schema!r} reads", cure)


def _inferred_of_steps(root: Path, steps: OneStepFiles) -> Inferred:
    faults, num_tried = _try_text(root, steps.toml)
    return Inferred(
        toml=steps.toml,
        reasons=steps.reasons,
        assumed=("robot",),
        units=(),
        faults=tuple(fault["message"] for fault in faults),
        num_tried=num_tried,
    )


def _misnamed(tree: FileTree) -> list[str]:
    if not tree.misnamed:
        return []
    return [f"left out: {len(tree.misnamed)} names that are no UTF-8 text or too long, such as {tree.misnamed[0]}"]


def _no_table(root: Path, tree: FileTree) -> UsageError:
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
    bags = why_no_table_but_bags(tree)
    if bags is not None:
        return UsageError(f"{root}: no table of numbers in it, but {bags[0]}", bags[1])
    likeliest = likeliest_table(tree)
    if likeliest is not None:
        why, cure = why_no_table(tree.root / likeliest, likeliest)
        return UsageError(f"{root}: no table of numbers in it; {why}", cure or _WRITE_BY_HAND)
    kinds = ", ".join(sorted({PurePosixPath(path).suffix or path for path in tree.files})[:12]) or "nothing"
    looked_at = " ".join(sorted([*TABLES, ".npz", ".hdf5", ".zarr", ".parquet"]))
    cure = f"a table with a row a sample is needed ({looked_at}, or other plain text); {_WRITE_BY_HAND}"
    return UsageError(f"{root}: no table of numbers in it, only {kinds}", cure)


def _try(root: Path, guess: SchemaGuess) -> tuple[list[Record], int]:
    """Read the first episodes with the guessed schema. Returns the errors and the number of episodes tried."""
    return _try_text(root, schema_text(guess))


def _try_text(root: Path, toml: str) -> tuple[list[Record], int]:
    schema = parse_schema(toml, "inferred")
    try:
        trial = try_schema(root, schema, num_episodes=_TRIED_EPISODES)
    except UsageError as error:
        return [{"code": "", "column": None, "message": str(error)}], 0
    faults = [reason for reject in trial.rejects for reason in reject["reasons"] if reason["severity"] == "error"]
    return faults + _shared_stamps(trial), len(trial.tried)


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


def _without_other_times(guess: SchemaGuess, faults: list[Record], num_tried: int) -> SchemaGuess | None:
    """Return the guess without tables that were never recorded at the same time as the robot, such as a calibration."""
    files = [fault["file"] for fault in faults if fault["code"] == "clock.no_overlap"]
    apart = {}
    for stream in guess.streams[1:]:
        own = [file for file in files if any(match_end(file, pattern) is not None for pattern in stream.files)]
        if own and len(own) == num_tried:
            apart[stream.name] = own[0]
    if not apart:
        return None
    said = tuple(
        f"{PurePosixPath(file).name}: its times lie wholly before or after those of {guess.streams[0].name}"
        for file in apart.values()
    )
    sensors = tuple((name, path) for name, path in guess.sample.sensors if path.partition("/")[0] not in apart)
    return replace(
        guess,
        streams=tuple(stream for stream in guess.streams if stream.name not in apart),
        sample=replace(guess.sample, sensors=sensors),
        not_read=(*guess.not_read, *said),
    )


def _with_missing(guess: SchemaGuess, faults: list[Record], _num_tried: int) -> SchemaGuess | None:
    """Return the guess with cells marked as missing that the trial found empty below the first rows."""
    missing = [f for f in faults if f["code"] in ("csv.missing_value", "csv.not_finite") and f["column"]]
    if not missing:
        return None
    columns = {fault["column"] for fault in missing}
    texts = {_quoted(fault["found"]) for fault in missing if fault["code"] == "csv.not_finite"} - {""}
    streams = []
    for stream in guess.streams:
        fields = []
        for field in stream.fields:
            if columns & set(field.columns) and not field.on_missing:
                reasons = (
                    *field.reasons,
                    "some cells further down have no value: drop leaves those rows out; or say mask",
                )
                field = replace(field, on_missing="drop", reasons=reasons)
            fields.append(field)
        texts_here = tuple(sorted({*stream.missing, *texts})) if stream.kind == "csv" else ()
        streams.append(replace(stream, fields=tuple(fields), missing=texts_here))
    return replace(guess, streams=tuple(streams))


def _quoted(found: str) -> str:
    return found.strip("'\"") if len(found) < 20 else ""
