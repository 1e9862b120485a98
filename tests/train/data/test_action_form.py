"""Each form of an action comes back to what was recorded, and equals what a naive reader makes of it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.derived_fields import matrix_of_euler, matrix_of_quaternion
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.schema import (
    ActionConstant,
    ActionSpec,
    CsvStream,
    DerivedSpec,
    EpisodeLayout,
    FieldSpec,
    Rotation,
    SampleDefaults,
    Schema,
    TimeSpec,
)
from vlapipe.train.data.actions.action_form import ActionForm
from vlapipe.train.data.actions.field_columns import ROTATIONS

Array = NDArray[np.float64]
AXES = ["".join(axes) for axes in itertools.product("XYZ", repeat=3) if axes[0] != axes[1] != axes[2]]
CONVENTIONS = [*AXES, *(axes.lower() for axes in AXES)]
FORMS: list[tuple[str, Rotation | None]] = [
    (kind, rotation) for kind in ("absolute", "relative", "delta") for rotation in (None, *ROTATIONS)
]
B, H = 3, 5

NUMBERS = FieldSpec(name="numbers", shape=(2,), unit=("m", "m"))
JOINTS = FieldSpec(name="joints", shape=(3,), unit=("deg",) * 3, period=(360.0, 0.0, 360.0))
QUATERNION = FieldSpec(name="quaternion", shape=(4,), quaternion="xyzw")


def euler(convention: str, unit: str = "deg", name: str = "euler") -> FieldSpec:
    """Three numbers and three angles, as most robots say the pose of their hand."""
    return FieldSpec(name=name, shape=(6,), unit=("mm",) * 3 + (unit,) * 3, euler=convention)


def schema_of(
    *fields: FieldSpec, of: Sequence[str], state: Sequence[str] = (), kind: Any = "absolute", append: int = 0
) -> Schema:
    derived = tuple(DerivedSpec(name="six", of=f.name) for f in fields if f.quaternion)
    robot = CsvStream(name="robot", files=("robot.csv",), time=TimeSpec(sources=("t",)), fields=fields, derived=derived)
    constants = tuple(ActionConstant(name=f"c{i}", value=i + 0.5) for i in range(append))
    return Schema(
        name="test",
        description="",
        anchor="robot",
        episodes=EpisodeLayout(),
        streams=(robot,),
        action=ActionSpec(kind=kind, of=tuple(f"robot/{name}" for name in of), append=constants),
        sample=SampleDefaults(state=tuple(f"robot/{name}" for name in state or of)),
    )


def form_of(schema: Schema, **arguments: Any) -> ActionForm:
    form = ActionForm.of(schema, **arguments)
    assert form is not None
    return form


def matrix(field: FieldSpec, values: Array) -> Array:
    """The rotation matrices of the rotation that the last columns of a field hold, ``(..., 3, 3)``."""
    if field.quaternion:
        return matrix_of_quaternion(values.reshape(-1, 4)).reshape(*values.shape[:-1], 3, 3)
    angles = values[..., -3:].reshape(-1, 3) * (math.pi / 180 if field.unit[-1] == "deg" else 1)
    assert field.euler is not None
    return matrix_of_euler(angles, field.euler).reshape(*values.shape[:-1], 3, 3)


def random_quaternions(rng: np.random.Generator, size: tuple[int, ...]) -> Array:
    values = rng.normal(size=(*size, 4))
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def recording(rng: np.random.Generator, field: FieldSpec, spread: float) -> tuple[Array, Array]:
    """Actions ``(B, H, ...)`` and states ``(B, ...)`` that move by ``spread`` of a turn, from any place."""
    if field.quaternion:
        state = random_quaternions(rng, (B,))
        actions = state[:, None] + spread * random_quaternions(rng, (B, H))
        return actions / np.linalg.norm(actions, axis=-1, keepdims=True), state
    turn = 2 * math.pi if "rad" in field.unit else 360.0
    state = rng.uniform(-turn / 2, turn / 2, (B, *field.shape))
    actions = state[:, None] + spread * turn * rng.uniform(-1, 1, (B, H, *field.shape))
    return actions, state


def trip(form: ActionForm, actions: Array, state: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What training sees, and what comes back, for recordings in float32."""
    a, s = torch.tensor(actions, dtype=torch.float32), torch.tensor(state, dtype=torch.float32)
    again = ActionForm.from_json(json.loads(json.dumps(form.to_json())))
    assert again == form
    encoded = form.encode(a, s)
    assert encoded.dtype == torch.float32
    assert encoded.shape == (B, H, form.size)
    decoded = again.decode(encoded, s)
    assert decoded.dtype == torch.float32
    assert decoded.shape == (B, H, form.recorded_size)
    return encoded.numpy(), decoded.numpy()


