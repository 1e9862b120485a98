"""Recognizes datasets that a built-in schema reads whole, by the names of their files and arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from vlapipe.pipeline.discover.file_tree import WholeTree
from vlapipe.pipeline.infer.guess import StreamGuess
from vlapipe.schemas.registry import built_in_schemas, load_schema
from vlapipe.schemas.schema import ArrayStream, EpisodeLayout

__all__ = ["KnownDataset", "built_in_that_fits", "rate_of_built_in", "recognize"]

_MADE_FROM_DATASET = {"lerobot"}  # its schema is written from the dataset's own metadata


@dataclass(frozen=True)
class KnownDataset:
    """A dataset that ``--schema <schema>`` reads; ``what`` says what was recognized, and by which file.

    ``folder`` is the folder of the dataset relative to the one that was looked at.
    """

    what: str
    schema: str
    folder: str = ""


def recognize(tree: WholeTree) -> KnownDataset | None:
    """Return the dataset that the folder is, if only a built-in schema can describe it; otherwise ``None``."""
    schemas = {*built_in_schemas(), *_MADE_FROM_DATASET}
    return next((known for known in _candidates(tree) if known.schema in schemas), None)


def _candidates(tree: WholeTree) -> Iterator[KnownDataset]:
    first = {path.rpartition("/")[2]: path for path in sorted(tree.files, reverse=True)}
    for path in tree.files:
        if (
            path.endswith("info.json")
            and f"/{path}".endswith("/meta/info.json")
            and b"codebase_version" in _head(tree, path)
        ):
            folder = str(PurePosixPath(path).parents[1])
            yield KnownDataset(f"a LeRobot dataset ({path})", "lerobot", "" if folder == "." else folder)
    if "ep_start_end_ids.npy" in first:
        yield KnownDataset(f"CALVIN, an NPZ a time step ({first['ep_start_end_ids.npy']})", "calvin")
    if "trajectory.h5" in first and any("/recordings/" in f"/{path}" for path in tree.files):
        yield KnownDataset(f"DROID's raw layout ({first['trajectory.h5']})", "droid")
    for name in ("obs_dict.pkl", "policy_out.pkl"):
        if name in first:
            yield KnownDataset(f"BridgeData's raw layout ({first[name]})", "bridge_raw")


def _head(tree: WholeTree, path: str) -> bytes:
    try:
        with (tree.root / path).open("rb") as file:
            return file.read(1 << 16)
    except OSError:
        return b""


def built_in_that_fits(streams: Sequence[StreamGuess], episodes: EpisodeLayout) -> str | None:
    """Return the built-in schema that knows the arrays of guessed streams by their names, with their meaning.

    It must cut the container into episodes as the guess does, and the container must hold each array that it needs.
    """
    kinds = {stream.kind for stream in streams}
    arrays = {name.strip("/") for stream in streams for array in stream.fields for name in array.columns}
    fitting: list[tuple[int, str]] = []
    for name in built_in_schemas():
        schema = load_schema(name)
        anchor = schema.anchor_stream
        layout = schema.episodes
        if not isinstance(anchor, ArrayStream) or anchor.kind not in kinds or layout.ranges:
            continue
        if layout.ends != episodes.ends or layout.group != episodes.group:
            continue
        known = [{name for names in field.columns for name in names} & arrays for field in anchor.fields]
        needed = [found for field, found in zip(anchor.fields, known, strict=True) if not field.optional]
        if needed and all(needed):
            fitting.append((sum(map(bool, known)), name))
    return max(fitting, default=(0, None))[1]


def rate_of_built_in(name: str) -> float | None:
    """Return the rows per second that a built-in schema states, if its dataset has no clock."""
    return load_schema(name).anchor_stream.time.index_rate_hz
