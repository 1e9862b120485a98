"""Decoding bytes to text: archives, encodings, and files that are not text."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pytest

from vlapipe.pipeline.read.text import count_lines, read_bytes, read_text
from vlapipe.schemas.findings import Finding, Findings

TABLE = b"t,a\n0,1\n"


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/").replace("_csv", ".csv").replace("MAC", "__MACOSX"), data)
    return buffer.getvalue()


def read(raw: bytes, encoding: str = "utf-8") -> tuple[bytes | None, list[Finding]]:
    findings = Findings()
    return read_text(raw, encoding, "x.csv", findings), list(findings)


GOOD = {
    "plain": (TABLE, "utf-8"),
    "byte order mark": (b"\xef\xbb\xbf" + TABLE, "utf-8"),
    "zip": (zipped(a_csv=TABLE), "utf-8"),
    "zip beside what a Mac adds": (zipped(a_csv=TABLE, **{"MAC__a_csv": b"x", ".hidden": b"y"}), "utf-8"),
    "gzip": (gzip.compress(TABLE), "utf-8"),
    "gzip in two parts": (gzip.compress(TABLE[:3]) + gzip.compress(TABLE[3:]), "utf-8"),
    "utf-16 with a mark": (TABLE.decode().encode("utf-16"), "utf-16"),
    "utf-16 without": (TABLE.decode().encode("utf-16-le"), "utf-16-le"),
    "utf-16-le with a mark all the same": (("\ufeff" + TABLE.decode()).encode("utf-16-le"), "utf-16-le"),
    "ascii in latin-1": (TABLE, "iso8859-1"),
}


@pytest.mark.parametrize("case", GOOD)
def test_text_comes_out_as_utf8(case: str) -> None:
    text, findings = read(*GOOD[case])
    assert text == TABLE, findings
    assert not findings


def test_bytes_of_another_encoding_are_translated() -> None:
    text, _ = read("t,é\n0,€\n".encode("cp1252"), "cp1252")
    assert text == "t,é\n0,€\n".encode()


# raw, encoding, code, line
BAD = {
    "nothing": (b"", "utf-8", "csv.empty", None),
    "white space": (b" \n\r\n", "utf-8", "csv.empty", None),
    "zeros": (b"t,a\r\n0,1\r\n\0\0\0", "utf-8", "csv.nul_bytes", 3),
    "not utf-8": (b"t\n0\n\xe9\n", "utf-8", "csv.encoding", 3),
    "character cut off at the end": ("t\n0\né".encode()[:-1], "utf-8", "csv.encoding", 3),
    "not ascii": (b"t\r0\r\xe9\r", "ascii", "csv.encoding", 3),
    "unused byte of cp1252": (b"t\n\x81\n", "cp1252", "csv.encoding", 2),
    "utf-16 where utf-8 is declared": ("t,a\n".encode("utf-16"), "utf-8", "csv.encoding", 1),
    "utf-32 where utf-8 is declared": ("t,a\n".encode("utf-32"), "utf-8", "csv.encoding", 1),
    "half a character of utf-16": (b"\xff\xfea", "utf-16", "csv.encoding", 1),
    "no encoding of text": (b"6162", "hex", "csv.encoding", None),
    "zip of two tables": (zipped(a_csv=TABLE, b_csv=TABLE), "utf-8", "file.archive", None),
    "zip of nothing": (zipped(), "utf-8", "file.archive", None),
    "zip cut short": (zipped(a_csv=TABLE)[:40], "utf-8", "file.archive", None),
    "gzip cut short": (gzip.compress(TABLE)[:-4], "utf-8", "file.archive", None),
    "bomb": (zipped(a_csv=bytes(80 << 20)), "utf-8", "file.too_large", None),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_text_is_refused(case: str) -> None:
    raw, encoding, code, line = BAD[case]
    text, findings = read(raw, encoding)
    assert text is None
    assert [(f.code, f.line) for f in findings] == [(code, line)]


def test_mark_of_another_encoding_names_the_cure() -> None:
    _, findings = read("t,a\n".encode("utf-16"))
    assert "encoding = 'utf-16'" in findings[0].found


def test_invalid_byte_far_inside_a_large_file_is_placed() -> None:
    # é lies across the border of the pieces in which the text is checked.
    raw = b"x" * ((1 << 22) - 1) + "é\n".encode() + b"\xc3("
    _, findings = read(raw)
    assert [(f.code, f.line) for f in findings] == [("csv.encoding", 2)]


def test_encrypted_zip_is_refused() -> None:
    raw = bytearray(zipped(a_csv=TABLE))
    raw[6] |= 1  # the flag of encryption, in both places that have it
    raw[raw.rindex(b"PK\x01\x02") + 8] |= 1
    _, findings = read(bytes(raw))
    assert [f.code for f in findings] == ["file.archive"]


def test_lines_are_counted_as_an_editor_does() -> None:
    text = b"a\nb\r\nc\rd\n\re"
    assert count_lines(text, 0, len(text)) == 5
    long = text * 100_000
    assert count_lines(long, 0, len(long)) == 500_000


def test_file_that_is_not_there(tmp_path: Path) -> None:
    findings = Findings()
    assert read_bytes(tmp_path / "x.csv", "x.csv", findings) is None
    assert [f.code for f in findings] == ["file.unreadable"]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_fault_of_a_utf16_file_is_placed_by_its_lines(newline: str) -> None:
    text = newline.join(f"{i};1" for i in range(50))
    findings = Findings()
    assert read_text(text.encode("utf-16")[:-1], "utf-16", "x.csv", findings) is None
    (finding,) = findings
    assert finding.line == 50
    assert "cut short" in finding.found
