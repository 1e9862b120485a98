"""Opens one topic of a bag: the members of its messages are the arrays, and ``received`` is when they came."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlapipe.pipeline.read.bags.definitions import types_of
from vlapipe.pipeline.read.bags.json_messages import JsonMessages
from vlapipe.pipeline.read.bags.messages import Messages, pick_of
from vlapipe.pipeline.read.bags.recording import Recording
from vlapipe.pipeline.read.bags.together import recording_of, take_topic
from vlapipe.pipeline.read.bags.topics import Topic
from vlapipe.pipeline.read.containers.arrays import ArrayEntry
from vlapipe.pipeline.read.refused import RefusedError
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.toml_table import did_you_mean

__all__ = ["RECEIVED", "arrays_of", "open_bag", "open_topic"]

RECEIVED = "received"
_FRAMES = ("tf2_msgs/msg/TFMessage", "tf2_msgs/TFMessage", "tf/tfMessage")


def open_bag(root: Path, files: list[str], topic: str, findings: Findings) -> dict[str, ArrayEntry] | None:
    """Returns the arrays of a topic by name; ``None`` with a finding if there are none.

    Args:
        root: the dataset's folder.
        files: the bag's files, relative to ``root``: one, or all splits of it.
        topic: the topic's name.
        findings: collects the faults.
    """
    opened = open_topic(root, files, topic, findings)
    if opened is None:
        return None
    label, kept = opened
    if kept.kind.type in _FRAMES:
        expected = "a topic of one pose, such as geometry_msgs/PoseStamped"
        found = f"{topic} of {kept.kind.type}: transforms between many frames"
        findings.add("bag.type", label, column=topic, expected=expected, found=found)
        return None
    try:
        return arrays_of(kept, label)
    except RefusedError as error:
        findings.add(error.code, label, column=topic, expected=error.expected, found=error.found)
        return None


def arrays_of(topic: Topic, label: str) -> dict[str, ArrayEntry]:
    """Returns the arrays of a topic whose messages were kept; ``label`` names the bag.

    Raises:
        RefusedError: its type is not known.
    """
    messages = JsonMessages(topic) if topic.kind.encoding == "json" else Messages(topic, types_of(topic.kind))
    return _Arrays(label, messages)


def open_topic(root: Path, files: list[str], topic: str, findings: Findings) -> tuple[str, Topic] | None:
    """Returns a topic that has messages of one readable kind, after its bag's label; ``None`` with a finding else."""
    recording = recording_of(root, files, topic, findings)
    if recording is None:
        return None
    found = recording.topics.get(topic)
    if found is None:
        _report_missing(recording, topic, findings)
    elif not found.num_messages:
        expected = f"messages of {topic}"
        findings.add("bag.no_messages", recording.label, column=topic, expected=expected, found="none")
    elif found.other_type is not None:
        types = f"{found.kind.type} and {found.other_type}"
        findings.add("bag.type", recording.label, column=topic, expected="messages of one type", found=types)
    elif found.kind.encoding not in ("ros1", "cdr", "json"):
        expected = "messages of ROS 1, ROS 2 (cdr) or JSON"
        found_text = f"{topic} of {found.kind.encoding or 'no encoding'} ({found.kind.type})"
        findings.add("bag.type", recording.label, column=topic, expected=expected, found=found_text)
    else:
        return recording.label, take_topic(recording, files, topic)
    return None


def _report_missing(recording: Recording, topic: str, findings: Findings) -> None:
    near = did_you_mean(topic, recording.topics)
    near = f"{near} " if near.startswith("did you") else ""
    found = f"{near}The bag has {recording.listed()}"
    findings.add("bag.missing_topic", recording.label, column=topic, expected=f"the topic {topic}", found=found)


class _Arrays(dict[str, ArrayEntry]):
    """The arrays of a topic. Those with brackets in their names are found too, but not listed."""

    def __init__(self, label: str, messages: Messages | JsonMessages) -> None:
        topic = messages.topic
        paths = messages.paths() if isinstance(messages, JsonMessages) else messages.types.paths()
        super().__init__({path: ArrayEntry(file=label, load=_loader(messages, path)) for path in paths})
        self[RECEIVED] = ArrayEntry(file=label, load=_cut(lambda: topic.times))
        self._label = label
        self._messages = messages

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name) or not isinstance(name, str):
            return isinstance(name, str)
        if isinstance(self._messages, JsonMessages):
            return self._messages.has(name)
        picked = pick_of(name)
        return any(self._messages.types.find(each) is not None for each in (name, picked[0] if picked else name))

    def __missing__(self, name: str) -> ArrayEntry:
        if name not in self:
            raise KeyError(name)
        return ArrayEntry(file=self._label, load=_loader(self._messages, name))


def _loader(messages: Messages | JsonMessages, path: str) -> Callable[[slice | None], Any]:
    return _cut(lambda: messages.array(path))


def _cut(load: Callable[[], Any]) -> Callable[[slice | None], Any]:
    return lambda rows: load() if rows is None else load()[rows]
