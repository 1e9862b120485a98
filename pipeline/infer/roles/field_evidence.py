"""Detectors of what a field is: its name, the group and the file that it lies in, its values, and fields like it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np

from vlapipe.pipeline.infer.columns.columns import split_unit
from vlapipe.pipeline.infer.evidence import Evidence
from vlapipe.pipeline.infer.guess import FieldGuess, StreamGuess
from vlapipe.pipeline.infer.lexicon import bare_name, lexicon, words_in

__all__ = ["are_alike", "by_columns", "by_likes", "by_name", "by_place", "by_values", "plain_words", "sides_of"]

_MOST_LAG = 10  # rows by which a command leads
_CLOSER = 0.5  # share of the difference that is left if one field is moved by the lag
_SELDOM = 0.02  # share of rows
_FEWEST_ROWS = 20
_FEWEST_NUMBERED = 4


def plain_words(field: FieldGuess) -> str:
    """Return the words of a field's first name, without its unit, number, axis or joint."""
    label = field.labels[0].split() if field.labels else []
    return " ".join(
        word for word in words_in(split_unit(field.columns[0])[0]) if not word.isdecimal() and word not in label
    )


def by_name(field: FieldGuess) -> Iterator[Evidence]:
    """Yield what the words of a name say."""
    plain = plain_words(field)
    for key in lexicon().table("roles"):
        like = max(lexicon().likeness(name, "roles", key) for name in (plain, field.name))
        if like:
            yield Evidence(f"named_{key}", like, f"{field.name}: by its name {_SAYS.get(key, key)}")


_SAYS = {
    "command": "what was commanded",
    "joint": "joints",
    "error": "an error or a prediction",
    "object": "an object or a goal",
}


def by_place(field: FieldGuess, stream: StreamGuess, others: Sequence[StreamGuess]) -> Iterator[Evidence]:
    """Yield what the groups that a field lies in say, and the file, if other files are called otherwise."""
    *groups, last = re.split(r"[/.:]", field.columns[0].strip("/"))
    files = _file_words(stream)
    differ = any(_file_words(other) != files for other in others)
    for part in [*groups, *(files if differ else ())]:
        if lexicon().likeness(bare_name(part), "groups", "command") >= 0.8:
            yield Evidence("group_command", 1.0, f"{field.name}: it lies in {part!r}, what was commanded")
    first = words_in(last)[:1] if len(words_in(last)) > 1 else ()  # states alone may be those of a simulator
    if any(lexicon().likeness(part, "groups", "observed") == 1 for part in [*groups, *first]):
        yield Evidence("group_observed", 1.0, f"{field.name}: by its name what was observed")


def _file_words(stream: StreamGuess) -> tuple[str, ...]:
    path = PurePosixPath(stream.topic or stream.files[0])
    return (path.stem.replace("*", ""), *path.parts[-2:-1])


def by_columns(field: FieldGuess) -> Iterator[Evidence]:
    """Yield what tells the columns of a field apart: numbers, axes, or the joints of an arm; and their unit."""
    labels = set(field.labels)
    if labels & set(lexicon().phrases("axes", "place")):
        yield Evidence("has_axes", 1.0, f"{field.name}: a value for each axis")
    arms = [set(joints) for joints in lexicon().table("arms").values()]
    if len(labels) > 1 and any(labels <= joints for joints in arms):
        yield Evidence("joints_of_an_arm", 1.0, f"{field.name}: joints of an arm, as named")
        like = lexicon().likeness(plain_words(field), "roles", "object")
        if like:
            yield Evidence("joints_called_goal", like, f"{field.name}: goals of joints are what was commanded")
    if field.num_columns >= _FEWEST_NUMBERED and all(label.isdecimal() for label in labels):
        yield Evidence("is_numbered", 1.0, f"{field.name}: {field.num_columns} numbered values")
    if any(lexicon().likeness(unit, "units_of", "rate") == 1 or "/s" in unit for unit in field.unit):
        yield Evidence("unit_of_rate", 1.0, f"{field.name}: in {field.unit[0]}")
    if field.quaternion:
        yield Evidence("is_quaternion", 1.0, f"{field.name}: a quaternion")


