"""Compares two datasets, as plain data. Reads manifests, episodes tables and rejects, never a shard.

Episodes are the same episode if they have the same id. Where an episode lies in the shards is no difference.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vlapipe.pipeline.shards.arrow_numpy import counts_of
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.manifest.episodes_table import EpisodesTable
from vlapipe.pipeline.shards.manifest.metadata_columns import PREFIX
from vlapipe.pipeline.show.column_names import names_of_numbers
from vlapipe.pipeline.show.inspection import rejects_of

__all__ = ["RECORDING", "difference_of"]

RECORDING = "recording"  # an episode whose source files have other bytes
_PLACE = {"episode_index", "shard", "id"}  # columns that say where an episode is, and not what it is
_FRAMES = {"frame_start", "num_frames", "num_left_out", "seconds", "source_row"}
_CLOCK = {"first_s", "last_s", "jitter_s", "max_gap_s", "gaps", "begin"}
_NUMBERS = ("mean", "std", "min", "q01", "q10", "q50", "q90", "q99", "max")
_ROUNDING = 1e-12
_MOST_LINES = 400  # of the schemas' text


def difference_of(a: Dataset, b: Dataset) -> dict[str, Any]:
    """Return what ``vlapipe diff`` reports: what it takes to come from ``a`` to ``b``.

    ``equal`` is whether nothing differs. ``statistics.columns`` has the columns of the fields of both whose statistics
    differ, the largest ``shift`` first: the difference of the means, in standard deviations of both together.

    Raises:
        DamageError: a table is missing or altered.
    """
    parts: dict[str, Any] = {
        "episodes": _episodes(a, b),
        "schema": _schema(a, b),
        "options": _options(a, b),
        "counts": _counts(a, b),
        "rejects": _rejects(a, b),
        "statistics": _statistics(a, b),
    }
    return {"equal": _is_empty(parts), "a": _facts(a), "b": _facts(b), **parts}


def _is_empty(parts: Mapping[str, Any]) -> bool:
    episodes, schema, statistics = parts["episodes"], parts["schema"], parts["statistics"]
    lists = [*(episodes[kind] for kind in ("added", "removed", "renamed", "changed"))]
    lists += [schema[kind] for kind in ("streams", "fields", "text")]
    lists += [parts["options"], parts["rejects"]["added"], parts["rejects"]["removed"]]
    lists += [statistics[kind] for kind in ("only_in_a", "only_in_b", "columns")]
    lists += [*parts["counts"].values()]
    return not any(lists)


def _facts(dataset: Dataset) -> dict[str, Any]:
    manifest = dataset.manifest
    return {
        "path": str(dataset.place),
        "vlapipe_version": manifest.vlapipe_version,
        "schema": manifest.schema["name"],
        "episodes": manifest.totals["episodes"],
        "frames": manifest.totals["frames"],
        "seconds": manifest.totals["seconds"],
        "stored_bytes": manifest.totals["shard_bytes"],
        "rejects": manifest.rejects["count"],
    }


def _episodes(a: Dataset, b: Dataset) -> dict[str, Any]:
    of_a, of_b = ({part.episodes["sha256"]: part for part in each.manifest.all_parts} for each in (a, b))
    num_equal = sum(part.num_episodes for sha256, part in of_a.items() if sha256 in of_b)  # to the last byte
    apart = (
        [part for sha256, part in own.items() if sha256 not in other] for own, other in ((of_a, of_b), (of_b, of_a))
    )
    tables = (EpisodesTable(each.path, parts, each.generation) for each, parts in zip((a, b), apart, strict=True))
    found = _compared(*tables)
    return {**found, "same": found["same"] + num_equal}


def _compared(a: EpisodesTable, b: EpisodesTable) -> dict[str, Any]:
    ids_a, ids_b = (each.column("id").combine_chunks() for each in (a, b))
    in_b = pc.index_in(ids_a, value_set=ids_b)
    here = pc.is_valid(in_b)
    rows_a = pc.indices_nonzero(here)
    rows_b = in_b.filter(here)
    removed, added = ids_a.filter(pc.invert(here)), ids_b.filter(pc.invert(pc.is_in(ids_b, value_set=ids_a)))
    renamed = _renamed(a, b, set(removed.to_pylist()), set(added.to_pylist()))
    changed = _changed(a, b, rows_a, rows_b)
    taken_a, taken_b = {pair["from"] for pair in renamed}, {pair["to"] for pair in renamed}
    return {
        "same": len(rows_a) - len(changed),
        "added": [name for name in added.to_pylist() if name not in taken_b],
        "removed": [name for name in removed.to_pylist() if name not in taken_a],
        "renamed": renamed,
        "changed": changed,
        "changed_by": dict(Counter(what for entry in changed for what in entry["what"]).most_common()),
    }


def _recordings(table: EpisodesTable) -> pa.Array:
    """Return one text an episode: the digests of its source files, in the order of the streams."""
    sources = table.column("sources").combine_chunks()
    if not len(sources):
        return pa.array([], pa.string())
    digests = pa.ListArray.from_arrays(sources.offsets, sources.values.field("sha256"))
    return pc.binary_join(digests, " ")


def _renamed(a: EpisodesTable, b: EpisodesTable, removed: set[str], added: set[str]) -> list[dict[str, str]]:
    """Return pairs of a removed and an added episode with the same source bytes, if no other episode has them."""
    if not removed or not added:
        return []

    def unique(table: EpisodesTable) -> dict[str, str]:
        names, keys = table.column("id").to_pylist(), _recordings(table).to_pylist()
        counts = Counter(keys)
        return {key: name for key, name in zip(keys, names, strict=True) if key.strip() and counts[key] == 1}

    of_a, of_b = unique(a), unique(b)
    pairs = ((name, of_b.get(key)) for key, name in of_a.items() if name in removed)
    return [{"from": old, "to": new} for old, new in pairs if new is not None and new in added]


def _changed(a: EpisodesTable, b: EpisodesTable, rows_a: pa.Array, rows_b: pa.Array) -> list[dict[str, Any]]:
    """Return the id of each episode of both that differs, and by what."""
    what: dict[int, dict[str, None]] = {}
    for name, old, new in _columns(a, b) if len(rows_a) else ():
        if old is None or new is None:
            there = [each.take(rows) for each, rows in ((old, rows_a), (new, rows_b)) if each is not None]
            differ = pc.is_valid(there[0]).to_numpy(zero_copy_only=False)
        else:
            differ = _differ(old.take(rows_a), new.take(rows_b))
        for row in np.flatnonzero(differ).tolist():
            what.setdefault(row, {})[name] = None
    names = a.column("id").combine_chunks().take(rows_a)
    return [{"id": names[row].as_py(), "what": [*found]} for row, found in sorted(what.items())]


def _columns(a: EpisodesTable, b: EpisodesTable) -> Iterator[tuple[str, pa.Array | None, pa.Array | None]]:
    """Yield the columns to compare: what they are to a person, and both arrays; None where a dataset lacks one."""
    yield RECORDING, _recordings(a), _recordings(b)
    in_a, in_b = set(a.fields.names), set(b.fields.names)
    for column in [*a.fields.names, *(name for name in b.fields.names if name not in in_a)]:
        kind = _kind(column)
        if kind is None:
            continue
        old, new = (_column(each, column) if column in own else None for each, own in ((a, in_a), (b, in_b)))
        if column != "statistics" or old is None or new is None:
            if (old is None or new is None) and not column.startswith(PREFIX):
                continue  # a stream that one dataset lacks: a difference of the schemas
            yield kind, old, new
            continue
        fields = [{old.type[i].name for i in range(old.type.num_fields)} for old in (old, new)]
        for field in sorted(fields[0] & fields[1]):
            yield f"values of {field}", pc.struct_field(old, field), pc.struct_field(new, field)


def _column(table: EpisodesTable, name: str) -> pa.Array:
    column = table.column(name).combine_chunks()
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _kind(column: str) -> str | None:
    """Return what a column of the episodes table is to a person; None for one that is not compared."""
    stream, _, name = column.rpartition("/")
    if column in _PLACE or column == "sources" or (stream and name == "start"):
        return None
    if column.startswith(PREFIX):
        return f"metadata {column.removeprefix(PREFIX)}"
    if column in _FRAMES:
        return "frames"
    if not stream:
        return "values" if column == "statistics" else column
    if name == "rows":
        return f"rows of {stream}"
    return f"clock of {stream}" if name in _CLOCK else f"images of {stream}"


def _differ(old: pa.Array, new: pa.Array) -> NDArray[np.bool_]:
    """Return which rows differ. NaN is equal to NaN, and null to null."""
    if old.type != new.type:
        pairs = zip(old.to_pylist(), new.to_pylist(), strict=True)
        return np.array([x != y for x, y in pairs], dtype=bool)
    if pa.types.is_nested(old.type):
        found = np.zeros(len(old), dtype=bool)
        found[[*_unequal_rows(old, new)]] = True
        return found
    if pa.types.is_floating(old.type):
        old, new = (pc.if_else(pc.is_nan(each), None, each) for each in (old, new))
    both = pc.fill_null(pc.not_equal(old, new), fill_value=False)
    one = pc.xor(pc.is_null(old), pc.is_null(new))
    mask: NDArray[np.bool_] = pc.or_(both, one).to_numpy(zero_copy_only=False)
    return mask


def _unequal_rows(old: pa.Array, new: pa.Array, first: int = 0) -> Iterator[int]:
    """Yield the rows that differ of nested arrays: equal halves are left out at once."""
    if not len(old) or old.equals(new):
        return
    if len(old) == 1:
        yield first
        return
    half = len(old) // 2
    yield from _unequal_rows(old.slice(0, half), new.slice(0, half), first)
    yield from _unequal_rows(old.slice(half), new.slice(half), first + half)


def _schema(a: Dataset, b: Dataset) -> dict[str, Any]:
    """Return the streams and fields that differ, and the lines of the schemas' text that differ."""
    of_a, of_b = a.manifest.streams, b.manifest.streams
    streams = [_change("stream", name, name in of_a, name in of_b) for name in {**of_a, **of_b}]
    fields = []
    for name in of_a.keys() & of_b.keys():
        for key in ("kind", "rate_hz", "time", "storage", "unit", "channels"):
            fields += _changes(f"{name} {key.removesuffix('_hz')}", of_a[name].get(key), of_b[name].get(key))
        fields_a, fields_b = of_a[name].get("fields", {}), of_b[name].get("fields", {})
        for field in {**fields_a, **fields_b}:
            path, one, other = f"{name}/{field}", fields_a.get(field), fields_b.get(field)
            if one is None or other is None:
                fields += _changes(path, one and "is there", other and "is there")
                continue
            for key in ("dtype", "shape", "unit"):
                fields += _changes(f"{path} {key}", one[key], other[key])
    old, new = (each.manifest.schema["toml"].splitlines() for each in (a, b))
    lines = [*difflib.unified_diff(old, new, "a", "b", lineterm="", n=1)]
    return {
        "streams": sorted((entry for entry in streams if entry["a"] != entry["b"]), key=lambda each: str(each["what"])),
        "fields": sorted(fields, key=lambda each: str(each["what"])),
        "text": lines[:_MOST_LINES],
        "num_lines": len(lines),
    }