def assert_same_rotations(field: FieldSpec, found: Any, expected: Any) -> None:
    __tracebackhide__ = True
    difference = np.abs(matrix(field, np.float64(found)) - matrix(field, np.float64(np.float32(expected)))).max()
    assert difference < 3e-6, difference


# --- round trips ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(form=st.sampled_from(FORMS), seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.0, 0.01, 0.4, 1.0]))
def test_numbers_angles_quaternions_and_constants_come_back(
    form: tuple[str, Rotation | None], seed: int, spread: float
) -> None:
    kind, rotation = form
    schema = schema_of(
        NUMBERS,
        QUATERNION,
        JOINTS,
        of=["quaternion", "joints", "numbers"],
        state=["numbers", "joints", "quaternion"],
        append=2,
    )
    rng = np.random.default_rng(seed)
    (q, q0), (j, j0), (n, n0) = (recording(rng, f, spread) for f in (QUATERNION, JOINTS, NUMBERS))
    constants = np.broadcast_to([0.5, 1.5], (B, H, 2))
    actions, state = np.concatenate([q, j, n, constants], axis=-1), np.concatenate([n0, j0, q0], axis=-1)
    made = ActionForm.of(schema, kind=kind, rotation=rotation)
    if made is None:
        assert kind == "absolute"
        assert rotation in (None, "quaternion")
        return
    encoded, decoded = trip(made, actions, state)
    assert_same_rotations(QUATERNION, decoded[..., :4], q)
    turns = (decoded[..., 4:7] - np.float32(j)) / 360
    turns[..., [0, 2]] -= np.rint(turns[..., [0, 2]])
    assert np.abs(turns).max() < 1e-6
    np.testing.assert_allclose(decoded[..., 7:9], np.float32(n), rtol=2e-6, atol=2e-4)
    np.testing.assert_array_equal(decoded[..., 9:], constants)
    np.testing.assert_array_equal(encoded[..., -2:], constants)
    if kind != "delta" or spread < 0.4:  # a chain of turns may go round
        close = (q * q0[:, None]).sum(-1) > 1e-3
        np.testing.assert_allclose(decoded[..., :4][close], q[close], atol=2e-6)


@settings(max_examples=80, deadline=None)
@given(
    form=st.sampled_from(FORMS[1:]),
    convention=st.sampled_from(CONVENTIONS),
    unit=st.sampled_from(["deg", "rad"]),
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([0.0, 1e-6, 0.01, 0.5]),
)
def test_a_pose_of_euler_angles_comes_back_in_every_convention(
    form: tuple[str, Rotation | None], convention: str, unit: str, seed: int, spread: float
) -> None:
    kind, rotation = form
    field = euler(convention, unit)
    actions, state = recording(np.random.default_rng(seed), field, spread)
    _, decoded = trip(form_of(schema_of(field, of=["euler"]), kind=kind, rotation=rotation), actions, state)
    assert_same_rotations(field, decoded, actions)
    np.testing.assert_allclose(decoded[..., :3], np.float32(actions[..., :3]), rtol=2e-6, atol=3e-4)


@settings(max_examples=60, deadline=None)
@given(
    form=st.sampled_from(FORMS[1:]),
    convention=st.sampled_from(CONVENTIONS),
    second=st.sampled_from([-90.0, -89.999, 0.0, 1e-4, 89.9999, 90.0, 179.9999, 180.0]),
    outer=st.sampled_from([0.0, 1e-5, 90.0, 179.99999, 180.0, -180.0]),
)
@example(form=("relative", "axis_angle"), convention="XYZ", second=90.0, outer=180.0)
def test_gimbal_lock_half_turns_and_no_turn_at_all_come_back_as_rotations(
    form: tuple[str, Rotation | None], convention: str, second: float, outer: float
) -> None:
    kind, rotation = form
    field = euler(convention)
    actions = np.zeros((B, H, 6))
    actions[..., 3], actions[..., 4], actions[..., 5] = outer, second, np.linspace(-180, 180, H)
    state = np.zeros((B, 6))
    state[:, 4] = [0.0, second, -second]
    _, decoded = trip(form_of(schema_of(field, of=["euler"]), kind=kind, rotation=rotation), actions, state)
    assert_same_rotations(field, decoded, actions)


# --- the same numbers, and not only the same rotation -----------------------------------------------------------------


