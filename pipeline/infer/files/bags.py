"""Says which topics a bag has, and the lines of a schema that read one of them. No message is decoded."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from vlapipe.pipeline.discover.file_kinds import kind_that_reads
from vlapipe.pipeline.discover.file_tree import FileTree
from vlapipe.pipeline.read.bags.recording import topics_at_start

__all__ = ["why_no_table_but_bags"]

_MAX_LISTED = 8
# By words in their types, most telling first.
_MEMBERS = {"jointstate": "position", "pose": "pose", "odometry": "pose.pose", "twist": "twist", "wrench": "wrench"}


def why_no_table_but_bags(tree: FileTree) -> tuple[str, str] | None:
    """Return what the bags of a folder without tables hold, and the lines that read them; ``None`` without bags."""
    bags = sorted(path for path in tree.files if kind_that_reads(path) == "bag")
    if not bags:
        return None
    topics = {topic.name: topic.kind.type or topic.kind.encoding for topic in topics_at_start(tree.root / bags[0])}
    listed = [f"{topic} ({kind})" for topic, kind in list(topics.items())[:_MAX_LISTED]]
    more = f" and {len(topics) - _MAX_LISTED} more" if len(topics) > _MAX_LISTED else ""
    has = f", with the topics {', '.join(listed)}{more}" if listed else ""
    what = f"{len(bags)} bag{'s' if len(bags) > 1 else ''}, such as {bags[0]}{has}"
    fitting = ((name, own) for word, own in _MEMBERS.items() for name, kind in topics.items() if word in kind.lower())
    robot, array = next(fitting, ("/TOPIC", "MEMBER"))
    suffix = PurePosixPath(bags[0]).suffix
    cure = (
        'write schema_version = 1, name = "mine", anchor = "robot", [episodes] per_file = true, and a stream a topic: '
        f'[streams.robot] kind = "bag", files = ["*{suffix}"], topic = {json.dumps(robot)}, '
        f'time = {{ array = "header.stamp" }}, fields.v = {{ array = "{array}", shape = [6] }}; a camera is '
        '[streams.camera] kind = "images" with files, topic and time as well'
    )
    return what, cure
