"""Hostile tables, archives and JSON files."""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile

from bombs import deflated_zeros, gzipped_zeros, zip_of
from image_cases import CSV, JPEG, episode
from lab import MARKER, Lab, case

_BLANK_LINES = 200 << 20


def table(lab: Lab, content: bytes | str, name: str = "episode_1") -> None:
    """Write an episode whose table is this text."""
    lab.file(f"{name}/robot.csv", content)


@case("csv", "nothing hostile", kept=True)
def _(lab: Lab) -> None:
    episode(lab)


@case("csv", "a ZIP whose table unpacks to 8 GB", "episode_0/robot.zip")
def _(lab: Lab) -> None:
    for i, size in enumerate((8 << 30, 400)):
        lab.file(f"episode_{i}/robot.zip", zip_of(("robot.csv", deflated_zeros(8 << 30, -15), 8, size, 0)))


@case("csv", "a gzip file that unpacks to 8 GB", "episode_1/robot.csv.gz")
def _(lab: Lab) -> None:
    lab.file("episode_1/robot.csv.gz", gzipped_zeros(8 << 30))


@case("csv", "gzip in gzip in gzip", "episode_1/robot.csv.gz")
def _(lab: Lab) -> None:
    data = CSV.encode()
    for _ in range(50):
        data = gzip.compress(data)
    lab.file("episode_1/robot.csv.gz", data)


@case("csv", "a ZIP whose members lie elsewhere", kept=True)
def _(lab: Lab) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../outside/robot.csv", CSV)
    lab.file("episode_1/robot.zip", file.getvalue())


@case("csv", "a ZIP of ZIPs, of nothing, of links, with a password, by LZMA", "episode_1/robot.zip")
def _(lab: Lab) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("robot.csv", CSV)
    data = CSV.encode()
    for i in range(5):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            if i == 1:
                archive.writestr("robot.zip", inner.getvalue())
            elif i == 2:
                link = zipfile.ZipInfo("robot.csv")
                link.external_attr = 0o120777 << 16
                archive.writestr(link, str(lab.outside / "secret.txt"))
            elif i == 3:
                archive.writestr("a.csv", CSV)
                archive.writestr("b.csv", CSV)
        lab.file(f"episode_{i}/robot.zip", file.getvalue())
    lab.file(
        "episode_6/robot.zip",
        zip_of(("robot.csv", b"\x09\x04\x05\0\x5d\xff\xff\xff\xff" + bytes(99), 14, len(data), 0)),
    )
    lab.file("episode_7/robot.zip", zip_of(("robot.csv", data, 99, len(data), 0)))


@case("csv", "8 GB of holes after a good beginning", "episode_1/robot.csv")
def _(lab: Lab) -> None:
    table(lab, CSV)
    with (lab.raw / "episode_1/robot.csv").open("r+b") as file:
        file.truncate(8 << 30)


@case("csv", "8 GB of holes alone", "episode_1/robot.csv")
def _(lab: Lab) -> None:
    table(lab, b"")
    with (lab.raw / "episode_1/robot.csv").open("r+b") as file:
        file.truncate(8 << 30)


@case("csv", "300000 columns", "episode_1/robot.csv")
def _(lab: Lab) -> None:
    table(lab, ",".join(f"x{i}" for i in range(300_000)) + "\n" + ",".join("1" * 300_000) + "\n")


@case("csv", "a cell of 20 MB, and a line of 20 MB of quotes", "episode_1/robot.csv")
def _(lab: Lab) -> None:
    table(lab, CSV + "9" * 20_000_000 + ",1,2,3\n")
    table(lab, CSV + '"' * 20_000_001, "episode_2")


@case("csv", "a million blank lines, and a million commas", "episode_2/robot.csv")
def _(lab: Lab) -> None:
    table(lab, CSV + "\n" * 1_000_000)
    table(lab, CSV + "," * 1_000_000, "episode_2")


@case("csv", "texts in other encodings, zeros, control characters", "episode_1/robot.csv")
def _(lab: Lab) -> None:
    texts = [
        CSV.encode("utf-16"),
        CSV.encode("utf-32"),
        b"\0" * 1000,
        b"\xff" * 1000,
        b"t,a,b,c\n\x1b[2J,\x07,\x08,\r\n",
        b"\xef\xbb\xbf",
    ]
    for i, text in enumerate(texts):
        table(lab, text, f"episode_{i}")
    table(lab, CSV.encode("utf-16")[:-1], "episode_7")
    table(lab, "t,a,\x1b]0;x\x07,c\n1,2,3,4\n2,3,4,5\n", "episode_8")


@case("csv", "formulas, huge numbers, hexadecimal ones", "episode_0/robot.csv")
def _(lab: Lab) -> None:
    cells = [
        "=cmd|' /C calc'!A0",
        "9" * 5000,
        "1e999999999",
        "0x1p-2",
        "__import__('os')",
        "nan",
        "inf",
        "1_000",
        "\u0661",
    ]
    for i, cell in enumerate(cells):
        table(lab, f"{CSV}3.0,{cell},1,2\n", f"episode_{i}")


@case("csv", "stamps that are no time", "episode_0/robot.csv", "t")
def _(lab: Lab) -> None:
    for i, stamp in enumerate(("nan", "inf", "-inf", "1e300", "-1", "9" * 400, "")):
        table(lab, f"{CSV}{stamp},1,2,3\n", f"episode_{i}")


