"""Reads the SQLite file of a ROS 2 bag. Only tables are read: a hostile file may hold views that compute any rows."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from vlapipe.pipeline.read.bags.byte_source import cut_short
from vlapipe.pipeline.read.bags.topics import Kind, Topic, Topics
from vlapipe.pipeline.read.bags.unpack import MOST_AT_ONCE
from vlapipe.pipeline.read.refused import RefusedError

__all__ = ["SQLITE_MAGIC", "read_sqlite"]

SQLITE_MAGIC = b"SQLite format 3\0"
_FORMS = {"ros2msg": "msg", "ros2idl": "idl"}
_LARGEST_PAGE = 65536  # written as 1
_LOGS = ("-wal", "-journal")  # messages that the recorder had not yet written into the file


def read_sqlite(path: Path, topics: Topics) -> None:
    """Adds the topics and messages of a file to ``topics``.

    Raises:
        RefusedError: the file is damaged, or was not closed by its recorder. What could be read has been added.
    """
    _check_size(path)
    try:
        # Immutable: SQLite neither takes a lock nor writes beside the file.
        base = sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)
        try:
            base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_AT_ONCE)
            base.execute("PRAGMA trusted_schema = OFF")
            _read(base, topics)
        finally:
            base.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise RefusedError("bag.damaged", "the SQLite file of a ROS 2 bag", str(error)) from None
    for ending in _LOGS:
        log = path.with_name(path.name + ending)
        if log.is_file() and log.stat().st_size:
            raise cut_short(f"{log.name} beside it, with messages that are not yet in the file")


def _check_size(path: Path) -> None:
    """Checks that the file has the pages that its header states; SQLite misses only pages that a query reads."""
    with path.open("rb") as file:
        header = file.read(32)
    page_size, num_pages = int.from_bytes(header[16:18]), int.from_bytes(header[28:32])
    expected = num_pages * (_LARGEST_PAGE if page_size == 1 else page_size)
    if path.stat().st_size < expected:
        raise cut_short(f"{path.stat().st_size} bytes of {expected}")


def _read(base: sqlite3.Connection, topics: Topics) -> None:
    tables = dict(base.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall())
    for name in ("topics", "messages"):
        words = str(tables.get(name, "")).upper()
        if not words.startswith("CREATE TABLE") or " AS (" in words or " AS(" in words:
            raise RefusedError("bag.damaged", f"a table {name!r}", "none in the file")
    definitions: dict[str, tuple[str, str]] = {}
    if "message_definitions" in tables:
        query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
        definitions = {name: (_FORMS.get(form, form), text) for name, form, text in base.execute(query)}
    found: dict[int, Topic] = {}
    for number, name, of_type, encoding in base.execute("SELECT id, name, type, serialization_format FROM topics"):
        form, definition = definitions.get(of_type, ("", ""))
        found[number] = topics.topic(str(name), Kind(str(of_type), str(encoding), str(form), str(definition)))
    for number, count in base.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id").fetchall():
        if number not in found:
            raise RefusedError("bag.damaged", "messages of the topics in the file", f"some of topic {number!r:.40}")
        if not found[number].is_wanted:
            found[number].num_messages += count
    wanted = [number for number, topic in found.items() if topic.is_wanted]
    signs = ",".join("?" * len(wanted))
    query = f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({signs})"  # noqa: S608 - only ?
    for number, received, data in base.execute(query, wanted):
        if not isinstance(received, int) or not isinstance(data, bytes):
            raise RefusedError("bag.damaged", "times as whole numbers and messages as bytes", f"{received!r:.40}")
        topics.add(found[number], received, data)