def by_values(field: FieldGuess) -> Iterator[Evidence]:
    """Yield what the first rows say: two values only, or values that seldom change."""
    if field.head is None or len(field.head) < _FEWEST_ROWS:
        return
    values = field.head[np.isfinite(field.head).all(axis=1)]
    if not len(values):
        return
    if np.all((values == values.min(axis=0)) | (values == values.max(axis=0))) and np.all(values == np.rint(values)):
        yield Evidence("two_values", 1.0, f"{field.name}: two values only")
    if not np.all(values == np.rint(values)) and field.num_columns == 1:
        yield Evidence("has_fractions", 1.0)
    if np.any(np.diff(values, axis=0), axis=1).mean() < _SELDOM:
        yield Evidence("seldom_changes", 1.0, f"{field.name}: hardly ever changes")


def are_alike(field: FieldGuess, other: FieldGuess) -> bool:
    """Return True if two fields have the same columns, so that one may be what the other was commanded to be."""
    same = field.labels == other.labels if any((*field.labels, *other.labels)) else field.shape == other.shape
    return field is not other and same and field.num_columns == other.num_columns and sides_of(field) == sides_of(other)


def by_likes(field: FieldGuess, others: Sequence[FieldGuess]) -> Iterator[Evidence]:
    """Yield that there is a field like it, and that such a field has the same values some rows later."""
    likes = [o for o in others if are_alike(field, o) and (o.num_columns > 1 or _called_alike(field, o))]
    if likes:
        yield Evidence("twin", 1.0)
        like = lexicon().likeness(plain_words(field), "groups", "goal")
        if like and all(label.isdecimal() for label in field.labels):
            yield Evidence("goal_of_twin", like, f"{field.name}: goals of {likes[0].name}, so what was commanded")
    for other in likes:
        lag = _lag(field, other)
        if lag:
            yield Evidence("leads", 1.0, f"{other.name} reaches {field.name} {lag} rows later")
            return


def _called_alike(field: FieldGuess, other: FieldGuess) -> bool:
    """Return True if the names of two lone columns differ in words that say what they are used for, or in one word."""
    names = [words_in(split_unit(each.columns[0])[0]) for each in (field, other)]
    if any(lexicon().likeness(" ".join(words), "roles", "rate") for words in names):
        return False
    uses = {phrase for use in ("command", "measured", "place") for phrase in lexicon().phrases("roles", use)} | {"goal"}
    bare = [[word for word in words if word not in uses] for words in names]
    short, long = sorted(names, key=len)
    return (bool(bare[0]) and bare[0] == bare[1]) or (len(long) == len(short) + 1 and short in (long[1:], long[:-1]))


def _lag(field: FieldGuess, other: FieldGuess) -> int:
    """Return by how many rows ``other`` follows the field, or 0."""
    ahead, behind = field.head, other.head
    if ahead is None or behind is None or len(ahead) != len(behind) or len(ahead) < 2 * _MOST_LAG:
        return 0
    seen = np.isfinite(ahead).all(axis=1) & np.isfinite(behind).all(axis=1)
    ahead, behind = ahead[seen], behind[seen]
    if len(ahead) < 2 * _MOST_LAG:
        return 0
    with np.errstate(all="ignore"):
        off = [np.nanmean(np.abs(ahead[: len(ahead) - k] - behind[k:])) for k in range(_MOST_LAG + 1)]
        back = [np.nanmean(np.abs(behind[: len(ahead) - k] - ahead[k:])) for k in range(1, _MOST_LAG + 1)]
    lag = int(np.argmin(off))
    return lag if lag and off[lag] < _CLOSER * off[0] and off[lag] < min(back) else 0


def sides_of(field: FieldGuess, *more: str) -> frozenset[str]:
    """Return the arms that the names of a field say: left, right, or none."""
    words = {word for name in (*field.columns, *more) for word in words_in(name)}
    return frozenset(side for side, names in lexicon().table("sides").items() if words & set(names))