@pytest.mark.parametrize("low", [-180.0, 0.0, -90.0, 200.0])
@pytest.mark.parametrize(("kind", "rotation"), [*FORMS[5:], ("absolute", "sin_cos")], ids=str)
def test_angles_come_back_within_the_turn_that_was_recorded(kind: str, rotation: Rotation | None, low: float) -> None:
    schema = schema_of(JOINTS, QUATERNION, of=["joints", "quaternion"])
    rng = np.random.default_rng(0)
    joints = low + rng.uniform(0.01, 359.99, (B, H + 1, 3))
    turns = random_quaternions(rng, (B, H + 1))
    rows = np.concatenate([joints, turns], axis=-1)
    lowest, highest = rows.min((0, 1)), rows.max((0, 1))
    lowest[[0, 2]], highest[[0, 2]] = low, low + 360
    form = form_of(schema, kind=kind, rotation=rotation, ranges=(lowest, highest))
    _, decoded = trip(form, rows[:, 1:], rows[:, 0])
    np.testing.assert_allclose(decoded[..., :3], np.float32(joints[:, 1:]), atol=2e-4)


@pytest.mark.parametrize("kind", ["relative", "delta"])
def test_a_joint_that_was_recorded_over_several_turns_keeps_its_turns(kind: str) -> None:
    rng = np.random.default_rng(1)
    rows = 900 + np.cumsum(rng.uniform(-30, 30, (B, H + 1, 3)), axis=1)
    form = form_of(schema_of(JOINTS, of=["joints"]), kind=kind, ranges=(np.full(3, -2000.0), np.full(3, 2000.0)))
    _, decoded = trip(form, rows[:, 1:], rows[:, 0])
    np.testing.assert_allclose(decoded, np.float32(rows[:, 1:]), atol=2e-4)


@pytest.mark.parametrize("convention", ["XYZ", "zyx", "ZYZ"])
@pytest.mark.parametrize("turn", ["standard", "0 to 360", "beyond the pole"])
@pytest.mark.parametrize(
    ("kind", "rotation"), [("relative", "6d"), ("delta", None), ("absolute", "quaternion")], ids=str
)
def test_euler_angles_come_back_as_they_were_recorded(
    kind: str, rotation: Rotation | None, turn: str, convention: str
) -> None:
    field, rng = euler(convention), np.random.default_rng(2)
    rows = rng.uniform(-200, 200, (B, H + 1, 6))
    second = (5.0, 175.0) if convention == "ZYZ" else (-85.0, 85.0)
    if turn == "beyond the pole":  # as a robot that counts on instead of jumping
        middle = np.full(H + 1, 180.0 if convention == "ZYZ" else 90.0)
        rows[..., 3:] = 20 * np.cumsum(rng.uniform(-0.3, 0.3, (B, H + 1, 3)), axis=1)
        rows[..., 4] = middle + np.linspace(-30, 30, H + 1) + rng.uniform(1, 3, (B, 1))
    else:
        low = 0.0 if turn == "0 to 360" else -180.0
        rows[..., [3, 5]] = low + rng.uniform(0.1, 359.9, (B, H + 1, 2))
        rows[..., 4] = rng.uniform(*second, (B, H + 1))
    ranges = rows.min((0, 1)), rows.max((0, 1))
    form = form_of(schema_of(field, of=["euler"]), kind=kind, rotation=rotation, ranges=ranges)
    _, decoded = trip(form, rows[:, 1:], rows[:, 0])
    np.testing.assert_allclose(decoded, np.float32(rows[:, 1:]), atol=1e-3)


@pytest.mark.parametrize("rotation", ["6d", "axis_angle"])
def test_an_absolute_quaternion_comes_back_with_the_sign_of_the_state(rotation: Rotation) -> None:
    actions, state = recording(np.random.default_rng(3), QUATERNION, 0.2)
    actions[1], state[1] = -actions[1], -state[1]
    _, decoded = trip(form_of(schema_of(QUATERNION, of=["quaternion"]), rotation=rotation), actions, state)
    np.testing.assert_allclose(decoded, actions, atol=1e-6)