def _change(kind: str, name: str, in_a: bool, in_b: bool) -> dict[str, Any]:
    return {"what": f"{kind} {name}", "a": "is there" if in_a else None, "b": "is there" if in_b else None}


def _changes(what: str, a: Any, b: Any) -> list[dict[str, Any]]:
    return [{"what": what, "a": a, "b": b}] if a != b else []


def _options(a: Dataset, b: Dataset) -> list[dict[str, Any]]:
    """Return what differs in how the datasets were made."""
    own = [
        {"format": each.manifest.shard_format, "codec": each.manifest.codec, **each.manifest.made_with}
        for each in (a, b)
    ]
    # The number of shards that were planned follows from the episodes.
    names = [name for name in {**own[0], **own[1]} if name != "num_planned_shards"]
    return [change for name in names for change in _changes(name, own[0].get(name), own[1].get(name))]


def _counts(a: Dataset, b: Dataset) -> dict[str, list[dict[str, Any]]]:
    """Return the tasks and splits whose numbers of episodes differ, and the notes whose counts differ."""
    found = {}
    for each in (a, b):
        each.read_columns(["task", "split"])
    for column in ("task", "split"):
        old, new = (counts_of(each.episode_column(column)) for each in (a, b))
        found[f"{column}s"] = _differing(old, new)
    findings = [Counter[str](each.manifest.totals["findings"]) for each in (a, b)]
    return {**found, "findings": _differing(*findings)}


