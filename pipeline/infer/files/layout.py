"""Guesses which files of a folder form an episode, and which file of an episode is the anchor.

Of files that are alike, each may be an episode, or they are parts of one, such as the tables of two arms. The bucket
that tells most about the robot is the anchor.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import NamedTuple

from vlapipe.pipeline.discover.file_kinds import suffix_of
from vlapipe.pipeline.discover.file_tree import WholeTree, match_end
from vlapipe.pipeline.infer.arrays.contents import column_of
from vlapipe.pipeline.infer.choices import Choices, Option
from vlapipe.pipeline.infer.columns.clock import guess_clock
from vlapipe.pipeline.infer.columns.columns import columns_of
from vlapipe.pipeline.infer.evidence import Evidence, log_odds, said
from vlapipe.pipeline.infer.files.heads import (
    Bucket,
    Head,
    alike,
    container_buckets,
    is_table,
    key_of,
    look_at,
    other_text_buckets,
    table_buckets,
)
from vlapipe.pipeline.infer.lexicon import bare_name, lexicon, words_in
from vlapipe.pipeline.infer.text.text_head import is_other_text

__all__ = ["Layout", "escape", "files_of_one_row", "find_layout", "likeliest_table", "pattern_of", "telling_name"]

_SAYS_NOTHING = {"data", "log", "samples"}  # file names that do not describe the content
_FEW_ROWS = 10
_SOON_STEPS = 3
_LONG_AGO_S = 60.0  # a clock that starts later than this ran before the recording began
_MAX_LISTED = 8
_NEAR = 1.0  # log-odds; a file that says this much less could lead as well


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the files of a dataset form episodes.

    With ``per_file``, each of the anchor's files is an episode. An episode's folder lies ``up`` levels above the folder
    of its anchor file.
    """

    tree: WholeTree
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


def find_layout(tree: WholeTree, choices: Choices, without: Sequence[Bucket] = ()) -> Layout | None:
    """Guess how a folder of recordings is laid out. Returns ``None`` if no table or container of numbers is found.

    ``without`` are buckets that turned out to hold nothing to train on.
    """
    tables, packed = table_buckets(tree), container_buckets(tree)
    unusual = not tables and not packed
    if unusual:
        tables = other_text_buckets(tree)
    # A table of a single row is not a recording: it holds metadata, or one moment.
    one_row = tuple(sorted(bucket.files[0] for bucket in tables if _has_one_row(bucket)))
    found = [bucket for bucket in tables if not _has_one_row(bucket)]
    buckets = _sorted_out(tree, [*found, *packed], choices)
    buckets = [bucket for bucket in buckets if bucket.files not in [other.files for other in without]]
    if not buckets:
        return None
    anchor, reasons = _leading(buckets, choices)
    counts = Counter(str(PurePosixPath(file).parent) for file in anchor.files)
    per_file = max(counts.values()) > 1
    kin = [bucket for bucket in buckets if bucket is not anchor and bucket.key == anchor.key]
    unlike = tuple(file for bucket in kin for file in bucket.files)
    others = tuple(bucket for bucket in buckets if bucket is not anchor and bucket not in kin)
    layout = Layout(
        tree=tree, anchor=anchor, others=others, per_file=per_file, up=0, reasons=(), unlike=unlike, one_row=one_row
    )
    reasons = [*(["no table has a usual suffix: other text was looked at"] if unusual else []), *reasons]
    if per_file:
        most, count = counts.most_common(1)[0]
        where = "one folder" if most == "." else repr(most)
        return replace(layout, reasons=(*reasons, f"{count} such files lie in {where}: each is taken for an episode"))
    layout = replace(layout, up=_levels_up(layout))
    layout = replace(layout, others=tuple(part for bucket in others for part in _by_place(layout, bucket)))
    episodes = "one folder" if len(anchor.files) == 1 else f"{len(anchor.files)} folders"
    return replace(layout, reasons=(*reasons, f"{episodes} with one such file: each is taken for an episode"))


def files_of_one_row(tree: WholeTree) -> tuple[str, ...]:
    """List the tables that have a single row each, or are a matrix. None of them is a recording."""
    found = [bucket for bucket in table_buckets(tree) if _has_one_row(bucket)]
    return tuple(sorted(file for bucket in found for file in bucket.files))


def likeliest_table(tree: WholeTree) -> str | None:
    """Return the first file that looks like a table by its name, or else by its text; ``None`` if there is none."""
    wanted: tuple[Callable[[str], bool], ...] = (is_table, lambda path: is_other_text(tree.root / path))
    return next((path for is_wanted in wanted for path in sorted(tree.files) if is_wanted(path)), None)