# --- against a naive reader -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["relative", "delta"])
def test_relative_and_delta_are_what_a_naive_reader_makes_of_them(kind: str) -> None:
    field, rng = euler("XYZ"), np.random.default_rng(4)
    schema = schema_of(field, JOINTS, of=["joints", "euler"], state=["euler", "joints"], append=1)
    rows = np.float32(rng.uniform(-180, 180, (B, H + 1, 9))).astype(np.float64)  # a joint may turn by more than half
    state = np.concatenate([rows[:, 0, 3:], rows[:, 0, :3]], axis=-1)
    actions = np.concatenate([rows[:, 1:], np.full((B, H, 1), 0.5)], axis=-1)
    encoded, _ = trip(form_of(schema, kind=kind, rotation="6d"), actions, state)
    assert encoded.shape[-1] == 3 + 3 + 6 + 1
    for b, k in itertools.product(range(B), range(H)):
        base = rows[b, 0] if kind == "relative" else rows[b, k]
        change = rows[b, k + 1] - base
        for joint in (0, 2):  # the ones that repeat
            while change[joint] > 180:
                change[joint] -= 360
            while change[joint] < -180:
                change[joint] += 360
        np.testing.assert_allclose(encoded[b, k, :6], change[:6], rtol=1e-6, atol=1e-5)
        turn = matrix(field, base[3:]).T @ matrix(field, rows[b, k + 1, 3:])
        np.testing.assert_allclose(encoded[b, k, 6:12], np.concatenate([turn[:, 0], turn[:, 1]]), atol=1e-6)
        assert encoded[b, k, 12] == 0.5


def test_a_turn_across_the_wrap_is_a_small_change() -> None:
    schema = schema_of(JOINTS, of=["joints"])
    state = torch.tensor([[179.5, 179.5, -179.5]])
    encoded = form_of(schema, kind="relative").encode(torch.tensor([[[-179.5, -179.5, 179.5]]]), state)
    torch.testing.assert_close(encoded, torch.tensor([[[1.0, -359.0, -1.0]]]))  # the second does not repeat


def test_sine_and_cosine_stand_beside_each_other_in_place_of_the_angle() -> None:
    schema = schema_of(JOINTS, NUMBERS, of=["joints", "numbers"])
    encoded = form_of(schema, rotation="sin_cos").encode(
        torch.tensor([[[90.0, 7.0, 180.0, 1.0, 2.0]]]), torch.zeros(1, 5)
    )
    torch.testing.assert_close(encoded, torch.tensor([[[1.0, 0.0, 7.0, 0.0, -1.0, 1.0, 2.0]]]))


def test_small_turns_of_a_quaternion_are_near_the_identity_whatever_the_signs() -> None:
    actions, state = recording(np.random.default_rng(5), QUATERNION, 0.01)
    actions[:, 2] *= -1
    encoded, _ = trip(form_of(schema_of(QUATERNION, of=["quaternion"]), kind="relative"), actions, state)
    np.testing.assert_allclose(encoded, np.broadcast_to([0, 0, 0, 1], encoded.shape), atol=0.02)


def test_delta_passes_over_actions_that_are_padding() -> None:
    form = form_of(schema_of(NUMBERS, of=["numbers"]), kind="delta")
    actions = torch.tensor([[[1.0, 10.0], [0.0, 0.0], [4.0, 40.0], [0.0, 0.0]]])
    is_pad = torch.tensor([[False, True, False, True]])
    encoded = form.encode(actions, torch.zeros(1, 2), is_pad)
    torch.testing.assert_close(encoded, torch.tensor([[[1.0, 10.0], [0.0, 0.0], [3.0, 30.0], [0.0, 0.0]]]))
    decoded = form.decode(encoded, torch.zeros(1, 2))
    torch.testing.assert_close(decoded[~is_pad], actions[~is_pad])


# --- other fields -----------------------------------------------------------------------------------------------------


def test_a_leader_in_degrees_starts_from_a_follower_in_radians() -> None:
    leader = FieldSpec(name="leader", shape=(2,), unit=("deg", "mm"), period=(360.0, 0.0))
    follower = FieldSpec(name="follower", shape=(2,), unit=("rad", "m"))
    schema = schema_of(leader, follower, NUMBERS, of=["leader"], state=["numbers", "follower"])
    form = form_of(schema, kind="relative", relative_to=["robot/follower"])
    state = torch.tensor([[5.0, 5.0, math.pi / 2, 0.25]])
    encoded = form.encode(torch.tensor([[[100.0, 260.0]]]), state)
    torch.testing.assert_close(encoded, torch.tensor([[[10.0, 10.0]]]))
    torch.testing.assert_close(form.decode(encoded, state), torch.tensor([[[100.0, 260.0]]]))


