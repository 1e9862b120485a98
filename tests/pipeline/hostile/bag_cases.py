"""Hostile bags: those of ``tests/hostile_bags.py`` through the public command, and some of whole datasets."""

from __future__ import annotations

import pickle
import sqlite3
import tempfile
from functools import cache
from pathlib import Path
from struct import pack
from typing import Any

from bag_writing import START_NS, STATES, robot, store_of, write_json, write_ros2
from hostile_bags import KNOWN, MCAP, cdr, channel, mcap, message, record, schema, text, write_hostile
from lab import Lab, Payload, case


@cache
def _made() -> dict[str, bytes]:
    """Return every bag of ``hostile_bags`` by its name; making them takes seconds."""
    with tempfile.TemporaryDirectory() as folder:
        return {path.name: path.read_bytes() for path in write_hostile(Path(folder))}


def _written(lab: Lab, ending: str, *, in_folders: bool = False) -> None:
    """Write the bags whose names end so."""
    for name, content in _made().items():
        if name.endswith(ending):
            lab.file(f"{Path(name).stem}/{name}" if in_folders else name, content)


@case("bag", "nothing hostile", kept=True, schema="db3")
def _(lab: Lab) -> None:
    store = store_of(2)
    write_ros2(lab.raw / "ep", list(robot(store)), store)


@case(
    "bag",
    "MCAP files that lie about lengths, types and places",
    *next(iter(MCAP)).split(":")[:1],
    schema="mcap",
    limit_s=60,
)
def _(lab: Lab) -> None:
    _written(lab, ".mcap")


@case("bag", "bags of ROS 1 that lie about lengths, types and places", ".bag", schema="ros1", limit_s=60)
def _(lab: Lab) -> None:
    _written(lab, ".bag")


@case("bag", "SQLite files of views, triggers and blobs", ".db3", schema="db3", limit_s=60)
def _(lab: Lab) -> None:
    _written(lab, ".db3", in_folders=True)


@case("bag", "a file packed as a whole that unpacks to 1 GB", "file of 1 GB.db3.zstd", schema="db3 zstd", limit_s=60)
def _(lab: Lab) -> None:
    _written(lab, ".zstd")


@case("bag", "metadata.yaml that names files elsewhere", kept=True, schema="db3")
def _(lab: Lab) -> None:
    store = store_of(2)
    bag = write_ros2(lab.raw / "ep", list(robot(store)), store)
    secret = write_ros2(lab.outside / "s", list(robot(store, seed=9)), store) / "s.db3"
    metadata = bag / "metadata.yaml"
    metadata.write_text(
        metadata.read_text().replace("ep.db3", str(secret)) + f"  - ../../outside/s/s.db3\n  - {secret}\n"
    )


@case("bag", "metadata.yaml that is a bomb, code, or 64 MB", kept=True, schema="db3")
def _(lab: Lab) -> None:
    store = store_of(2)
    laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    code = f"!!python/object/apply:os.system ['touch {lab.executed}']\n"
    texts = [
        laughs,
        code,
        "relative_file_paths:\n" + "  - " * 2_000_000,
        "message_count: " + "9" * 100_000,
        "[" * 200_000,
    ]
    for i, content in enumerate(texts):
        bag = write_ros2(lab.raw / f"ep{i}", list(robot(store)), store)
        (bag / "metadata.yaml").write_text(content)


@case("bag", "attachments and metadata whose names lead elsewhere", "run.mcap", schema="mcap")
def _(lab: Lab) -> None:
    body = (
        pack("<QQ", START_NS, START_NS)
        + text("../../outside/new")
        + text("text/plain")
        + pack("<Q", 4)
        + b"data"
        + pack("<I", 0)
    )
    about = text("../../outside/new") + pack("<I", 0)
    lab.file("run.mcap", mcap(KNOWN, record(9, body), record(12, about), record(9, body, 1 << 50), message(cdr(1.0))))


