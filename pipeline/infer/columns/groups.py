"""Groups the columns that form one quantity: columns whose names differ only in a number or an axis."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, replace

from vlapipe.pipeline.infer.columns.columns import Column

__all__ = ["ANGLES", "Group", "group_columns", "identifier"]

# Tokens of a name: consecutive digits, an acronym, a word, or other letters (all alphabets).
_TOKEN = re.compile(r"\d+|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+")
_EULER = {"roll", "pitch", "yaw", "alpha", "beta", "gamma", "a", "b", "c", "r", "phi", "theta", "psi"}
_PLACES = {"x", "y", "z"}
ANGLES = _EULER
_LONG_EULER = {name for name in _EULER if len(name) > 1}
# The quantity that a bare prefix stands for: before numbers, and before axes.
_BEFORE_NUMBER = {
    "joint_position": "joint joints j q jp joint_angle joint_angles joint_pos joint_positions actual_q axis",
    "joint_velocity": "qd dq actual_qd joint_vel joint_velocity joint_velocities jv",
    "joint_torque": "tau tau_j torque joint_torque joint_torques joint_effort jt",
    "values": "c",
}
_BEFORE_AXIS = {
    "position": "t p pos position loc location translation",
    "orientation": "q quat quaternion ori orientation rot",
    "acceleration": "a acc accel acceleration",
    "velocity": "v vel velocity",
    "angular_velocity": "w g gyro gyr omega angvel",
    "force": "f force",
    "torque": "torque tau",
}


@dataclass(frozen=True, kw_only=True)
class Group:
    """Columns that form one field. ``labels`` holds each column's number or axis, or ``""`` for a lone column."""

    name: str
    columns: tuple[Column, ...]
    labels: tuple[str, ...]


def group_columns(columns: list[Column]) -> list[Group]:
    """Put every column into exactly one group. Groups are ordered by their first column in the file."""
    groups: list[Group] = []
    left = {column.position: column for column in columns}
    for find, complete in ((_axes, _are_axes), (_numbers, _are_numbers)):
        members: dict[str, list[tuple[str, Column]]] = defaultdict(list)
        for column in left.values():
            for key, label in find(column.base):
                members[key].append((label, column))
        order = {key: i for i, key in enumerate(members)}
        for key in sorted(members, key=lambda k: (-len(members[k]), -k.find("\0"), order[k])):
            free = [(label, column) for label, column in members[key] if column.position in left]
            if len(free) > 1 and complete([label for label, _ in free]):
                groups.append(_group(key, free, numbers=find is _numbers))
                for _, column in free:
                    del left[column.position]
    groups += [Group(name=identifier(c.base), columns=(c,), labels=("",)) for c in left.values()]
    groups = sorted(groups, key=lambda group: min(column.position for column in group.columns))
    return [replace(group, name="torque") if _is_torque(group, groups) else group for group in groups]


def _is_torque(group: Group, groups: list[Group]) -> bool:
    """Return True for Tx, Ty, Tz beside Fx, Fy, Fz. Without the forces, Tx, Ty, Tz are a translation."""
    if group.name != "position" or any(column.base.lower()[:1] != "t" for column in group.columns):
        return False
    return any(other.name == "force" and other.labels == group.labels for other in groups)


def _numbers(name: str) -> list[tuple[str, str]]:
    """Return each number in a name with the rest of the name. A number that occurs twice counts as one number."""
    found = re.findall(r"\d+", name)
    twice = sorted({number for number in found if found.count(number) > 1})
    keys = [(re.sub(rf"(?<!\d){number}(?!\d)", "\0", name), number) for number in twice]
    return keys + [(f"{name[: m.start()]}\0{name[m.end() :]}", m[0]) for m in re.finditer(r"\d+", name)]


def _axes(name: str) -> list[tuple[str, str]]:
    """Return each axis in a name with the rest of the name: ``pose_x``, ``X_Position``, ``accX``, ``qw``."""
    found = []
    for match in _TOKEN.finditer(name):
        token = match[0].lower()
        before, after = name[: match.start()], name[match.end() :]
        if token in _PLACES | _EULER | {"w"}:
            found.append((f"{before}\0{after}", token))
        elif token[-1] in "xyzw" and len(token) <= 6:
            found.append((f"{before}{match[0][:-1]}\0{after}", token[-1]))
    return found


def _are_axes(labels: list[str]) -> bool:
    known = set(labels)
    if len(known) < len(labels):
        return False
    return len(known & _PLACES) >= 2 or len(known & _LONG_EULER) >= 2


def _are_numbers(labels: list[str]) -> bool:
    return len({int(label) for label in labels}) == len(labels)


def _group(key: str, members: list[tuple[str, Column]], *, numbers: bool) -> Group:
    members = sorted(members, key=lambda m: int(m[0]) if numbers else m[1].position)
    bare = identifier(key.replace("\0", ""), default="")
    known = _BEFORE_NUMBER if numbers else _BEFORE_AXIS
    name = next((name for name, words in known.items() if bare in words.split()), bare)
    labels = {label for label, _ in members}
    if not name:
        name = "values" if numbers else "orientation" if not labels & _PLACES or "w" in labels else "position"
        name = "pose" if labels & _PLACES and labels & _EULER else name
    return Group(name=name, columns=tuple(column for _, column in members), labels=tuple(label for label, _ in members))


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
