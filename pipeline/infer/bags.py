"""Says which topics a bag has, and the lines of a schema that read one of them. No message is read."""

from __future__ import annotations

import importlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path, PurePosixPath

from vlapipe.pipeline.discover.file_kinds import kind_that_reads
from vlapipe.pipeline.discover.file_tree import FileTree

__all__ = ["why_no_table_but_bags"]

_MAX_LISTED = 8
_OF_ROBOT = ("jointstate", "pose", "odometry", "twist", "wrench")


def why_no_table_but_bags(tree: FileTree) -> tuple[str, str] | None:
    """Return what the bags of a folder without tables hold, and the lines that read them; ``None`` without bags."""
    bags = sorted(path for path in tree.files if kind_that_reads(path) == "bag")
    if not bags:
        return None
    topics = _topics(tree.root / bags[0])
    listed = [f"{topic} ({kind})" for topic, kind in list(topics.items())[:_MAX_LISTED]]
    more = f" and {len(topics) - _MAX_LISTED} more" if len(topics) > _MAX_LISTED else ""
    has = f", with the topics {', '.join(listed)}{more}" if listed else ""
    what = f"{len(bags)} bag{'s' if len(bags) > 1 else ''}, such as {bags[0]}{has}"
    robot = next((name for name, kind in topics.items() if any(word in kind.lower() for word in _OF_ROBOT)), "/TOPIC")
    suffix = PurePosixPath(bags[0]).suffix
    cure = (
        'write schema_version = 1, name = "mine", anchor = "robot", [episodes] per_file = true, and a stream a topic: '
        f'[streams.robot] kind = "bag", files = ["*{suffix}"], topic = {json.dumps(robot)}, '
        'time = { array = "header.stamp" }, fields.v = { array = "MEMBER", shape = [6] }; a camera is '
        '[streams.camera] kind = "images" with files, topic and time as well'
    )
    return what, cure


def _topics(path: Path) -> dict[str, str]:
    """Return the type of each topic by its name; empty if the bag, or its index, cannot be read."""
    try:
        if path.suffix.lower() == ".db3":
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
                return {str(name): str(kind) for name, kind in database.execute("SELECT name, type FROM topics")}
        if path.suffix.lower() == ".mcap":
            with path.open("rb") as file:
                summary = importlib.import_module("mcap.reader").make_reader(file).get_summary()
            named = {} if summary is None else {i: schema.name for i, schema in summary.schemas.items()}
            channels = [] if summary is None else summary.channels.values()
            return {channel.topic: named.get(channel.schema_id, "?") for channel in channels}
        with importlib.import_module("rosbags.rosbag1").Reader(path) as bag:
            return {connection.topic: connection.msgtype for connection in bag.connections}
    except Exception:  # noqa: BLE001 - without the package, or with a damaged bag, its topics are not told
        return {}