def _has_one_row(bucket: Bucket) -> bool:
    return all(head.is_one_row for head in bucket.heads)


def _sorted_out(tree: WholeTree, buckets: Sequence[Bucket], choices: Choices) -> list[Bucket]:
    """Decide of files that are alike whether each is an episode, or all are parts of one.

    Buckets of lone files with the same columns (pick.csv and place.csv) are joined if each is an episode. A bucket with
    several files a folder (arm_1.csv, arm_2.csv) is split by their names if they are parts.
    """
    families: list[list[Bucket]] = []
    for bucket in sorted(buckets, key=lambda bucket: -_tells(bucket)):
        family = next((each for each in families if _are_kin(each[0], bucket)), None) if _are_alone(bucket) else None
        if family is None:
            families.append([bucket])
        else:
            family.append(bucket)
    found: list[Bucket] = []
    for family in families:
        files = sorted(file for bucket in family for file in bucket.files)
        members = _members(files)
        about = "episodes: layout" if family is families[0] else f"{telling_name(files[0])}: layout"
        if len(members) < 2 or _are_episodes(tree, family[0], members, about, choices):
            heads = tuple(head for bucket in family for head in bucket.heads)[:3]
            found.append(replace(family[0], files=tuple(files), heads=heads))
        elif len(family) > 1:
            found += family
        else:
            found += _split(tree, family[0], members)
    return found


def _members(files: Sequence[str]) -> dict[str, list[str]]:
    """Return, by the name that tells them apart, the files of which several lie in one folder.

    Files that lie alone in folders such as ``left`` and ``right`` are told apart by those.
    """
    by_folder: dict[str, list[str]] = defaultdict(list)
    for file in files:
        by_folder[file.rpartition("/")[0]].append(file)
    above = {folder.rpartition("/")[0] for folder in by_folder}
    in_parts = len(by_folder) > len(above) and _are_parts({folder.rpartition("/")[2] for folder in by_folder})
    if max(map(len, by_folder.values())) < 2 and not in_parts:
        return {}
    members: dict[str, list[str]] = defaultdict(list)
    for file in files:
        members[file.split("/")[-2] if in_parts else file.rpartition("/")[2]].append(file)
    return members


def _split(tree: WholeTree, bucket: Bucket, members: dict[str, list[str]]) -> list[Bucket]:
    found = []
    for name, files in members.items():
        heads = [head for head in bucket.heads if head.path in files]
        if not heads and (head := look_at(tree, files[0], is_folder=bucket.is_folder)) is not None:
            heads = [head]
        if heads:
            found.append(replace(bucket, files=tuple(files), heads=tuple(heads), key=f"{name}\0{bucket.key}"))
    return found