def _differing(old: Counter[str], new: Counter[str]) -> list[dict[str, Any]]:
    return [change for name in sorted({*old, *new}) for change in _changes(name, old[name], new[name])]


def _rejects(a: Dataset, b: Dataset) -> dict[str, Any]:
    """Return the episodes that were set aside from one dataset alone."""
    old, new = ({reject["episode"] for reject in rejects_of(each)["episodes"]} for each in (a, b))
    return {"added": sorted(new - old), "removed": sorted(old - new)}


def _statistics(a: Dataset, b: Dataset) -> dict[str, Any]:
    of_a, of_b = a.manifest.statistics, b.manifest.statistics
    columns: list[dict[str, Any]] = []
    for path in sorted(of_a.keys() & of_b.keys()):
        one, other = of_a[path], of_b[path]
        if one == other:
            continue
        width = len(one["mean"])
        if width != len(other["mean"]):
            columns.append({"path": path, "name": path, "shift": None, "a": None, "b": None})
            continue
        for i, name in enumerate(names_of_numbers(b.schema, path, width)):
            old, new = ({key: each[key][i] for key in _NUMBERS if key in each} for each in (one, other))
            if not _are_equal(old, new):
                label = path if width == 1 else f"{path.partition('/')[0]}/{name}"
                columns.append({"path": path, "name": label, "shift": _shift(old, new), "a": old, "b": new})
    return {
        "only_in_a": sorted(of_a.keys() - of_b.keys()),
        "only_in_b": sorted(of_b.keys() - of_a.keys()),
        "columns": sorted(columns, key=lambda each: -_size_of(each["shift"])),
    }


def _are_equal(old: Mapping[str, float], new: Mapping[str, float]) -> bool:
    """Return whether a column's numbers are the same but for rounding, which goes by the order of the shards."""
    size = max(abs(new["mean"]), new["std"])
    return all(math.isclose(old[key], new[key], rel_tol=_ROUNDING, abs_tol=_ROUNDING * size) for key in old)


def _shift(old: Mapping[str, float], new: Mapping[str, float]) -> float | None:
    """Return the difference of the means in standard deviations of both together; None if neither varies."""
    apart = new["mean"] - old["mean"]
    spread = math.sqrt((old["std"] ** 2 + new["std"] ** 2) / 2)
    if spread > 0:
        return apart / spread
    return 0.0 if not apart else None


def _size_of(shift: float | None) -> float:
    return math.inf if shift is None else abs(shift)