@case("csv", "a table that is a pipe, a folder, a device", kept=True)
def _(lab: Lab) -> None:
    episode(lab)
    for i in range(2, 5):
        (lab.raw / f"episode_{i}").mkdir()
    os.mkfifo(lab.raw / "episode_2/robot.csv")
    (lab.raw / "episode_3/robot.csv").symlink_to("/dev/zero")
    (lab.raw / "episode_4/robot.csv").mkdir()


@case("csv", "metadata: 100000 brackets, endless numbers, 100000 keys, no JSON", "episode_0/metadata.json")
def _(lab: Lab) -> None:
    keys = json.dumps({f"k{i}": i for i in range(100_000)})
    texts = [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"a": ' + "9" * 100_000 + "}",
        "",
        "\x00",
        "[]",
        '{"a": NaN, "b": 1e999}',
        keys,
    ]
    for i, text in enumerate(texts):
        episode(lab, f"episode_{i}")
        lab.file(f"episode_{i}/metadata.json", text)


@case("csv", "metadata of 4 GB of holes", "episode_1/metadata.json")
def _(lab: Lab) -> None:
    episode(lab)
    with lab.file("episode_1/metadata.json", '{"a": 1}').open("r+b") as file:
        file.truncate(4 << 30)


@case("csv", "metadata that is odd: keys and texts of templates and escapes", kept=True)
def _(lab: Lab) -> None:
    episode(lab)
    odd = {
        "__class__": "{__class__}", "instruction": "{metadata.__init__.__globals__} \x1b[2J\n\u202e", "../x": "../../x",
        "a.b": {"c": "d"}, "": 1, "\x1b[31m": "\ud800", "huge": "x" * 2_000_000, "nested": {"a": {"b": {"c": [1] * 10_000}}},  # noqa: E501
    }  # fmt: skip
    lab.file("episode_1/metadata.json", json.dumps(odd))


@case("csv", "an instruction of 4 GB of holes, of bytes, of a million lines", "episode_1/instruction.txt")
def _(lab: Lab) -> None:
    episode(lab)
    with lab.file("episode_1/instruction.txt", "pick").open("r+b") as file:
        file.truncate(4 << 30)
    episode(lab, "episode_2")
    lab.file("episode_2/instruction.txt", b"\xff\xfe\x00")
    episode(lab, "episode_3")
    lab.file("episode_3/instruction.txt", "pick\n" * 1_000_000)


@case("csv", "a clock's file that is odd", "episode_0/times.txt", schema="csv stamps")
def _(lab: Lab) -> None:
    texts = ["9" * 5000, "nan\n" * 30, "\0" * 100, "1e300\n" * 30, "[" * 100_000, "\n".join(map(str, range(29))), ""]
    for i, text in enumerate(texts):
        episode(lab, f"episode_{i}")
        for k in range(30):
            lab.file(f"episode_{i}/cam/{k:03d}.jpg", JPEG)
        lab.file(f"episode_{i}/times.txt", text)


@case("csv", "a clock's file of 4 GB of holes", "episode_1/times.txt", schema="csv stamps")
def _(lab: Lab) -> None:
    episode(lab)
    for k in range(30):
        lab.file(f"episode_1/cam/{k:03d}.jpg", JPEG)
    with lab.file("episode_1/times.txt", "1\n2\n").open("r+b") as file:
        file.truncate(4 << 30)


@case("csv", "rows that are JSON files, 100000 deep, or huge", "rows/1.json", schema="json rows")
def _(lab: Lab) -> None:
    texts = [
        "[" * 100_000,
        '{"t": ' + "9" * 100_000 + "}",
        '{"a":' * 100_000,
        "[]",
        '{"t": 1, "a": NaN}',
        json.dumps({"t": [1] * 100_000}),
    ]
    for i, text in enumerate(texts):
        for k in range(3):
            lab.file(f"episode_{i}/rows/{k}.json", json.dumps({"t": k, "a": 1, "b": 2, "c": 3}) if k != 1 else text)


@case("csv", "folders in folders, 400 deep, and links in circles", kept=True)
def _(lab: Lab) -> None:
    episode(lab)
    deep = lab.raw
    for _ in range(400):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (lab.raw / "up").symlink_to(".")
    for i in range(9):  # 2 ** 9 ways through links that lead to each other
        folder = lab.raw / f"l{i}"
        folder.mkdir()
        (folder / "a").symlink_to(f"../l{i + 1}")
        (folder / "b").symlink_to(f"../l{i + 1}")


@case("csv", "a link to a folder elsewhere", "episode_2", "a link to", "outside", kept=True)
def _(lab: Lab) -> None:
    episode(lab)
    (lab.root / "elsewhere/outside").mkdir(parents=True)
    (lab.root / "elsewhere/outside/robot.csv").write_text(CSV)
    (lab.raw / "episode_2").symlink_to(lab.root / "elsewhere/outside")


@case("csv", "5000 files that nobody asked for", kept=True)
def _(lab: Lab) -> None:
    episode(lab)
    for i in range(5000):
        (lab.raw / f"episode_1/{i}.bin").write_bytes(MARKER[:1])
