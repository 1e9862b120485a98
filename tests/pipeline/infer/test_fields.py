"""Guesses which columns form one field, the field's name, and its properties."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlapipe.pipeline.infer.columns.columns import Column, columns_of, split_unit
from vlapipe.pipeline.infer.columns.fields import FieldsGuess, guess_fields
from vlapipe.pipeline.infer.columns.groups import group_columns
from vlapipe.pipeline.infer.guess import FieldGuess
from vlapipe.pipeline.infer.text.dialect import look_at_table


def fields_of(folder: Path, columns: dict[str, list[object]]) -> FieldsGuess:
    path = folder / "log.csv"
    rows = [(i * 0.1, *cells) for i, cells in enumerate(zip(*columns.values(), strict=True))]
    path.write_text("\n".join([",".join(["clock", *columns]), *(",".join(map(str, row)) for row in rows)]) + "\n")
    table = look_at_table(path, "log.csv")
    assert table is not None
    found = columns_of(table)
    return guess_fields(found, ["clock"], found)


def one(guess: FieldsGuess) -> FieldGuess:
    (field,) = guess.fields
    return field


WAVE: list[object] = [0.5, 0.25, 0.75, 0.125, 0.5]


@pytest.mark.parametrize(
    ("names", "field"),
    [
        (["joint_1", "joint_2", "joint_3"], "joint_position"),
        (["q0", "q1", "q2"], "joint_position"),
        (["actual_q_0", "actual_q_1"], "joint_position"),
        (["JointPos_0", "JointPos_1"], "joint_position"),
        (["joint1.effort", "joint2.effort"], "joint_torque"),
        (["motor[0]", "motor[1]"], "motor"),
        (["pos_x", "pos_y", "pos_z"], "position"),
        (["tx", "ty", "tz"], "position"),
        (["accX", "accY", "accZ"], "acceleration"),
        (["X_Position", "Y_Position"], "position"),
        (["pose_x", "pose_y", "pose_z", "pose_a", "pose_b", "pose_r"], "pose"),
        (["roll", "pitch", "yaw"], "orientation"),
        (["CartVel_X_Dot", "CartVel_Y_Dot"], "cart_vel_dot"),
        (["grip width"], "grip_width"),
        (["-größe"], "grosse"),
        (["力"], "field"),
    ],
)
def test_columns_that_belong_together_are_one_field(names: list[str], field: str, tmp_path: Path) -> None:
    guess = one(fields_of(tmp_path, dict.fromkeys(names, WAVE)))
    assert (guess.columns, guess.name) == (tuple(names), field)


def test_interleaved_joints_are_two_fields(tmp_path: Path) -> None:
    names = [f"j{i}_{what}" for i in (1, 2, 3) for what in ("pos", "vel")]
    guess = fields_of(tmp_path, dict.fromkeys(names, WAVE))
    assert [field.columns for field in guess.fields] == [("j1_pos", "j2_pos", "j3_pos"), ("j1_vel", "j2_vel", "j3_vel")]


def test_arms_with_numbers_are_apart(tmp_path: Path) -> None:
    names = [f"arm{a}_joint_{j}" for a in (1, 2) for j in (1, 2, 3)]
    guess = fields_of(tmp_path, dict.fromkeys(names, WAVE))
    assert [field.columns for field in guess.fields] == [tuple(names[:3]), tuple(names[3:])]


@pytest.mark.parametrize("order", ["xyzw", "wxyz"])
def test_quaternion_is_known_by_names_and_length(order: str, tmp_path: Path) -> None:
    values = dict(zip("xyzw", (0.5, 0.5, 0.5, 0.5), strict=True))
    guess = one(fields_of(tmp_path, {f"q{axis}": [values[axis]] * 5 for axis in order}))
    assert (guess.quaternion, guess.normalize) == (order, False)


def test_four_numbers_that_are_not_of_length_1_are_no_quaternion(tmp_path: Path) -> None:
    assert one(fields_of(tmp_path, {f"q{axis}": [2.0, 3.5, 1.0] for axis in "xyzw"})).quaternion == ""


@pytest.mark.parametrize(("turn", "unit"), [(360.0, "deg"), (math.tau, "rad")])
def test_angle_that_comes_round_has_a_period(turn: float, unit: str, tmp_path: Path) -> None:
    yaw = [(value + turn / 2) % turn - turn / 2 for value in np.linspace(0, 1.5 * turn, 30)]
    guess = one(fields_of(tmp_path, {"yaw": yaw}))
    assert guess.period == (turn,)
    assert guess.unit == (unit,)


@pytest.mark.parametrize(
    ("name", "base", "unit"),
    [
        ("x [mm]", "x", "mm"),
        ("angle(deg)", "angle", "deg"),
        ("Winkel (°)", "Winkel", "deg"),
        ("pos_x_mm", "pos_x", "mm"),
        ("a [m s^-2]", "a", "m/s^2"),
        ("joint[3]", "joint[3]", ""),
        ("q_RS_w []", "q_RS_w", ""),
        ("v_s", "v_s", ""),
    ],
)
def test_unit_in_a_name(name: str, base: str, unit: str) -> None:
    assert split_unit(name) == (base, unit)


def test_text_counters_and_other_clocks_are_left_out_with_the_reason(tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {
        "x": WAVE,
        "state": list("abcde"),
        "seq": [4, 5, 6, 7, 8],
        "recv_time": [1.1, 1.2, 1.3, 1.4, 1.5],
        "none": [""] * 5,
    }
    guess = fields_of(tmp_path, columns)
    assert [field.name for field in guess.fields] == ["x"]
    assert dict(guess.drop) == {
        "state": "text",
        "seq": "counts or numbers rows",
        "recv_time": "another clock",
        "none": "empty",
    }


def test_instruction_is_kept_as_text(tmp_path: Path) -> None:
    guess = one(fields_of(tmp_path, {"instruction": ["pour the tea"] * 5}))
    assert (guess.dtype, guess.numeric) == ("text", False)


def test_lists_in_cells_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text('t,state\n1,"[0.1, 0.2]"\n2,"[0.3, 0.4]"\n')
    table = look_at_table(path, "log.csv")
    assert table is not None
    columns = columns_of(table)
    assert one(guess_fields(columns, ("t",), columns)).length == 2


def test_values_that_float32_would_make_equal_are_float64(tmp_path: Path) -> None:
    guess = fields_of(
        tmp_path, {"northing": [5_000_000 + i * 0.01 for i in range(9)], "ticks": [2**24 + i for i in range(9)]}
    )
    assert [field.dtype for field in guess.fields] == ["float64", "int64"]


def test_constant_column_is_kept_and_said(tmp_path: Path) -> None:
    guess = one(fields_of(tmp_path, {"force": [0.0] * 5}))
    assert any("never changes" in reason for reason in guess.reasons)


@given(names=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=12, unique=True))
def test_every_column_is_in_one_group(names: list[str]) -> None:
    columns = [Column(name, i, "number", ("1",), "", name, ".") for i, name in enumerate(names)]
    groups = group_columns(columns)
    assert sorted(c.position for group in groups for c in group.columns) == list(range(len(names)))
    assert all(group.name.isidentifier() and group.name.isascii() for group in groups)


def test_columns_that_often_miss_values_hide_none_beside_them(tmp_path: Path) -> None:
    """Heart rate at a ninth of the rate stands amid accelerometers, in a file without names."""
    rate: list[object] = ["100" if i % 9 == 0 else "NaN" for i in range(90)]
    wave: list[object] = [i % 7 + 0.25 for i in range(90)]
    guess = fields_of(tmp_path, {"c2": wave, "c3": rate, "c4": wave, "c5": ["NaN", *wave[1:]], "c6": wave})
    assert {field.name: (field.columns, field.on_missing) for field in guess.fields} == {
        "values": (("c2", "c4", "c5", "c6"), "mask"),
        "values_seldom": (("c3",), "mask"),
    }


def test_columns_that_miss_values_together_stay_one_field(tmp_path: Path) -> None:
    cells: list[object] = ["1.5" if i % 9 == 0 else "" for i in range(90)]
    guess = fields_of(tmp_path, {"gps_x": cells, "gps_y": cells, "gps_z": cells})
    assert (one(guess).columns, one(guess).on_missing) == (("gps_x", "gps_y", "gps_z"), "mask")


def test_whole_numbers_that_no_float_holds_are_a_field_of_their_own(tmp_path: Path) -> None:
    stamps: list[object] = [1_609_060_336_868_428_033 + i for i in range(5)]
    guess = fields_of(tmp_path, {"c1": WAVE, "c2": stamps, "c3": WAVE})
    assert [(field.columns, field.dtype) for field in guess.fields] == [(("c1", "c3"), "float32"), (("c2",), "int64")]


@pytest.mark.parametrize("text", ["-", "--", "N/A", "null", "None", "?"])
def test_a_column_of_numbers_with_a_sign_for_none_is_one_of_numbers(text: str, tmp_path: Path) -> None:
    guess = fields_of(tmp_path, {"force": [*WAVE, text, *WAVE]})
    assert (one(guess).on_missing, guess.missing, guess.drop) == ("mask", (text,), ())


def test_tx_beside_fx_is_a_torque(tmp_path: Path) -> None:
    guess = fields_of(tmp_path, dict.fromkeys(["Fx", "Fy", "Fz", "Tx", "Ty", "Tz"], WAVE))
    assert [field.name for field in guess.fields] == ["force", "torque"]


def test_four_numbers_of_length_1_are_no_joints(tmp_path: Path) -> None:
    guess = one(fields_of(tmp_path, {"q[0]": [1] * 5, "q[1]": [0] * 5, "q[2]": [0] * 5, "q[3]": [0] * 5}))
    assert (guess.name, guess.quaternion) == ("orientation", "wxyz")  # counted from the scalar on, as px4 and ABB do


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["TRUE", "FALSE", "TRUE"], (("TRUE", 1), ("FALSE", 0))),
        (["False", "False", "False"], (("True", 1), ("False", 0))),
        (["on", "off", "on"], (("on", 1), ("off", 0))),
        (["open", "open", "closed"], (("open", 1), ("closed", 0))),
        (["OPEN", "CLOSE", "OPEN"], (("OPEN", 1), ("CLOSE", 0))),
        (["Yes", "no", "no"], (("Yes", 1), ("No", 0), ("yes", 1), ("no", 0))),
    ],
)
def test_two_words_are_the_numbers_they_stand_for(
    cells: list[object], words: tuple[tuple[str, int], ...], tmp_path: Path
) -> None:
    field = one(fields_of(tmp_path, {"gripper": cells}))
    assert (field.columns, field.words, field.numeric) == (("gripper",), words, True)


@pytest.mark.parametrize("cells", [["TRUE", "OFF", "TRUE"], ["left", "right", "left"], ["True", "maybe", "False"]])
def test_other_words_are_text(cells: list[object], tmp_path: Path) -> None:
    assert fields_of(tmp_path, {"gripper": cells}).drop == (("gripper", "text"),)


def test_few_other_words_are_named_with_the_key_that_keeps_them(tmp_path: Path) -> None:
    cells: list[object] = ["open", "closing", "closed"] * 8
    ((name, why),) = fields_of(tmp_path, {"state": cells}).drop
    assert name == "state"
    assert 'words = { "open" = 0, "closing" = 1, "closed" = 2 }' in why
