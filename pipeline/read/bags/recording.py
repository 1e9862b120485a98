"""Reads the files of one bag in one pass, and keeps the messages of the topics that are asked for."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vlapipe.pipeline.discover.file_tree import natural_order
from vlapipe.pipeline.read.bags.mcap_file import MCAP_MAGIC, read_mcap
from vlapipe.pipeline.read.bags.ros1_file import ROS1_MAGIC, read_ros1
from vlapipe.pipeline.read.bags.sqlite_file import SQLITE_MAGIC, read_sqlite
from vlapipe.pipeline.read.bags.topics import Topic, Topics
from vlapipe.pipeline.read.bags.unpack import ZSTD_MAGIC, unpack_file
from vlapipe.pipeline.read.refused import RefusedError
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["Recording", "read_recording", "topics_at_start"]

_MARKS = (MCAP_MAGIC, ROS1_MAGIC, SQLITE_MAGIC, ZSTD_MAGIC)
_METADATA = "metadata.yaml"
_START = 64 << 20  # bytes in which every topic should have appeared
_MOST_METADATA = 4 << 20
_MOST_BETWEEN_NS = 10_000_000_000  # from one split of a bag to the next
# Only these two are read of the metadata, as text: nothing in it is followed.
_NUM_MESSAGES = re.compile(r"^  message_count:\s*(\d{1,18})\s*$", re.MULTILINE)
_SPLITS = re.compile(r"^  relative_file_paths:[ \t]*\n((?:[ \t]*-[^\n]*\n)*)", re.MULTILINE)


@dataclass
class Recording:
    """The topics of a bag by name. Findings call the bag ``label``."""

    label: str
    topics: dict[str, Topic]

    def listed(self) -> str:
        """Returns all topics with their types and their numbers of messages, for an error."""
        shown = sorted(self.topics.values(), key=lambda topic: topic.name)
        named = [f"{t.name} ({t.kind.type or t.kind.encoding}, {t.num_messages})" for t in shown[:_MOST_LISTED]]
        left = f" and {len(shown) - _MOST_LISTED} more" if len(shown) > _MOST_LISTED else ""
        return ", ".join(named) + left if named else "no topic"


_MOST_LISTED = 60


def read_recording(root: Path, files: list[str], wanted: Container[str], findings: Findings) -> Recording | None:
    """Returns the topics of a bag; ``None`` if errors were found.

    Args:
        root: the dataset's folder.
        files: the bag's files, relative to ``root``: one, or all splits of it.
        wanted: the topics of which the messages are kept.
        findings: collects the faults.
    """
    label = files[0] if len(files) == 1 else str(PurePosixPath(files[0]).parent)
    topics = Topics(wanted, sum((root / file).stat().st_size for file in files))
    last: tuple[str, int] | None = None
    for file in sorted(files, key=natural_order):
        before = {name: topic.num_messages for name, topic in topics.by_name.items()}
        try:
            _read_file(root / file, file, topics)
        except RefusedError as error:
            findings.add(error.code, file, expected=error.expected, found=error.found)
            if findings.errors:
                return None
        except OSError as error:
            raise_if_stopped(error, root / file)
            findings.add("file.unreadable", file, found=error.strerror or str(error))
            return None
        span = _span(topics, before)
        if span and last and span[0] - last[1] > _MOST_BETWEEN_NS:
            expected = f"a file that goes on where {PurePosixPath(last[0]).name} ends, as splits of one bag do"
            found = f"one that begins {(span[0] - last[1]) / 1e9:.0f} s later"
            findings.add("bag.apart", file, expected=expected, found=found)
            if findings.errors:
                return None
        last = (file, span[1]) if span else last
    _check_metadata(root, files, label, sum(topic.num_messages for topic in topics.by_name.values()), findings)
    for topic in topics.by_name.values():
        topic.sort()
    return Recording(label, topics.by_name)


def _span(topics: Topics, before: dict[str, int]) -> tuple[int, int] | None:
    """Returns the first and the last time of the messages that were added since ``before``."""
    times = [topic.times[before.get(name, 0) :] for name, topic in topics.by_name.items() if topic.is_wanted]
    ends = [(int(each.min()), int(each.max())) for each in times if len(each)]
    return (min(first for first, _ in ends), max(end for _, end in ends)) if ends else None


def topics_at_start(path: Path, wanted: Container[str] = ()) -> list[Topic]:
    """Returns the topics in the first part of a file; those before its first damage, none if it is no bag.

    The messages of the ``wanted`` topics are kept.
    """
    topics = Topics(wanted, path.stat().st_size)
    with contextlib.suppress(RefusedError, UsageError):  # a package may be missing too
        _read_file(path, path.name, topics, most=_START)
    return list(topics.by_name.values())


def _read_file(path: Path, label: str, topics: Topics, *, most: int | None = None) -> None:
    num_bytes = path.stat().st_size if most is None else min(most, path.stat().st_size)
    with path.open("rb") as file:
        head = file.read(max(map(len, _MARKS)))
        file.seek(0)
        if head.startswith(SQLITE_MAGIC):
            read_sqlite(path, topics)
        elif head.startswith(MCAP_MAGIC):
            read_mcap(file, num_bytes, topics)
        elif head.startswith(ROS1_MAGIC):
            read_ros1(file, num_bytes, topics)
        elif head.startswith(ZSTD_MAGIC) and PurePosixPath(label).suffix in (".zstd", ".zst"):
            with tempfile.TemporaryDirectory(prefix="vlapipe-bag-") as folder:
                unpacked = Path(folder) / "bag"
                unpack_file(path, unpacked, label)
                _read_file(unpacked, "bag", topics, most=most)
        else:
            expected = "a ROS 1 bag (2.0), the SQLite file of a ROS 2 bag, or an MCAP file"
            raise RefusedError("bag.damaged", expected, f"a file that begins with {head[:8]!r}")


def _check_metadata(root: Path, files: list[str], label: str, num_messages: int, findings: Findings) -> None:
    """Compares the bag with the ``metadata.yaml`` beside it: a split may be missing, or not all be copied."""
    path = (root / files[0]).parent / _METADATA
    if not path.is_file() or path.stat().st_size > _MOST_METADATA:
        return
    text = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
    splits = _SPLITS.search(text)
    names = [line.strip().lstrip("-").strip().strip("'\"") for line in splits[1].splitlines()] if splits else []
    here = {PurePosixPath(file).name for file in files}
    missing = [name for name in names if PurePosixPath(name).name not in here]
    if missing and len(names) > 0 and len(names) - len(missing) == len(here):
        found = f"not {PurePosixPath(missing[0]).name}"
        findings.add("bag.incomplete", label, expected=f"{len(names)} files, as {_METADATA} says", found=found)
        return
    counted = _NUM_MESSAGES.search(text)
    if counted and int(counted[1]) > num_messages and not missing:
        expected = f"{counted[1]} messages, as {_METADATA} says"
        findings.add("bag.incomplete", label, expected=expected, found=f"{num_messages}")
