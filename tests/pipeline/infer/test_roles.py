"""Chooses action and state: all of the command, all that moves together, and nothing that leaks the action."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inferring import text_of

from vlapipe.pipeline.infer.infer import infer_schema
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.schema import CsvStream, Schema

ROWS = 60
LAG = 3  # rows by which a command leads
WAVE = np.round(np.cumsum(np.random.default_rng(3).normal(0, 0.05, (ROWS + LAG, 16)), axis=0), 4)
UR = ("shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint", "wrist_1_joint", "wrist_2_joint", "wrist_3_joint")
SO = ("shoulder_pan.pos", "shoulder_lift.pos", "elbow_flex.pos", "wrist_flex.pos", "wrist_roll.pos", "gripper.pos")
VIPERX = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")


def numbered(*patterns: str, count: int = 6) -> list[str]:
    return [pattern.format(i) for pattern in patterns for i in range(count)]


def inferred(folder: Path, names: list[str], **other: list[str]) -> tuple[Schema, tuple[str, ...]]:
    """Infer from a table of these columns. Columns of ``other`` are kept back as cells of text."""
    half = names[: len(names) // 2]
    lines = []
    for i in range(ROWS):
        row: list[object] = [f"{i * 0.02:.2f}"]
        for k, name in enumerate(names):
            ahead = LAG if name not in half and len(names) > 6 else 0  # the second half of the columns leads
            row.append(float(WAVE[i + ahead, k % len(half) if ahead else k % 16]))
        lines.append([*row, *(cells[i] for cells in other.values())])
    folder.mkdir(parents=True)
    (folder / "log.csv").write_text(",".join(["time", *names, *other]) + "\n" + text_of(lines))
    found = infer_schema(folder)
    assert not found.faults
    return parse_schema(found.toml, "inferred"), found.questions


def columns_of(schema: Schema, paths: tuple[str, ...]) -> set[str]:
    stream = schema.anchor_stream
    assert isinstance(stream, CsvStream)
    fields = {f"{stream.name}/{field.name}": field for field in stream.fields}
    return {names[0] for path in paths for names in fields[path].columns}


@pytest.mark.parametrize(
    "names",
    [
        UR,
        SO,
        ("base", "shoulder", "elbow", "wrist_1", "wrist_2", "wrist_3"),
        tuple(f"{side}_{joint}" for side in ("left", "right") for joint in VIPERX),
        tuple(f"left_{joint}" for joint in ("s0", "s1", "e0", "e1", "w0", "w1", "w2")),
        tuple(f"A{i}" for i in range(1, 8)),
        tuple(f"panda_joint{i}" for i in range(1, 8)),
        tuple(f"J{i} (deg)" for i in range(1, 7)),
        tuple(f"Achse{i}" for i in range(1, 7)),
    ],
    ids=lambda names: names[0],
)
def test_all_joints_and_grippers_are_state_and_action(names: tuple[str, ...], tmp_path: Path) -> None:
    schema, questions = inferred(tmp_path / "lab", list(names))
    assert columns_of(schema, schema.action.of) == set(names)
    assert schema.action.kind == "absolute"
    assert columns_of(schema, schema.sample.state) == set(names)
    assert (schema.sample.state_rows, questions) == (1, ())


@pytest.mark.parametrize(
    ("measured", "command"),
    [
        ("actual_q_{}", "target_q_{}"),
        ("q[{}]", "q_d[{}]"),
        ("measured_{}", "desired_{}"),
        ("jointPosActual{}", "jointPosRef{}"),
        ("q_meas_{}", "q_setpoint_{}"),
        ("observation.state.{}", "action.{}"),
        ("follower.joint_{}", "leader.joint_{}"),
        ("puppet/q{}", "master/q{}"),
        ("Achse{}.Istposition", "Achse{}.Sollposition"),
        ("mesure_q{}", "consigne_q{}"),
        ("fb_{}", "cmd_{}"),
        ("qpos_{}", "ctrl_{}"),
        ("joint_pos:j{}", "joint_pos_target:j{}"),
        ("feedback_joint_{}", "planned_joint_{}"),
    ],
)
def test_commands_are_the_action_and_no_state(measured: str, command: str, tmp_path: Path) -> None:
    schema, questions = inferred(tmp_path / "lab", numbered(measured, command))
    assert (schema.action.kind, questions) == ("column", ())
    assert columns_of(schema, schema.action.of) == set(numbered(command))
    assert columns_of(schema, schema.sample.state) == set(numbered(measured))


@pytest.mark.parametrize("other", ["joint_error_{}", "pred_{}", "gt_joint_{}", "tracking_error_{}", "Fehler_{}"])
def test_errors_and_predictions_are_neither(other: str, tmp_path: Path) -> None:
    schema, questions = inferred(tmp_path / "lab", numbered("joint_{}", other))
    assert columns_of(schema, schema.action.of) == set(numbered("joint_{}"))
    assert columns_of(schema, schema.sample.state) == set(numbered("joint_{}"))
    assert questions == ()


@pytest.mark.parametrize(
    ("names", "asks"),
    [
        ([*numbered("joint_{}", count=7), "gripper_cmd"], "moves?|move"),
        ([*numbered("left_joint_{}", "right_joint_{}"), *numbered("left_target_{}")], "right arm moves too"),
        ([*numbered("actual_q_{}"), "gripper_pos", *numbered("target_q_{}")], "gripper is not commanded"),
        ([*numbered("joint_{}"), *numbered("target_joint_{}", count=5)], "6 joints move and 5 are commanded"),
        (["pressure", "flow_a", "level"], "no name says what the robot moves"),
        ([f"cmd_{i}" for i in range(4)], "only commands"),
    ],
)
def test_what_would_train_the_wrong_thing_is_asked(names: list[str], asks: str, tmp_path: Path) -> None:
    _, questions = inferred(tmp_path / "lab", names)
    assert any(any(word in question for word in asks.split("|")) for question in questions), questions


def test_command_that_no_name_tells_is_asked_if_it_leads(tmp_path: Path) -> None:
    _, questions = inferred(tmp_path / "lab", numbered("a_{}", "b_{}"))
    assert any("as commanded" in question for question in questions)


@pytest.mark.parametrize("what", ["goal", "target"])
def test_a_goal_that_stays_is_state_and_no_action(what: str, tmp_path: Path) -> None:
    goal = {f"{what}_{axis}": ["0.42"] * ROWS for axis in "xyz"}
    schema, questions = inferred(tmp_path / "lab", numbered("q{}"), **goal)
    assert columns_of(schema, schema.action.of) == set(numbered("q{}"))
    assert set(goal) < columns_of(schema, schema.sample.state)
    assert questions == ()


@pytest.mark.parametrize("names", [["X", "Y", "Z", "A", "B", "C"], ["level"]])
def test_contacts_are_no_action(names: list[str], tmp_path: Path) -> None:
    contacts = {f"C{i}": [str((i + row // 7) % 2) for row in range(ROWS)] for i in range(1, 9)}
    schema, _ = inferred(tmp_path / "lab", names, **contacts)
    assert columns_of(schema, schema.action.of) == set(names)


def test_many_lone_columns_are_not_mixed(tmp_path: Path) -> None:
    words = [f"{chr(97 + i)}{chr(98 + i)}q" for i in range(13)]
    schema, _ = inferred(tmp_path / "lab", [f"joint_{w}" for w in words] + [f"target_{w}" for w in words])
    assert columns_of(schema, schema.action.of) == {f"target_{word}" for word in words}
    assert columns_of(schema, schema.sample.state) == {f"joint_{word}" for word in words}


@pytest.mark.parametrize(("one", "zero"), [("auf", "zu"), ("ouvert", "fermé"), ("offen", "geschlossen"), ("sí", "no")])
def test_words_of_other_languages_are_numbers(one: str, zero: str, tmp_path: Path) -> None:
    schema, questions = inferred(tmp_path / "lab", numbered("joint_{}"), greifer=[one] * 30 + [zero] * 30)
    assert dict(schema.field("robot/greifer").words or ()) == {one: 1, zero: 0}
    assert "robot/greifer" in schema.action.of
    assert questions == ()


def test_words_of_a_gripper_that_are_no_pair_are_asked(tmp_path: Path) -> None:
    _, questions = inferred(tmp_path / "lab", numbered("joint_{}"), gripper=["open", "moving", "shut"] * 20)
    assert any("gripper" in question and "words = {" in question for question in questions)


def test_arms_of_two_files_are_state_and_action(tmp_path: Path) -> None:
    names = numbered("joint_{}", count=7)
    for side, first in (("left", 0), ("right", 7)):
        rows = [[f"{i * 0.02:.2f}", *map(float, WAVE[i, first : first + 7])] for i in range(ROWS)]
        for episode in range(2):
            (tmp_path / f"ep_{episode}").mkdir(exist_ok=True)
            text = ",".join(["time", *names]) + "\n" + text_of(rows)
            (tmp_path / f"ep_{episode}" / f"{side}_arm.csv").write_text(text)
    schema = parse_schema(infer_schema(tmp_path).toml, "inferred")
    assert sum(schema.field(path).num_columns for path in schema.action.of) == 14
    assert sum(schema.field(path).num_columns for path in schema.sample.state) == 14


@pytest.mark.parametrize("value", ["1e200", "-" + "1" * 200])
def test_huge_numbers_are_the_readers_fault_and_no_warning(
    value: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    rows = [[f"{i / 50}", *map(float, WAVE[i, :4])] for i in range(ROWS)]
    text = "time,joint_1,joint_2,joint_3,joint_4\n" + text_of(rows)
    (tmp_path / "log.csv").write_text(text.replace(str(float(WAVE[9, 3])), value, 1))
    assert any("out_of_range" in fault for fault in infer_schema(tmp_path).faults)
    assert not recwarn.list
