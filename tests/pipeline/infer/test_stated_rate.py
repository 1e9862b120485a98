"""Finds the rate stated above a table. Infer uses this rate if no column is a clock."""

from __future__ import annotations

from pathlib import Path

import pytest
from inferring import asked, infer_and_ingest

from vlapipe import open_dataset
from vlapipe.pipeline.infer.text.stated_rate import stated_rate


@pytest.mark.parametrize(
    ("lines", "rate_hz"),
    [
        (["// Sample rate: 50.0Hz"], 50.0),
        (["Format 1.2,Capture Frame Rate,119.88,Export Frame Rate,119.88"], 119.88),
        (["Sampling Frequency (Hz): 100"], 100.0),
        (["# rate = 1 kHz", "# rows: 7"], 1000.0),
        (["Sample rate: 50", "Frame rate: 60"], None),  # whose is the table?
        (["Baud rate: 9600", "Filter frequency: 50 Hz"], None),
        (["Rates of 3 arms", "rate 1.2.3", "Generate 5"], None),
    ],
)
def test_a_rate_is_told_from_other_numbers(lines: list[str], rate_hz: float | None) -> None:
    found = stated_rate(lines)
    assert (found and found.rate_hz) == rate_hz


def test_packets_come_at_the_rate_that_stands_above_them(tmp_path: Path) -> None:
    rows = "".join(f"{70 + i + (i > 20)},{i * 7 % 5},{i * 3 % 5},{i * 2 % 7}\n" for i in range(40))
    text = "// Sample rate: 119.88Hz\nPacketCounter,Acc_X,Acc_Y,Acc_Z\n" + rows
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "imu.csv").write_text(text)
    inferred, _ = infer_and_ingest(tmp_path / "lab", tmp_path / "out")
    assert asked(inferred, "rows a second") == set()
    assert any("the lines above state: 'rate: 119.88Hz'" in reason for reason in inferred.reasons)
    stamps = open_dataset(tmp_path / "out").episode(0)["robot/timestamp"]
    assert stamps[[0, 1, 39]].tolist() == [round(n * 10**11 / 11988) for n in (70, 71, 110)]
