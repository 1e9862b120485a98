"""Guesses which files of a folder form an episode, and which file of an episode is the anchor. Reads heads of tables.

Files whose names differ only in digits form one bucket. The bucket that tells most about the robot is the anchor.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from vlapipe.pipeline.discover.file_tree import FileTree, match_end
from vlapipe.pipeline.infer.columns.clock import guess_clock
from vlapipe.pipeline.infer.columns.columns import columns_of
from vlapipe.pipeline.infer.text.dialect import Table, look_at_table
from vlapipe.pipeline.infer.text.text_head import is_other_text

__all__ = ["TABLES", "Bucket", "Layout", "escape", "files_of_one_row", "find_layout", "pattern_of", "telling_name"]

TABLES = {".csv", ".tsv", ".txt", ".log", ".dat", ".data"}
_PACKED = {".gz", ".zip"}
_ARRAYS = {".npz"}
_MAX_LOOKED_AT = 3  # files of one bucket that are read: first, middle, last
_MAX_BUCKETS = 60
_MAX_UNLIKE = 24  # files that are read if files of one name have different columns
_SAYS_NOTHING = {"data", "log", "samples"}  # file names that do not describe the content
_MAX_KINDS = 12  # kinds of tables that may share one file name in different folders
_FEW_ROWS = 10
_LONG_AGO_S = 60.0  # a clock that starts later than this ran before the recording began
_MAX_LISTED = 8
_ROBOT = re.compile(r"robot|joint|state|arm|odom|log|traj|ground_?truth|pose", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Files of one kind. ``looks`` holds the first rows of some of them, and is empty for array files."""

    files: tuple[str, ...]
    looks: tuple[Table, ...]
    key: str = ""  # the file name with its digits and folder name left open

    @property
    def num_numbers(self) -> int:
        """Largest number of numeric columns among the files looked at."""
        return max(sum(column.kind == "number" for column in columns_of(look)) for look in self.looks)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the files of a dataset form episodes.

    With ``per_file``, each of the anchor's files is an episode. Otherwise an episode is a folder, which lies ``up``
    levels above the folder of its anchor file.
    """

    tree: FileTree
    anchor: Bucket
    others: tuple[Bucket, ...]
    per_file: bool
    up: int
    reasons: tuple[str, ...]
    unlike: tuple[str, ...] = ()  # files that are named like the anchor's but have other columns
    one_row: tuple[str, ...] = ()  # one file for each kind of table with a single row

    def folder(self, anchor_file: str) -> str:
        """Return the episode folder of an anchor file, ``""`` for the root."""
        parts = anchor_file.split("/")[:-1]
        return "/".join(parts[: len(parts) - self.up])

    def stem(self, anchor_file: str) -> str:
        """Return the anchor file's name without its extensions."""
        return PurePosixPath(anchor_file).name.partition(".")[0]


def find_layout(tree: FileTree) -> Layout | None:
    """Guess how a folder of recordings is laid out. Returns ``None`` if no table of numbers is found."""
    buckets = _merged(_buckets(tree, _is_table))
    arrays = _array_buckets(tree) or ([] if buckets else _npy_buckets(tree))
    unusual = not buckets and not arrays
    if unusual:
        buckets = _merged(_buckets(tree, lambda path: is_other_text(tree.root / path)))
    # A table of a single row is not a recording: it holds metadata, or one moment.
    one_row = tuple(sorted(bucket.files[0] for bucket in buckets if _has_one_row(bucket)))
    buckets = [bucket for bucket in buckets if not _has_one_row(bucket)]
    if not buckets and not arrays:
        return None
    anchor = max(buckets, key=_weight) if buckets else max(arrays, key=lambda bucket: len(bucket.files))
    counts = Counter(str(PurePosixPath(file).parent) for file in anchor.files)
    per_file = max(counts.values()) > 1
    kin = [bucket for bucket in buckets if bucket is not anchor and bucket.key == anchor.key]
    unlike = tuple(file for bucket in kin for file in bucket.files)
    others = tuple(bucket for bucket in (*buckets, *arrays) if bucket is not anchor and bucket not in kin)
    layout = Layout(
        tree=tree, anchor=anchor, others=others, per_file=per_file, up=0, reasons=(), unlike=unlike, one_row=one_row
    )
    name = PurePosixPath(anchor.files[0]).name
    reasons = ["no table has a usual suffix: other text was looked at"] if unusual else []
    reasons += [f"{name!r} leads: it says most of {len(buckets)} kinds of tables"] if len(buckets) > 1 else []
    if per_file:
        most, count = counts.most_common(1)[0]
        where = "one folder" if most == "." else repr(most)
        reasons.append(f"{count} such files lie in {where}: each is taken for an episode")
        return replace(layout, reasons=tuple(reasons))
    layout = replace(layout, up=_levels_up(layout))
    layout = replace(layout, others=tuple(part for bucket in others for part in _by_place(layout, bucket)))
    episodes = "one folder" if len(anchor.files) == 1 else f"{len(anchor.files)} folders"
    reasons.append(f"{episodes} with one such file: each is taken for an episode")
    return replace(layout, reasons=tuple(reasons))


