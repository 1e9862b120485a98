"""What a policy was not trained on is refused in one line, with the key, the expected, the found and the cure."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic import make_batch, make_spec
from test_loop import config

import vlapipe
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.actions.action_form import ActionForm
from vlapipe.train.data.actions.action_parts import Origin, Part
from vlapipe.train.data.actions.field_columns import Columns, Rotation
from vlapipe.train.data.loader import Loader
from vlapipe.train.loop import train
from vlapipe.train.policies.observation import check_observation
from vlapipe.train.policies.regression import RegressionPolicy

STATE, IMAGE, FORCE = "observation.state", "observation.images.View1", "observation.sensors.force"
SPEC = make_spec()
Observation = dict[str, Any]


def observed(batch_size: int = 2) -> Observation:
    batch = make_batch(SPEC, batch_size)
    return {key: value for key, value in batch.items() if key.startswith("observation.") or key == "task"}


def form_of(num_joints: int, rotation: Rotation | None) -> ActionForm:
    """Joints that are said by their change from the state's first columns."""
    joints = Columns(kind="numbers", num_columns=num_joints, period=(360.0,) * num_joints)
    origin = Origin(columns=joints, first=0, factor=(1.0,) * num_joints)
    return ActionForm(kind="relative", rotation=rotation, parts=(Part(columns=joints, origin=origin),))


def small_policy() -> RegressionPolicy:
    torch.manual_seed(0)
    return RegressionPolicy(SPEC, dim=32, depth=1, num_heads=2, image_width=8, num_word_buckets=64).eval()


def changed(key: str, change: Callable[[Any], Any]) -> Callable[[Observation], Observation]:
    return lambda o: {**o, key: change(o[key])}


def without(key: str) -> Callable[[Observation], Observation]:
    return lambda o: {name: value for name, value in o.items() if name != key}


def first_rows(count: int) -> Callable[[Observation], Observation]:
    return lambda o: {**o, STATE: o[STATE][:, -count:], f"{STATE}_is_pad": o[f"{STATE}_is_pad"][:, -count:]}


def not_finite(value: float) -> Callable[[Any], Any]:
    def change(numbers: Any) -> Any:
        numbers = numbers.clone()
        numbers[1, -1, 2] = value
        return numbers

    return change