def test_a_derived_rotation_is_composed_and_not_subtracted() -> None:
    schema = schema_of(QUATERNION, of=["six"], state=["quaternion"])
    actions, state = recording(np.random.default_rng(7), QUATERNION, 0.2)
    six = np.swapaxes(matrix(QUATERNION, actions), -1, -2)[..., :2, :].reshape(B, H, 6).astype(np.float32)
    form = form_of(schema, kind="relative", relative_to=["robot/quaternion"])
    encoded, decoded = trip(form, six, state)
    np.testing.assert_allclose(decoded, six, atol=1e-6)
    turn = np.swapaxes(matrix(QUATERNION, state), -1, -2)[:, None] @ matrix(QUATERNION, actions)
    np.testing.assert_allclose(encoded, np.swapaxes(turn, -1, -2)[..., :2, :].reshape(B, H, 6), atol=1e-6)


def test_a_field_with_an_empty_name_stays_absolute() -> None:
    schema = schema_of(JOINTS, NUMBERS, of=["joints", "numbers"])
    form = form_of(schema, kind="relative", relative_to=["robot/joints", ""])
    encoded = form.encode(torch.full((1, 1, 5), 3.0), torch.full((1, 5), 1.0))
    torch.testing.assert_close(encoded, torch.tensor([[[2.0, 2.0, 2.0, 3.0, 3.0]]]))


# --- predictions that no recording would hold -------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "rotation"), FORMS[1:], ids=str)
def test_zeros_from_a_policy_are_a_finite_action(kind: str, rotation: Rotation | None) -> None:
    schema = schema_of(QUATERNION, JOINTS, euler("XYZ"), of=["quaternion", "joints", "euler"])
    form = form_of(schema, kind=kind, rotation=rotation) if (kind, rotation) != ("absolute", None) else None
    if form is not None:
        assert form.decode(torch.zeros(2, H, form.size), torch.zeros(2, 13)).isfinite().all()


def test_a_predicted_6d_with_two_parallel_columns_keeps_the_first() -> None:
    form = form_of(schema_of(QUATERNION, of=["quaternion"]), rotation="6d")
    found = form.decode(torch.tensor([[[0.0, 1.0, 0.0, 0.0, 2.0, 0.0]]]), torch.zeros(1, 4)).numpy()
    np.testing.assert_allclose(matrix(QUATERNION, np.float64(found))[..., 0], [[[0, 1, 0]]], atol=1e-6)


# --- refusals ---------------------------------------------------------------------------------------------------------

REFUSALS = [
    ({"kind": "relativ"}, {}, "action_form: 'relativ' is unknown (did you mean 'relative'?"),
    ({"rotation": "6D"}, {}, "rotation: '6D' is unknown"),
    ({"kind": "relative"}, {"kind": "delta"}, "the recorded actions are changes already"),
    ({"rotation": "6d"}, {"kind": "delta"}, "the recorded actions are changes already"),
    ({"kind": "relative"}, {"state": ["numbers"]}, "starts from 'robot/joints', which is not in the state"),
    ({"kind": "delta", "relative_to": ["robot/joint"]}, {}, "'robot/joint', which is not in the state (did you"),
    ({"kind": "relative", "relative_to": ["robot/joints"] * 2}, {}, "relative_to: expected 1 names, found 2"),
    ({"kind": "relative", "relative_to": [""]}, {}, "nothing is relative"),
    ({"kind": "delta", "relative_to": ["robot/numbers"]}, {"state": ["numbers"]}, "joints is 3 numbers, robot/num"),
    ({"kind": "delta", "relative_to": ["robot/metres"]}, {"state": ["metres"]}, "units of robot/joints and robot"),
    ({"rotation": "6d"}, {}, "rotation = '6d': no field of the action is a rotation"),
    ({"rotation": "sin_cos"}, {"of": ["numbers"]}, "rotation = 'sin_cos': no column of the action is an angle"),
    ({"rotation": "6d"}, {"of": ["unclear"]}, "unclear: in what unit are its Euler angles?"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "of_schema", "expected"), REFUSALS, ids=[r[2][:40] for r in REFUSALS])
def test_what_cannot_be_is_refused_in_one_line(arguments: Any, of_schema: Any, expected: str) -> None:
    metres = FieldSpec(name="metres", shape=(3,), unit=("m",) * 3)
    unclear = FieldSpec(name="unclear", shape=(3,), euler="XYZ")
    schema = schema_of(JOINTS, NUMBERS, metres, unclear, **{"of": ["joints"], **of_schema})
    with pytest.raises(UsageError) as refusal:
        ActionForm.of(schema, **arguments)
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert refusal.value.cure


def test_actions_that_stay_as_recorded_have_no_form() -> None:
    assert ActionForm.of(schema_of(JOINTS, of=["joints"])) is None
    assert ActionForm.of(schema_of(QUATERNION, of=["quaternion"]), rotation="quaternion") is None