def files_of_one_row(tree: FileTree) -> tuple[str, ...]:
    """List the tables that have a single row each, or are a matrix. None of them is a recording."""
    found = [bucket for bucket in _buckets(tree, _is_table) if _has_one_row(bucket)]
    return tuple(sorted(file for bucket in found for file in bucket.files))


def likeliest_table(tree: FileTree) -> str | None:
    """Return the first file that looks like a table by its name, or else by its text; ``None`` if there is none."""
    wanted: tuple[Callable[[str], bool], ...] = (_is_table, lambda path: is_other_text(tree.root / path))
    return next((path for is_wanted in wanted for path in sorted(tree.files) if is_wanted(path)), None)


def _has_one_row(bucket: Bucket) -> bool:
    return max(look.num_rows for look in bucket.looks) < 2 or all(map(_is_matrix, bucket.looks))


def _is_matrix(look: Table) -> bool:
    """Return whether a table is a pose or a calibration as 3 or 4 rows of 3 or 4 numbers, and no recording."""
    is_small = look.num_rows in (3, 4) and len(look.names) in (3, 4) and not look.dialect.header_rows and look.whole
    return is_small and all(column.kind == "number" for column in columns_of(look))


def _buckets(tree: FileTree, is_wanted: Callable[[str], bool]) -> list[Bucket]:
    named: dict[str, list[str]] = defaultdict(list)
    for path in tree.files:
        if is_wanted(path):
            named[_key(path)].append(path)
    found = []
    for key, files in sorted(named.items(), key=lambda item: -len(item[1]))[:_MAX_BUCKETS]:
        looks = _look(tree, [files[i] for i in sorted({0, len(files) // 2, len(files) - 1})])
        if looks and all(_alike(looks[0], look) for look in looks):
            found.append(Bucket(files=tuple(files), looks=tuple(looks), key=key))
        elif looks and (parts := _by_folder_name(tree, files, key)):
            found += parts
        elif looks:  # the names are alike but the tables are not
            kinds: list[list[Table]] = []
            for look in _look(tree, files[:_MAX_UNLIKE]):
                kind = next((kind for kind in kinds if _alike(kind[0], look)), None)
                if kind is None:
                    kinds.append([look])
                else:
                    kind.append(look)
            found += [
                Bucket(files=tuple(look.path for look in kind), looks=tuple(kind[:_MAX_LOOKED_AT]), key=key)
                for kind in kinds
            ]
    return found


def _by_folder_name(tree: FileTree, files: list[str], key: str) -> list[Bucket]:
    """Split a bucket by folder name, such as imu0/data.csv and truth0/data.csv.

    Returns an empty list if the folder names do not tell the kinds of tables apart.
    """
    named: dict[str, list[str]] = defaultdict(list)
    for file in files:
        named[re.sub(r"\d+", "#", PurePosixPath(file).parent.name)].append(file)
    if not 1 < len(named) <= _MAX_KINDS:
        return []
    parts: list[Bucket] = []
    for folder, group in named.items():
        looks = _look(tree, [group[i] for i in sorted({0, len(group) // 2, len(group) - 1})])
        if any(not _alike(looks[0], look) for look in looks[1:]):
            return []
        if any(_alike(part.looks[0], looks[0]) for part in parts if looks):  # folders of episodes, not of kinds
            return []
        if looks:
            parts.append(Bucket(files=tuple(group), looks=tuple(looks), key=f"{folder}/{key}"))
    return parts


def _look(tree: FileTree, files: list[str]) -> list[Table]:
    """Read the first rows of files, and return the tables that hold numbers."""
    looks = [look for file in files if (look := look_at_table(tree.root / file, file)) is not None]
    return [look for look in looks if look.rows and any(c.kind == "number" for c in columns_of(look))]


def _alike(one: Table, other: Table) -> bool:
    """Return True if two tables could belong to one stream: at least half of their columns are the same."""
    names, others = set(one.names), set(other.names)
    return 2 * len(names & others) >= len(names | others)


def _array_buckets(tree: FileTree) -> list[Bucket]:
    named: dict[str, list[str]] = defaultdict(list)
    for path in tree.files:
        if PurePosixPath(path).suffix.lower() in _ARRAYS:
            named[_key(path)].append(path)
    return [Bucket(files=tuple(files), looks=()) for files in named.values()]


def _npy_buckets(tree: FileTree) -> list[Bucket]:
    """Return folders of NPY files as one bucket: the first file of each folder stands for all of them."""
    first: dict[str, str] = {}
    for path in tree.files:
        if path.lower().endswith(".npy"):
            first.setdefault(str(PurePosixPath(path).parent), path)
    return [Bucket(files=tuple(first.values()), looks=())] if first else []


def _is_table(path: str) -> bool:
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        return len(suffixes) < 2 or suffixes[-2] in TABLES
    return bool(suffixes) and suffixes[-1] in TABLES


def _key(path: str) -> str:
    """Return the file's name with each digit group replaced by ``#``, and its folder's name left open."""
    *folders, name = path.split("/")
    for folder in reversed(folders):
        if len(folder) > 2 and folder in name:
            name = name.replace(folder, "\0")
    return re.sub(r"\d+", "#", name)


def _merged(buckets: list[Bucket]) -> list[Bucket]:
    """Merge buckets of lone files with the same columns (pick.csv and place.csv), unless they were recorded at once."""
    merged: list[Bucket] = []
    for bucket in buckets:
        for i, other in enumerate(merged):
            if _are_alone(bucket) and _are_alone(other) and _same_columns(bucket, other) and not _meet(bucket, other):
                looks = (*other.looks, *bucket.looks)[:_MAX_LOOKED_AT]
                merged[i] = Bucket(files=tuple(sorted({*other.files, *bucket.files})), looks=looks, key=other.key)
                break
        else:
            merged.append(bucket)
    return merged


def _are_alone(bucket: Bucket) -> bool:
    """Return True if no file name of the bucket occurs in two folders."""
    return len({PurePosixPath(file).name for file in bucket.files}) == len(bucket.files)


def _same_columns(one: Bucket, other: Bucket) -> bool:
    a, b = one.looks[0], other.looks[0]
    if a.dialect != b.dialect and (a.dialect.header_rows == 0 or b.dialect.header_rows == 0):
        return False
    names, others = set(a.names), set(b.names)
    return len(names & others) >= 0.8 * len(names | others)


def _meet(one: Bucket, other: Bucket) -> bool:
    """Return True if files of both buckets lie in one folder and were recorded at the same time."""
    if {str(PurePosixPath(f).parent) for f in one.files}.isdisjoint(str(PurePosixPath(f).parent) for f in other.files):
        return False
    spans = []
    for bucket in (one, other):
        clock = guess_clock(columns_of(bucket.looks[0]))
        if not clock.rate_hz or not len(clock.stamps_s):
            return False
        start, span = float(clock.stamps_s[0]), bucket.looks[0].num_rows / clock.rate_hz
        if not clock.epoch and start < max(_LONG_AGO_S, span):  # started with the recording: not comparable
            return False
        spans.append((start, start + span))
    (a, b), (c, d) = spans
    return a <= d and c <= b


def _weight(bucket: Bucket) -> float:
    """Weigh how much a bucket tells: by its numeric columns, rows and files, and by a name that suggests a robot."""
    rows = max(look.num_rows for look in bucket.looks)
    enough = 1.0 if rows >= _FEW_ROWS else 0.1
    likely = enough * 1.5 if _ROBOT.search(telling_name(bucket.files[0])) else enough
    return bucket.num_numbers * math.log2(rows + 2) * likely * math.sqrt(min(len(bucket.files), 8))


def telling_name(path: str) -> str:
    """Return a descriptive name: the file's name without extensions, or else its folder's name."""
    parts = PurePosixPath(path)
    stem = parts.name.partition(".")[0]
    return parts.parent.name if stem in _SAYS_NOTHING and parts.parent.name else stem


def _levels_up(layout: Layout) -> int:
    """Return how many levels the episode folder lies above the anchor file, so that it holds the other files too."""
    anchors = [file.split("/")[:-1] for file in layout.anchor.files]
    companions = {
        tuple(path.split("/")[:-1])
        for path in layout.tree.files
        if path not in set(layout.anchor.files) and PurePosixPath(path).suffix.lower() not in ("", ".md", ".py")
    }
    companions -= {tuple(file.split("/")[:-1]) for file in layout.unlike}
    wanted = Counter[int]()
    for companion in companions:
        shared = [_num_shared(companion, folder) for folder in anchors]
        nearest = max(shared)
        if shared.count(nearest) == 1:
            wanted[len(anchors[shared.index(nearest)]) - nearest] += 1
    for up in sorted(wanted, reverse=True):
        above = {tuple(folder[: len(folder) - up]) for folder in anchors}
        if len(above) == len(anchors) and 2 * wanted[up] >= len(anchors):
            return up
    return 0


def _by_place(layout: Layout, bucket: Bucket) -> list[Bucket]:
    """Split a bucket whose files lie in several folders of one episode, such as left/imu.csv and right/imu.csv."""
    folders = {layout.folder(file) for file in layout.anchor.files}
    places: dict[str, list[str]] = defaultdict(list)
    for file in bucket.files:
        parts = file.split("/")
        depth = next((n for n in range(len(parts) - 1, -1, -1) if "/".join(parts[:n]) in folders), None)
        if depth is None:
            return [bucket]
        places["/".join(parts[depth:-1])].append(file)
    if len(places) < 2 or len(bucket.files) <= len(folders):
        return [bucket]
    found = []
    for files in places.values():
        looks = [look for look in bucket.looks if look.path in files]
        if bucket.looks and not looks:
            looks = [look for look in (look_at_table(layout.tree.root / files[0], files[0]),) if look is not None]
        if looks or not bucket.looks:
            found.append(Bucket(files=tuple(files), looks=tuple(looks)))
    return found


def _num_shared(one: tuple[str, ...], other: list[str]) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def pattern_of(paths: list[str], against: Iterable[str]) -> tuple[str, ...]:
    """Return the narrowest pattern that matches all ``paths``.

    If that pattern also matches a path of ``against`` and there are few ``paths``, return the paths themselves.
    """
    paths = sorted(set(paths))
    parts = zip(*(path.split("/") for path in paths), strict=True)
    pattern = "/".join(_common(list(names)) for names in parts)
    if len(paths) > 1 and any(match_end(path, pattern) is not None for path in against) and len(paths) <= _MAX_LISTED:
        return tuple(escape(path) for path in paths)
    return (pattern,)


def _common(names: list[str]) -> str:
    """Return the common beginning and end of the names, with a star between."""
    if len(set(names)) == 1:
        return escape(names[0])
    before = names[0]
    for name in names:
        while not name.startswith(before):
            before = before[:-1]
    before = before.rstrip("0123456789")
    after = names[0][len(before) :]
    for name in names:
        while not name[len(before) :].endswith(after):
            after = after[1:]
    return f"{escape(before)}*{escape(after.lstrip('0123456789'))}"


def escape(name: str) -> str:
    """Escape a name, so that as a pattern it matches only itself."""
    return re.sub(r"([*?\[])", r"[\1]", name)