REFUSED: list[tuple[str, Callable[[Observation], Any], str]] = [
    (
        "floats from 0 to 1",
        changed(IMAGE, lambda i: i.float() / 255),
        f"act: {IMAGE}: expected uint8 pixels from 0 to 255, found float32 ((value * 255)",
    ),
    ("int64 pixels", changed(IMAGE, torch.Tensor.long), "found int64 (pixels as they come from the camera)"),
    (
        "another image size",
        changed(IMAGE, lambda i: i[..., :30, :46]),
        "expected (B, T, 3, height, width) = (2, 1, 3, 32, 48), found (2, 1, 3, 30, 46) (resize to height 32 "
        "and width 48 as in training: vlapipe.train.data.images.resize.resized(image, (32, 48), 'stretch'))",
    ),
    ("channels last", changed(IMAGE, lambda i: i.permute(0, 1, 3, 4, 2)), "value.permute(0, 1, 4, 2, 3)"),
    (
        "too few rows",
        first_rows(1),
        f"act: {STATE}: expected (B, T, D) = (2, 10, 4), found (2, 1, 4) "
        f"(repeat the oldest row in front, and mark what is repeated in {STATE}_is_pad)",
    ),
    ("too many rows", changed(STATE, lambda s: torch.cat([s, s], 1)), "found (2, 20, 4) (give the newest 10 rows)"),
    ("too few columns", changed(STATE, lambda s: s[..., :3]), "expected (B, T, D) = (2, 10, 4), found (2, 10, 3)"),
    ("another sensor's width", changed("observation.sensors.aline", lambda s: s[..., :9]), "expected (B, T, ...) = ("),
    ("no batch dimension", lambda o: {k: v[0] for k, v in o.items()}, "found (10, 4) (add the dimension of the batch"),
    ("a number", changed(STATE, lambda s: s[0, 0, 0]), "found () "),
    ("batches of two sizes", changed(FORCE, lambda s: s[:1]), f"act: {FORCE}: expected (B, T) = (2, 9), found (1, 9)"),
    ("float64", changed(STATE, torch.Tensor.double), "expected float32 in the dataset's units, found float64"),
    ("an array", changed(STATE, torch.Tensor.numpy), "expected a tensor, found a ndarray (torch.from_numpy(array))"),
    ("NaN", changed(STATE, not_finite(float("nan"))), f"act: {STATE}: expected finite numbers, found NaN or infinity"),
    ("infinity", changed(STATE, not_finite(float("inf"))), "expected finite numbers, found NaN or infinity"),
    ("no state", without(STATE), f"act: {STATE}: missing"),
    ("no camera", without(IMAGE), f"act: {IMAGE}: missing"),
    (
        "no mark",
        without(f"{STATE}_is_pad"),
        f"act: {STATE}_is_pad: missing (a bool tensor (B, T): False for each row that is there)",
    ),
    ("no instruction", without("task"), "act: task: missing (a list of instructions, one for each of the 2)"),
    ("marks of another length", changed(f"{STATE}_is_pad", lambda m: m[:, 1:]), "expected bool (2, 10), found"),
    ("marks that are numbers", changed(f"{STATE}_is_pad", torch.Tensor.float), "found float32 (2, 10)"),
    ("one text", changed("task", lambda t: t[0]), "act: task: expected a list of instructions, found one"),
    ("too few texts", changed("task", lambda t: t[:1]), "act: task: expected 2 texts, found 1"),
    ("another device", changed(FORCE, lambda s: s.to("meta")), f"act: {FORCE}: expected to be on cpu as the others"),
    ("no dict", lambda o: list(o), "act: expected a dict of tensors by key, found a list"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_was_not_trained_on_is_refused_in_one_line(change: Callable[[Observation], Any], expected: str) -> None:
    with pytest.raises(UsageError) as refusal:
        small_policy().act(change(observed()))
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert refusal.value.cure


def test_a_short_window_that_is_padded_and_marked_gives_the_actions_of_the_padded_window() -> None:
    policy, whole = small_policy(), observed()
    whole[f"{STATE}_is_pad"][:, :7] = True
    actions = policy.act(whole)
    for filler in (0.0, float("nan")):
        short = dict(whole)
        short[STATE] = torch.cat([torch.full((2, 7, 4), filler), whole[STATE][:, 7:]], dim=1)
        assert torch.equal(policy.act(short), actions)


def test_a_field_that_may_lack_numbers_may_lack_them() -> None:
    spec = replace(SPEC, moments={**SPEC.moments, STATE: replace(SPEC.moments[STATE], is_finite=False)})
    check_observation(spec, changed(STATE, not_finite(float("nan")))(observed()))


def test_a_policy_whose_actions_are_relative_needs_the_frames_own_state() -> None:
    spec, observation = replace(SPEC, action_form=form_of(4, None)), observed()
    check_observation(spec, observation)
    observation[f"{STATE}_is_pad"][1, -1] = True
    check_observation(SPEC, observation)
    with pytest.raises(UsageError, match="expected a state of the frame itself, since actions are relative to it"):
        check_observation(spec, observation)
    # As in training: the anchor's own state is there in each frame, and another stream's may be what is missing.
    check_observation(replace(spec, action_form=replace(form_of(4, None), origin_may_lack=False)), observation)


def test_actions_come_back_in_the_recorded_form() -> None:
    form = form_of(3, "sin_cos")
    assert form.size == 6
    spec = make_spec(state=(10, 3), action=(4, form.size), constant_columns=form.size)
    spec = replace(spec, action_form=form)  # a policy that predicts 5 for each number
    policy = RegressionPolicy(spec, dim=32, depth=1, num_heads=2, image_width=8, num_word_buckets=64).eval()
    batch = make_batch(spec, 3)
    expected = form.decode(torch.full((3, 4, form.size), 5.0), batch[STATE][:, -1])
    torch.testing.assert_close(policy.act(batch), expected)
    assert expected.shape == (3, 4, 3)


def test_ones_own_policy_is_guarded_too_once_it_is_loaded(tiny_dataset: Path, tmp_path: Path) -> None:
    train(config(tiny_dataset, tmp_path / "run", max_steps=1, policy="tiny_policy:TinyPolicy", policy_args={}))
    policy: Any = vlapipe.load_policy(tmp_path / "run")
    batch = next(iter(Loader(vlapipe.open_dataset(tiny_dataset), batch_size=3)))
    actions = policy.act(batch)
    with pytest.raises(UsageError, match=r"act: observation\.state: expected \(B, T, D\)"):
        policy.act({**batch, STATE: batch[STATE][:, :1]})
    other = copy.deepcopy(policy)
    with torch.no_grad():
        other.layer.weight.zero_()
        other.layer.bias.zero_()
    assert (other.act(batch) == 0).all()  # the copy acts with its own weights
    assert torch.equal(policy.act(batch), actions)
