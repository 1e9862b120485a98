"""What the messages of a type consist of. Definitions are parsed by rosbags; no code is made of them.

rosbags itself makes Python code of a definition and runs that. A hostile definition would make any amount of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from vlapipe.pipeline.read.bags.topics import Kind
from vlapipe.pipeline.read.refused import RefusedError
from vlapipe.schemas.extras import need

__all__ = ["SIZES", "TIMES", "Member", "Types", "types_of"]

# Bytes of the types that messages consist of. A string has a length before it.
SIZES = {
    "bool": 1,
    "byte": 1,
    "char": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "uint64": 8,
    "float32": 4,
    "float64": 8,
}
TIMES = ("time", "duration")  # 4 bytes of seconds and 4 of nanoseconds
_TIMES = {"builtin_interfaces/msg/Time": "time", "builtin_interfaces/msg/Duration": "duration"}
_MOST_TEXT = 1 << 18  # of a definition; the largest in use, of a whole planning scene, have 60 KB
_MOST_LENGTH = 1 << 20  # of an array of which the definition states the length
_DEEPEST = 24
_MOST_PATHS = 4096
_SEPARATOR = "=" * 80 + "\n"
_KNOWN = ("ROS2_HUMBLE", "ROS2_JAZZY")  # for bags without definitions, which ROS 2 wrote up to Humble


@dataclass(frozen=True)
class Member:
    """One member of a message: a number, a text, a time, a message, or an array of them."""

    name: str
    type: str  # of SIZES or TIMES, "string", or the name of a message type
    many: Literal["one", "array", "sequence"] = "one"
    length: int = 0  # of an "array"; a "sequence" has its length before it


@dataclass(frozen=True)
class Types:
    """A message type with all the types that it consists of. ``padded``: numbers are aligned, as in CDR."""

    root: str
    members: dict[str, tuple[Member, ...]]
    padded: bool

    def paths(self) -> Iterator[str]:
        """Yields the path of each member, and of each member of a message in it; not of messages in arrays."""
        for count, (path, _) in enumerate(self._walk(self.root, "")):
            if count == _MOST_PATHS:
                return
            yield path

    def _walk(self, of: str, start: str) -> Iterator[tuple[str, Member]]:
        for member in self.members[of]:
            yield start + member.name, member
            if member.many == "one" and member.type in self.members:
                yield from self._walk(member.type, f"{start}{member.name}.")

    def find(self, path: str) -> Member | None:
        """Returns the member at a path, in which ``[i]`` picks a message of a list; ``None`` if there is none."""
        of, found = self.root, None
        for part in path.split("."):
            name, bracket, index = part.partition("[")
            found = next((member for member in self.members.get(of, ()) if member.name == name), None)
            if found is None:
                return None
            if bracket:
                is_list = found.many != "one" and found.type in self.members
                if not (is_list and index[:-1].isdecimal() and index.endswith("]")):
                    return None
                found = Member(part, found.type)
            of = found.type if found.many == "one" else ""
        return found


def types_of(kind: Kind) -> Types:
    """Returns what the messages of a topic consist of.

    Raises:
        RefusedError: the definition is missing, or cannot be read.
    """
    return _types_of(_normal(kind.type), kind.encoding, kind.form, kind.definition)


def _normal(name: str) -> str:
    """Returns a type's name as ROS 2 writes it: ``sensor_msgs/msg/Imu``, where ROS 1 writes ``sensor_msgs/Imu``."""
    package, _, own = name.rpartition("/")
    return f"{package}/msg/{own}" if "/" not in package and package else name


@lru_cache(maxsize=256)
def _types_of(name: str, encoding: str, form: str, definition: str) -> Types:
    need("rosbags", "bags", "the messages of a bag")
    defined = _parse(name, form, definition) if definition else _known()
    if not definition and name not in defined:
        raise RefusedError("bag.type", f"the definition of {name} in the bag", "none, and it is no type of ROS itself")
    members: dict[str, tuple[Member, ...]] = {}
    _add(name, {**_known(), **defined} if encoding == "cdr" else defined, members, {})
    return Types(name, members, padded=encoding == "cdr")


def _parse(name: str, form: str, definition: str) -> dict[str, Any]:
    from rosbags.typesys import get_types_from_idl, get_types_from_msg

    if len(definition) > _MOST_TEXT:
        raise RefusedError(
            "bag.type", f"a definition of at most {_MOST_TEXT >> 10} KB", f"{len(definition)} characters"
        )
    try:
        if form == "msg":
            return dict(get_types_from_msg(definition.replace("\r\n", "\n"), name))
        if form == "idl":
            parts = [part.partition("\n")[2] for part in definition.split(_SEPARATOR)[1:]]
            found: dict[str, Any] = {}
            for text in parts or [definition]:
                found |= get_types_from_idl(text)
            return found
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged text fails in many ways, RecursionError included
        raise RefusedError(
            "bag.type", f"the definition of {name}", f"a text that is none ({type(error).__name__})"
        ) from None
    raise RefusedError("bag.type", f"the definition of {name} as .msg or .idl", f"one as {form!r:.40}")


@lru_cache(maxsize=1)
def _known() -> dict[str, Any]:
    """Returns the definitions of ROS 2's own types."""
    from rosbags.typesys import Stores, get_typestore

    found: dict[str, Any] = {}
    for store in reversed(_KNOWN):
        found |= get_typestore(Stores[store]).fielddefs
    return found


def _add(
    name: str, defined: dict[str, Any], members: dict[str, tuple[Member, ...]], depths: dict[str, int | None]
) -> int:
    """Adds a type, and all types that it consists of, to ``members``. Returns how deep messages lie in it."""
    if name not in defined:
        raise RefusedError("bag.type", f"the definition of {name} in the bag", "none")
    if name in depths:
        known = depths[name]
        if known is None:
            raise RefusedError("bag.type", "messages that end", f"{name} within itself")
        return known
    depths[name] = None
    members[name] = tuple(_member(each, described) for each, described in defined[name][1])
    inner = {member.type for member in members[name]} - {*SIZES, *TIMES, "string"}
    is_deep = sum(depth is None for depth in depths.values()) > _DEEPEST  # types that are being added
    deepest = 1 + max((_add(of, defined, members, depths) for of in (() if is_deep else inner)), default=0)
    if is_deep or deepest > _DEEPEST:
        raise RefusedError("bag.type", f"messages in messages up to {_DEEPEST} deep", f"more in {name}")
    depths[name] = deepest
    return deepest


def _member(name: str, described: Any) -> Member:
    node, detail = described
    if node.name in ("ARRAY", "SEQUENCE"):
        inner, length = detail
        if node.name == "ARRAY" and not 0 < length <= _MOST_LENGTH:
            raise RefusedError("bag.type", f"arrays of at most {_MOST_LENGTH} numbers", f"{name}[{length}]")
        many: Literal["array", "sequence"] = "array" if node.name == "ARRAY" else "sequence"
        return Member(name, _type(name, *inner), many, length)
    return Member(name, _type(name, node, detail))


def _type(name: str, node: Any, detail: Any) -> str:
    if node.name == "NAME":
        return _TIMES.get(detail, str(detail))
    base = str(detail[0])
    if base not in SIZES and base != "string":
        raise RefusedError("bag.type", "numbers of up to 64 bits, and texts of 8-bit characters", f"{name}: {base}")
    return base