def _are_episodes(tree: WholeTree, bucket: Bucket, members: dict[str, list[str]], about: str, choices: Choices) -> bool:
    names = sorted(members)
    some = [members[names[i]][0] for i in sorted({0, 1, len(names) // 2, len(names) - 1})]
    heads = [head for file in some if (head := look_at(tree, file, is_folder=bucket.is_folder)) is not None]
    folders = len({file.rpartition("/")[0] for files in members.values() for file in files})
    evidence = [*_by_names(names, folders, max(map(len, members.values()))), *_by_heads(heads)]
    score = log_odds("episode_file", evidence)
    each = Option(
        value=True,
        score=score,
        says="each file is a recording",
        line="per_file = true",
        reasons=said("episode_file", evidence),
    )
    listed = ", ".join(names[:2])
    parts = Option(value=False, score=0.0, says=f"{listed} are parts of one", line=f'files = ["{names[0]}"]')
    are_episodes = choices.pick(about, [each, parts]).value
    if are_episodes and any(one.feature == "goes_on" for one in evidence):
        about = f"episodes: {names[1]} begins where {names[0]} ends"
        choices.ask(about, each.says, each.line, "one recording in parts", "join the files first")
    return are_episodes


def _by_names(names: Sequence[str], num_folders: int, most_of_a_name: int) -> list[Evidence]:
    """Tell by the names of files in one folder whether they are recordings, or parts of one."""
    found = [Evidence("many_files", min(1.0, (len(names) - 1) / 7), f"{len(names)} such files lie in one folder")]
    if len({key_of(name) for name in names}) == 1:
        found.append(Evidence("names_numbered", 1.0, "their names differ in a number alone"))
    stems = [name.partition(".")[0] for name in names]
    if all(lexicon().likeness(stem, "files", "episode") for stem in stems):
        found.append(Evidence("names_of_episodes", 1.0, f"{names[0]!r} is called a recording"))
    if all(lexicon().likeness(stem, "files", "task") for stem in stems):
        found.append(Evidence("names_of_tasks", 1.0, f"{names[0]!r} is called after what a robot does"))
    if _are_parts(set(stems)):
        found.append(Evidence("names_of_parts", 1.0, f"{names[0]!r} is called like a part of a robot"))
    if num_folders > 1 and most_of_a_name == num_folders:
        found.append(Evidence("names_come_again", 1.0, f"the same names lie in {num_folders} folders"))
    return found


def _are_parts(names: set[str]) -> bool:
    """Return whether what tells names apart says parts of a robot: left and right, or numbers after arm."""
    words = [[word for word in words_in(name) if not word.isdigit()] for name in sorted(names)]
    common = set.intersection(*map(set, words))
    own = [[word for word in each if word not in common] or each[-1:] for each in words]
    if len(set(map(tuple, own))) == 1 and all(len(word) == 1 for word in own[0]):
        return False  # r0 and r1 are no right ones
    return len(names) > 1 and all(
        each and all(lexicon().likeness(word, "files", "part") == 1 for word in each) for each in own
    )


def _by_heads(heads: Sequence[Head]) -> list[Evidence]:
    """Tell by their rows whether files are recordings, or parts of one."""
    rows = [head.num_rows for head in heads]
    found = []
    if any(head.look is not None for head in heads):
        found.append(Evidence("whole_container", 1.0, "a container mostly holds all of a recording"))
    if rows and max(rows) > 1.2 * min(rows):
        found.append(Evidence("rows_differ", 1.0, f"they have {min(rows)} to {max(rows)} rows"))
    elif len(set(rows)) == 1:
        found.append(Evidence("same_rows", 1.0, f"each has {rows[0]} rows"))
    spans = [span for head in heads if (span := _span(head)) is not None]
    if len(spans) == len(heads) > 1:
        first, second = sorted(spans[:2])
        if second.start < first.end and first.begins_apart and second.begins_apart:
            found.append(Evidence("at_once", 1.0, "they were recorded at once"))
        elif second.start >= first.end:
            found.append(Evidence("in_turn", 1.0, "they were recorded one after the other"))
            if second.start < first.end + _SOON_STEPS * first.step:
                found.append(Evidence("goes_on", 1.0, "one begins where the other ends"))
    return found


class _Span(NamedTuple):
    """When a file was recorded, in seconds. ``begins_apart`` is False if its clock may begin with the recording."""

    start: float
    end: float
    step: float
    begins_apart: bool


def _span(head: Head) -> _Span | None:
    """Return when a file was recorded; ``None`` if it has no clock."""
    table, look = head.table, head.look
    if table is not None:
        columns = columns_of(table)
    else:
        arrays = () if look is None else look.arrays
        columns = [column_of(each, position=i) for i, each in enumerate(arrays) if each.shape == (head.num_rows,)]
    clock = guess_clock([column for column in columns if column.cells])
    if not clock.rate_hz or not len(clock.stamps_s):
        return None
    start, step = float(clock.stamps_s[0]), 1 / clock.rate_hz
    last = (head.num_rows - 1) * step
    return _Span(start, start + last, step, clock.epoch or start >= max(_LONG_AGO_S, last + step))


def _are_alone(bucket: Bucket) -> bool:
    """Return True if no file name of the bucket occurs in two folders."""
    at = -2 if bucket.is_folder else -1
    return len({"/".join(file.split("/")[at:]) for file in bucket.files}) == len(bucket.files)


def _are_kin(one: Bucket, other: Bucket) -> bool:
    if one.is_folder != other.is_folder or not _are_alone(one):
        return False
    a, b = one.heads[0], other.heads[0]
    if a.table is None or b.table is None:
        return a.look is not None and b.look is not None and a.look.kind == b.look.kind and alike(a, b)
    dialects = (a.table.dialect, b.table.dialect)
    if dialects[0] != dialects[1] and 0 in (each.header_rows for each in dialects):
        return False
    names, others = set(a.names), set(b.names)
    return len(names & others) >= 0.8 * len(names | others)


def _leading(buckets: Sequence[Bucket], choices: Choices) -> tuple[Bucket, list[str]]:
    """Choose the bucket that tells most about the robot. Returns the reasons too."""
    scored = []
    for bucket in buckets:
        evidence = _leads(bucket)
        scored.append((log_odds("anchor", evidence), bucket, said("anchor", evidence)))
    scored.sort(key=lambda each: -each[0])
    best, most, _ = scored[0]
    options = [
        Option(
            value=bucket,
            score=score,
            says=f"{PurePosixPath(bucket.files[0]).name} leads",
            line=f'files = ["{PurePosixPath(bucket.files[0]).name}"] in the first stream',
            reasons=reasons,
        )
        for score, bucket, reasons in scored
        if bucket is most or (best - score < _NEAR and not alike(bucket.heads[0], most.heads[0]))
    ]
    taken = choices.pick("anchor", options)
    name = PurePosixPath(taken.value.files[0]).name
    return taken.value, [f"{name!r} leads: {', '.join(taken.reasons)}"] if len(buckets) > 1 else []


def _leads(bucket: Bucket) -> list[Evidence]:
    """Tell how much a kind of file says about the robot."""
    rows, numbers = max(head.num_rows for head in bucket.heads), max(head.num_numbers for head in bucket.heads)
    name = telling_name(bucket.files[0])
    found = [
        Evidence("many_numbers", math.log(max(1, min(numbers, 64))) / math.log(64), f"{numbers} numbers a row"),
        Evidence("many_rows", math.log(math.log2(rows + 2)) / math.log(20), f"{rows} rows"),
        Evidence("share_of_episodes", math.log(min(len(bucket.files), 8)) / math.log(8)),
    ]
    if rows < _FEW_ROWS:
        found.append(Evidence("few_rows", 1.0, f"{rows} rows are hardly a recording"))
    if lexicon().likeness(name, "files", "robot"):
        found.append(Evidence("robot_name", 1.0, "it is called after a robot"))
    if lexicon().likeness(bare_name(name), "groups", "command") >= 0.8:
        found.append(Evidence("command_name", 1.0, "it is called after commands"))
    if any(lexicon().likeness(each, "roles", "joint") for each in bucket.heads[0].names):
        found.append(Evidence("names_of_joints", 1.0, "it names joints"))
    if lexicon().likeness(name, "files", "sensor"):
        found.append(Evidence("sensor_name", 1.0, "it is called after a sensor"))
    return found


def _tells(bucket: Bucket) -> float:
    return log_odds("anchor", _leads(bucket))


def telling_name(path: str) -> str:
    """Return a descriptive name: the file's name without extensions, or else its folder's name."""
    parts = PurePosixPath(path)
    stem = parts.name.partition(".")[0]
    return parts.parent.name if stem in _SAYS_NOTHING and parts.parent.name else stem


def _levels_up(layout: Layout) -> int:
    """Return how many levels the episode folder lies above the anchor file, so that it holds the other files too."""
    anchors = [tuple(file.split("/")[:-1]) for file in layout.anchor.files]
    num_below = Counter(folder[:n] for folder in anchors for n in range(len(folder) + 1))
    depth = {folder[:n]: len(folder) for folder in anchors for n in range(len(folder) + 1)}
    ours = {*layout.anchor.files}
    folders = {
        path.rpartition("/")[0]
        for path in layout.tree.files
        if suffix_of(path) not in ("", ".md", ".py") and path not in ours
    }
    companions = {tuple(folder.split("/")) if folder else () for folder in folders}
    companions -= {tuple(file.split("/")[:-1]) for file in layout.unlike}
    wanted = Counter[int]()
    for companion in companions:
        shared = next(companion[:n] for n in range(len(companion), -1, -1) if companion[:n] in num_below)
        if num_below[shared] == 1:
            wanted[depth[shared] - len(shared)] += 1
    for up in sorted(wanted, reverse=True):
        above = {folder[: len(folder) - up] for folder in anchors}
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
    return _split(layout.tree, bucket, places)


def pattern_of(paths: list[str], against: Iterable[str]) -> tuple[str, ...]:
    """Return the narrowest pattern that matches all ``paths``.

    If that pattern also matches a path of ``against`` and there are few ``paths``, return the paths themselves.
    """
    paths = sorted(set(paths))
    parts = zip(*(path.split("/") for path in paths), strict=True)
    pattern = "/".join(_common(list(names)) for names in parts)
    if len(paths) > 1 and len(paths) <= _MAX_LISTED and any(match_end(path, pattern) is not None for path in against):
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
