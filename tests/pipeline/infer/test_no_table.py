"""A file that cannot be read as a table of numbers is refused, and the message gives the real reason."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from vlapipe.pipeline.infer.infer import infer_schema
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema

ROWS = range(40)


def refusal(folder: Path) -> str:
    with pytest.raises(UsageError) as error:
        infer_schema(folder)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("log.csv", "".join(f"#{i / 10},{i},2.5\n" for i in ROWS), "each line begins with '#'"),
        ("log.csv", "".join(f"\n% {i} 2.5" for i in ROWS), "line 2: '% 0 2.5'"),
        ("log.csv", "".join(f"x:{i}.5,y:{i}.25\n" for i in ROWS), "'x:1.5', which has its name beside it"),
        (
            "log.txt",
            "t x\n" + "".join(f"0.{i}D+00 1.5D+03\n" for i in ROWS),
            "line 2: no cell is a number, such as '0.0D+00'",
        ),
        ("log.csv", "time,joint\n", "there is one line only; line 1 is 'time,joint'"),
        ("log.csv", "left,right\n" + "up,down\n" * 9, "line 2: no cell is a number, such as 'up'"),
        ("log.csv", "t,x\n" + "".join(f"0.{i},{i} mm\n" for i in ROWS), "'x' holds text, such as '0 mm' in line 2"),
        ("log.csv", "", "log.csv is empty"),
        ("log.csv", "\x1c", "nothing but blanks"),
        ("log.csv", "t,x\n\0\n1,2\n", "zero byte"),
        ("log.csv", "one line without an end of it", "one line only"),
        ("log.dat", "".join(f"at {i} it went left; {'then right ' * (i % 7)}\n" for i in ROWS), "log.dat"),
    ],
)
def test_a_file_that_is_no_table_is_refused_for_its_true_reason(
    name: str, text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(text.encode())
    assert said in refusal(tmp_path)


def test_a_packed_file_that_cannot_be_unpacked_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(b"t,x\n0,1\n" * 999)[:20])
    assert "log.csv.gz cannot be read" in refusal(tmp_path)


def test_a_folder_without_text_says_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\0\0")
    assert "only .png" in refusal(tmp_path)


def test_a_column_of_fortran_numbers_is_left_out_by_name(tmp_path: Path) -> None:
    text = "time,joint_1,force\n" + "".join(f"{i / 10},{i * 0.5},{i}.25D+01\n" for i in ROWS)
    (tmp_path / "log.csv").write_text(text)
    assert any("'force'" in reason and "Fortran" in reason for reason in infer_schema(tmp_path).reasons)


def test_a_commanded_switch_alone_is_not_the_action(tmp_path: Path) -> None:
    switch = ["ON", "OFF"]
    rows = "".join(f"{i / 10},{i * 0.5},{i * 0.25},{switch[i // 9 % 2]}\n" for i in ROWS)
    (tmp_path / "log.csv").write_text("time,joint_1,joint_2,grip_cmd\n" + rows)
    action = parse_schema(infer_schema(tmp_path).toml, "inferred").action
    assert action is not None
    assert [path.partition("/")[2] for path in action.of] == ["joint_position"]
