"""Groups the columns that form one quantity: names that differ only in a number, an axis, or the joint of an arm."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

from vlapipe.pipeline.infer.columns.columns import Column
from vlapipe.pipeline.infer.lexicon import lexicon, words_in

__all__ = ["Group", "group_columns", "identifier"]

# Tokens of a name: consecutive digits, an acronym, a word, or other letters (all alphabets).
_TOKEN = re.compile(r"\d+|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+")
_AXES = 3
_AXIS_AT_END = 6  # letters at most of a word that ends in its axis: accX


@dataclass(frozen=True)
class Group:
    """Columns that form one field. ``labels`` holds each column's number, axis or joint, or ``""`` of a lone column."""

    name: str
    columns: tuple[Column, ...]
    labels: tuple[str, ...]


def group_columns(columns: list[Column]) -> list[Group]:
    """Put every column into exactly one group. Groups are ordered by their first column in the file."""
    groups: list[Group] = []
    left = {column.position: column for column in columns}
    for find, complete, name in _WAYS:
        members: dict[str, list[tuple[str, Column]]] = defaultdict(list)
        for column in left.values():
            for key, label in find(column.base):
                members[key].append((label, column))
        order = {key: i for i, key in enumerate(members)}
        for key in sorted(members, key=lambda k: (-len(members[k]), -k.find("\0"), order[k])):
            free = [(label, column) for label, column in members[key] if column.position in left]
            if len(free) > 1 and complete([label for label, _ in free]):
                free.sort(key=lambda m: int(m[0]) if m[0].isdecimal() else m[1].position)
                labels, ours = zip(*free, strict=True)
                groups.append(Group(name(key, labels), ours, labels))
                for column in ours:
                    del left[column.position]
    groups += [Group(identifier(c.base), (c,), ("",)) for c in left.values()]
    groups = sorted(groups, key=lambda group: min(column.position for column in group.columns))
    return [replace(group, name="torque") if _is_torque(group, groups) else group for group in groups]


def _is_torque(group: Group, groups: list[Group]) -> bool:
    """Return True for Tx, Ty, Tz beside Fx, Fy, Fz. Without the forces, Tx, Ty, Tz are a translation."""
    if group.name != "position" or any(column.base.lower()[:1] != "t" for column in group.columns):
        return False
    return any(other.name == "force" and other.labels == group.labels for other in groups)


def _joints(name: str) -> list[tuple[str, str]]:
    """Return the joint of each arm that a name says, with the arm and the rest of the name."""
    words = words_in(name)
    places = {*lexicon().phrases("axes", "place"), "w"}
    found = []
    for arm in lexicon().table("arms"):
        best: tuple[tuple[str, ...], int] = ((), 0)
        for phrase in lexicon().phrases("arms", arm):
            parts = tuple(phrase.split())
            starts = [i for i in range(len(words) - len(parts) + 1) if words[i : i + len(parts)] == parts]
            best = max([best, *((parts, i) for i in starts)], key=lambda each: len(each[0]))
        joint, start = best
        rest = (*words[:start], *words[start + len(joint) :])
        if joint and not places & set(rest):  # joints of a body have places
            found.append(
                (f"{' '.join(words[:start])}\0{' '.join(words[start + len(joint) :])}\0{arm}", " ".join(joint))
            )
    return found


def _numbers(name: str) -> list[tuple[str, str]]:
    """Return each number in a name with the rest of the name. A number that occurs twice counts as one number."""
    found = re.findall(r"\d+", name)
    twice = sorted({number for number in found if found.count(number) > 1})
    keys = [(re.sub(rf"(?<!\d){number}(?!\d)", "\0", name), number) for number in twice]
    return keys + [(f"{name[: m.start()]}\0{name[m.end() :]}", m[0]) for m in re.finditer(r"\d+", name)]


def _axes(name: str) -> list[tuple[str, str]]:
    """Return each axis in a name with the rest of the name: ``pose_x``, ``X_Position``, ``accX``, ``qw``."""
    axes = {*lexicon().phrases("axes", "place"), *lexicon().phrases("axes", "turn"), "w"}
    found = []
    for match in _TOKEN.finditer(name):
        token = match[0].lower()
        before, after = name[: match.start()], name[match.end() :]
        if token in axes:
            found.append((f"{before}\0{after}", token))
        elif token[-1] in "xyzw" and len(token) <= _AXIS_AT_END:
            found.append((f"{before}{match[0][:-1]}\0{after}", token[-1]))
    return found


def _are_axes(labels: list[str]) -> bool:
    known = set(labels)
    turns = {turn for turn in lexicon().phrases("axes", "turn") if len(turn) > 1}
    places = set(lexicon().phrases("axes", "place"))
    return len(known) == len(labels) and (len(known & places) >= 2 or len(known & turns) >= 2)


def _are_numbers(labels: list[str]) -> bool:
    return len({int(label) for label in labels}) == len(labels)


def _are_joints(labels: list[str]) -> bool:
    return len(set(labels)) == len(labels)


def _of_joints(key: str, _labels: tuple[str, ...]) -> str:
    """Name joints after what is said beside their names: ``left_joint_position``, ``action_joint_position``."""
    words = " ".join(key.split("\0")[:2]).split()
    plain = {*lexicon().phrases("before_number", "joint_position"), *lexicon().phrases("before_axis", "position")}
    quantity = "joint_position"
    for known in ("joint_velocity", "joint_torque"):
        if said := set(words) & set(lexicon().phrases("before_number", known)):
            quantity, plain = known, plain | said
    return identifier(" ".join([*(word for word in words if word not in plain), quantity]))


def _of_numbers(key: str, labels: tuple[str, ...]) -> str:
    """Name numbered columns. Three positions or speeds may be those of a place as well as those of joints."""
    bare = identifier(key.replace("\0", ""), default="")
    places = {*lexicon().phrases("roles", "place"), *lexicon().phrases("before_axis", "velocity")}
    if len(labels) == _AXES and bare in places:
        return bare
    return _known("before_number", key) or "values"


def _of_axes(key: str, labels: tuple[str, ...]) -> str:
    places, turns = (set(labels) & set(lexicon().phrases("axes", key)) for key in ("place", "turn"))
    default = "orientation" if not places or "w" in labels else "position"
    return _known("before_axis", key) or ("pose" if places and turns else default)


def _known(table: str, key: str) -> str:
    """Return the quantity that the rest of a name stands for, or that rest itself."""
    bare = identifier(key.replace("\0", ""), default="")
    return next((name for name, said in lexicon().table(table).items() if bare.replace("_", " ") in said), bare)


_Find = Callable[[str], list[tuple[str, str]]]
_WAYS: tuple[tuple[_Find, Callable[[list[str]], bool], Callable[[str, tuple[str, ...]], str]], ...] = (
    (_joints, _are_joints, _of_joints),
    (_axes, _are_axes, _of_axes),
    (_numbers, _are_numbers, _of_numbers),
)


def identifier(name: str, default: str = "field") -> str:
    """Turn a name into one that schemas allow: lower-case words of ASCII letters and digits, joined by ``_``."""
    plain = unicodedata.normalize("NFKD", name.replace("ß", "ss"))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    words = [word.lower() for word in _TOKEN.findall(plain) if word.isascii()]
    if len(words) > 1 and words[0] in ("field", "data"):
        words = words[1:]  # exporters of ROS bags put these words before each name
    text = "_".join(words)
    if not text:
        return default
    return text if text[0].isalpha() else f"{default or 'values'}_{text}"
