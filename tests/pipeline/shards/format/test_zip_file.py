"""Python's reader reads what the ZIP writer wrote, also beyond 4 GB and 65,535 members."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from vlapipe.pipeline.shards.format import zip_file as aligned_zip
from vlapipe.pipeline.shards.format.zip_file import ALIGNMENT, AlignedZip, Encoded, data_offset


def run(data: bytes) -> list[Encoded]:
    return [Encoded(data[:3], data[:3]), Encoded(data[3:], data[3:])]


@pytest.mark.parametrize("limit", [0xFFFF_FFFF, 100, 1], ids=["small", "some beyond the limit", "all beyond the limit"])
def test_members_read_back_also_where_numbers_need_64_bits(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lower limit makes the writer use ZIP64 fields where they are not needed; readers must follow them."""
    monkeypatch.setattr(aligned_zip, "_LIMIT", limit)
    file = io.BytesIO()
    members = {f"s/{i}": bytes([i]) * (i * 37 % 250) for i in range(20)}
    archive = AlignedZip(file.write)
    sizes = {name: archive.add(name, run(data)) for name, data in members.items()}
    archive.close()
    assert sizes == {name: len(data) for name, data in members.items()}
    with zipfile.ZipFile(file) as read:
        assert read.testzip() is None
        assert {name: read.read(name) for name in read.namelist()} == members
        assert all(data_offset(file, member) % ALIGNMENT == 0 for member in read.infolist())


@pytest.mark.slow
def test_more_members_and_bytes_than_32_bits_count(tmp_path: Path) -> None:
    block = bytes(1 << 20)
    with (tmp_path / "big.zip").open("wb") as file:
        archive = AlignedZip(file.write)
        archive.add("big", [Encoded(block, block)] * 4097)
        for i in range(66_000):
            archive.add(f"s/{i}", run(b"%d-xyz" % i))
        archive.close()
    with zipfile.ZipFile(tmp_path / "big.zip") as read:
        assert len(read.namelist()) == 66_001
        assert read.getinfo("big").file_size == 4097 << 20
        assert read.read("s/65999") == b"65999-xyz"