@case("bag", "20000 topics, and 20000 types", "run.mcap", schema="mcap")
def _(lab: Lab) -> None:
    def one(i: int) -> bytes:
        return record(3, pack("<H", i) + text(f"lab/msg/A{i}") + text("ros2msg") + text("float64 x\n")) + record(
            4, pack("<HH", i, i) + text(f"/topic{i}") + text("cdr") + pack("<I", 0)
        )

    lab.file(
        "run.mcap",
        mcap(*map(one, range(1, 20_001)), *(message(b"\0\1\0\0" + bytes(8), of=i) for i in range(1, 20_001))),
    )


@case("bag", "topics whose names are control characters", "run.mcap", schema="mcap")
def _(lab: Lab) -> None:
    names = ["\x1b[2J", "a\nb", "\u202e", "", "x" * 100_000]
    records = [
        record(4, pack("<HH", i, 1) + text(name) + text("cdr") + pack("<I", 0)) for i, name in enumerate(names, 5)
    ]
    lab.file("run.mcap", mcap(schema(), *records, message(cdr(1.0), of=5)))


@case("bag", "messages that are pickles, or of a coding that nobody knows", "a.mcap", schema="mcap")
def _(lab: Lab) -> None:
    for i, encoding in enumerate(("pickle", "python", "", "x" * 1000, "\x1b[2J")):
        lab.file(f"{'abcde'[i]}.mcap", mcap(schema(), channel(encoding=encoding), message(pickle.dumps(Payload(lab)))))


@case("bag", "messages of JSON that are deep, endless, or of many lengths", "a.mcap", schema="mcap")
def _(lab: Lab) -> None:
    stamp = {"header": {"stamp": {"sec": 1, "nsec": 0}}}
    bad: list[Any] = [
        {"position": [1, 2, 3]},
        {**stamp, "position": "x" * 1_000_000},
        {**stamp, "position": [[1], [2, 3], 4]},
        [],
    ]
    bad += [
        {**stamp, "position": [1e400, 10**300, None]},
        {"header": {"stamp": {"sec": 1e300, "nsec": -5}}, "position": [1, 2, 3]},
    ]
    for i, content in enumerate(bad):
        write_json(lab.raw / f"{'abcdef'[i]}.mcap", [(STATES, START_NS + k, content) for k in range(5)])
    about = record(3, pack("<H", 1) + text("x") + text("jsonschema") + text("{}"))
    for i, content in enumerate(("[" * 200_000, '{"a":' * 100_000, "9" * 200_000, "{", "\0")):
        lab.file(f"{'ghijk'[i]}.mcap", mcap(about, channel(encoding="json"), message(content.encode())))


@case("bag", "stamps of the year 2500, of 1970, and falling ones", kept=True, schema="mcap")
def _(lab: Lab) -> None:
    for i, seconds in enumerate(([2**31 - 1] * 5, [-5, -4, -3], [5, 4, 3], [2**40, 2**41])):
        sent = [
            (STATES, START_NS + k, {"header": {"stamp": {"sec": s, "nsec": 10**9}}, "position": [1, 2, 3]})
            for k, s in enumerate(seconds)
        ]
        write_json(lab.raw / f"{'abcd'[i]}.mcap", sent)


@case("bag", "an SQLite file that attaches another, and whose log is a link", "ep", schema="db3", kept=True)
def _(lab: Lab) -> None:
    store = store_of(2)
    bag = write_ros2(lab.raw / "ep", list(robot(store)), store) / "ep.db3"
    other = lab.outside / "other.db3"
    sqlite3.connect(other).close()
    with sqlite3.connect(bag) as base:
        base.execute(f"CREATE VIEW more AS SELECT readfile('{lab.outside}/secret.txt')")
        base.execute("CREATE TRIGGER t AFTER INSERT ON messages BEGIN SELECT load_extension('/tmp/x.so'); END")
    Path(f"{bag}-wal").symlink_to(lab.outside / "secret.txt")
