"""The topics of a bag. Messages of wanted topics are kept as they were recorded; others are only counted."""

from __future__ import annotations

from array import array
from collections.abc import Container
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.long_images import Pieces
from vlapipe.pipeline.read.bags.unpack import MOST_AT_ONCE, ZSTD_MAGIC, unpack
from vlapipe.pipeline.read.refused import RefusedError

__all__ = ["Kind", "Topic", "Topics"]

# More than this is not kept of one bag: a few KB of a hostile file unpack to any size.
_ALWAYS_KEPT, _MOST_KEPT = 384 << 20, 16


@dataclass(frozen=True)
class Kind:
    """How the messages of a topic are written: the type's name, their encoding, and the type's definition.

    ``encoding`` is ``ros1``, ``cdr`` (ROS 2), ``json``, or one that is not read. ``form`` is the language of the
    definition: ``msg``, ``idl``, or an empty text if the bag has no definition of the type.
    """

    type: str
    encoding: str
    form: str = ""
    definition: str = ""


@dataclass
class Topic:
    """The messages of one topic, in the order in which they were received; ``received`` is in ns since the epoch."""

    name: str
    kind: Kind
    is_wanted: bool
    num_messages: int = 0
    received: array[int] = field(default_factory=lambda: array("q"))
    payloads: Pieces = field(default_factory=Pieces)
    other_type: str | None = None  # a second type under the same name

    def sort(self) -> None:
        """Orders the messages by the times of their receipt; messages of one time keep their order."""
        times = self.times
        if (np.diff(times) < 0).any():
            order = np.argsort(times, kind="stable")
            self.received = array("q", times[order].tobytes())
            self.payloads.sort(order.tolist())

    @property
    def times(self) -> NDArray[np.int64]:
        """Returns the time at which each message was received, ``(messages,)`` in ns."""
        return np.array(self.received, dtype=np.int64)

    def place(self, number: int) -> str:
        """Returns how findings call a message: its number from 0, and its time."""
        return f"message {number} (received at {self.received[number] / 1e9:.6f} s)"


class Topics:
    """Collects the topics of a bag while its files are read one after the other."""

    def __init__(self, wanted: Container[str], num_bytes: int) -> None:
        self.by_name: dict[str, Topic] = {}
        self._wanted = wanted
        self._left = max(_ALWAYS_KEPT, _MOST_KEPT * num_bytes)

    def topic(self, name: str, kind: Kind) -> Topic:
        """Returns the topic with this name, which several publishers may share."""
        known = self.by_name.get(name)
        if known is None:
            known = self.by_name[name] = Topic(name, kind, name in self._wanted)
        elif (known.kind.type, known.kind.encoding) != (kind.type, kind.encoding):
            known.other_type = kind.type
        return known

    def add(self, topic: Topic, received: int, payload: bytes | memoryview) -> None:
        """Counts a message, and keeps it if its topic is wanted.

        Raises:
            RefusedError: the messages are more than the bag can hold.
        """
        topic.num_messages += 1
        if topic.is_wanted:
            kept = bytes(payload)
            if kept[:4] == ZSTD_MAGIC:  # ROS 2 packs single messages if asked to; no other message begins so
                kept = unpack(kept, "zstd", min(MOST_AT_ONCE, self._left), f"message {topic.num_messages - 1}")
            self._left -= len(kept)
            if self._left < 0:
                raise RefusedError("bag.damaged", "messages in proportion to the file", "many times as many bytes")
            topic.received.append(received)
            topic.payloads.append(kept)
