"""The built-in policy keeps the contract: padded and constant values do not count, and relevant values are learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import make_batch, make_spec

from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.batch_layout import SampleSpec
from vlapipe.train.policies.base import blocks_of
from vlapipe.train.policies.recompute import recompute_in_backward
from vlapipe.train.policies.regression import RegressionPolicy

SMALL = {"dim": 32, "depth": 2, "num_heads": 2, "image_width": 8, "num_word_buckets": 64, "state_noise": 0.0}


def small_policy(spec: SampleSpec, **changes: object) -> RegressionPolicy:
    torch.manual_seed(0)
    return RegressionPolicy(spec, **(SMALL | changes))  # type: ignore[arg-type]


SPECS = {
    "everything": make_spec(),
    "state_alone": make_spec(sensors={}, images={}),
    "one_row_each": make_spec(state=(1, 4), sensors={"force": (1,)}, images={"View1": (1, 3, 16, 16)}),
    "several_image_rows": make_spec(images={"View1": (3, 3, 24, 40), "View2": (2, 3, 33, 65)}),
    "odd_window_lengths": make_spec(state=(101, 4), sensors={"force": (17,), "aline": (65, 1025)}),
    "deep_sensor_rows": make_spec(sensors={"touch": (5, 4, 4)}),
    "large_images": make_spec(images={"View1": (1, 3, 240, 320)}),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_loss_is_a_finite_scalar_and_every_parameter_has_a_gradient(spec: SampleSpec) -> None:
    policy = small_policy(spec)
    loss = policy.loss(make_batch(spec)).mean
    loss.backward()
    assert loss.shape == ()
    assert torch.isfinite(loss)
    # `absent` is used by batches that lack an image, and by them alone.
    without = [name for name, p in policy.named_parameters() if p.grad is None]
    assert without == []


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_act_needs_no_actions_and_returns_a_chunk(spec: SampleSpec) -> None:
    batch = {k: v for k, v in make_batch(spec).items() if not k.startswith("action")}
    actions = small_policy(spec).eval().act(batch)
    assert actions.shape == (4, *spec.action)
    assert actions.dtype == torch.float32
    assert not actions.requires_grad


def test_padded_actions_do_not_change_loss_or_gradient() -> None:
    spec = make_spec()
    policy, batch = small_policy(spec), make_batch(spec)
    gradients = []
    for filler in (0.0, 1e30, float("nan")):
        batch["action"][batch["action_is_pad"]] = filler
        policy.zero_grad()
        loss = policy.loss(batch).mean
        loss.backward()
        gradients.append((loss.item(), policy.head.weight.grad.clone()))  # type: ignore[union-attr]
    for loss_value, gradient in gradients[1:]:
        assert loss_value == gradients[0][0]
        assert torch.equal(gradient, gradients[0][1])


def test_loss_is_the_mean_over_the_actions_that_are_not_padded() -> None:
    spec = make_spec()
    policy, batch = small_policy(spec).eval(), make_batch(spec)
    errors = (policy.act(batch) - batch["action"]).abs() / torch.from_numpy(spec.moments["action"].std)
    expected = errors[~batch["action_is_pad"]].mean()
    assert policy.loss(batch).mean.item() == pytest.approx(expected.item(), rel=1e-5)


def test_all_actions_padded_gives_zero_loss_and_zero_gradient() -> None:
    spec = make_spec()
    policy, batch = small_policy(spec), make_batch(spec)
    batch["action_is_pad"][:] = True
    loss = policy.loss(batch).mean
    loss.backward()
    assert loss.item() == 0.0
    assert policy.head.weight.grad.abs().sum() == 0.0  # type: ignore[union-attr]


def test_padded_history_rows_do_not_matter_but_their_mark_does() -> None:
    spec = make_spec()
    policy, batch = small_policy(spec).eval(), make_batch(spec)
    before = policy.act(batch)
    batch["observation.state"][batch["observation.state_is_pad"]] = 1e6
    assert torch.equal(policy.act(batch), before)
    batch["observation.state_is_pad"][1, 0] = True
    assert not torch.equal(policy.act(batch)[1], before[1])


def test_absent_image_does_not_matter_but_its_mark_does() -> None:
    spec = make_spec()
    policy, batch = small_policy(spec).eval(), make_batch(spec)
    key = "observation.images.View1"
    before = policy.act(batch)
    batch[f"{key}_is_pad"][0] = True
    absent = policy.act(batch)
    assert not torch.equal(absent[0], before[0])
    batch[key][0] = 255
    assert torch.equal(policy.act(batch), absent)


def test_constant_action_column_does_not_count_and_comes_back_exactly() -> None:
    spec = make_spec(constant_columns=1)
    policy, batch = small_policy(spec).eval(), make_batch(spec)
    before = policy.loss(batch).mean.item()
    batch["action"][..., -1] = 123.0
    assert policy.loss(batch).mean.item() == before
    assert (policy.act(batch)[..., -1] == 5.0).all()


def test_every_action_column_constant_trains_without_blowing_up() -> None:
    spec = make_spec(constant_columns=2)
    policy = small_policy(spec)
    loss = policy.loss(make_batch(spec)).mean
    loss.backward()
    assert loss.item() == 0.0


@pytest.mark.parametrize("key", ["observation.state", "observation.sensors.force", "observation.sensors.aline"])
def test_newest_row_changes_the_answer(key: str) -> None:
    spec = make_spec()
    policy, batch = small_policy(spec).eval(), make_batch(spec)
    before = policy.act(batch)
    batch[key][:, -1] += 1.0
    assert not torch.allclose(policy.act(batch), before, atol=1e-6)


def test_where_something_is_in_the_image_changes_the_answer() -> None:
    spec = make_spec()
    policy, batch = small_policy(spec).eval(), make_batch(spec, 2)
    image = batch["observation.images.View1"]
    image[:] = 0
    image[..., 4:8, 4:8] = 255
    before = policy.act(batch)
    image[:] = 0
    image[..., 20:24, 36:40] = 255
    assert not torch.allclose(policy.act(batch), before, atol=1e-6)


def test_absurd_sensor_spike_leaves_the_loss_finite() -> None:
    spec = make_spec()
    policy, batch = small_policy(spec), make_batch(spec)
    batch["observation.sensors.force"][0, -1] = 1e30
    assert torch.isfinite(policy.loss(batch).mean)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    spec = make_spec()
    batch = make_batch(spec)
    gradients = []
    for checkpointing in (False, True):
        policy = small_policy(spec)
        if checkpointing:
            recompute_in_backward(policy, blocks_of(policy))
        policy.loss(batch).mean.backward()
        gradients.append([p.grad for p in policy.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))  # type: ignore[arg-type]


def test_bf16_autocast_stays_close_to_fp32() -> None:
    spec = make_spec()
    policy, batch = small_policy(spec), make_batch(spec)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = policy.loss(batch).mean
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(policy.loss(batch).mean.item(), rel=0.02)


def test_statistics_travel_in_the_state_dict() -> None:
    spec, other = make_spec(), make_spec(constant_columns=1)
    other.moments["observation.state"].mean[:] = 77
    policy, copy = small_policy(spec).eval(), small_policy(other).eval()
    copy.load_state_dict(policy.state_dict())
    batch = make_batch(spec)
    assert torch.equal(policy.act(batch), copy.act(batch))


def test_batch_can_be_overfitted() -> None:
    spec = make_spec()
    policy, batch = small_policy(spec), make_batch(spec, 8)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    losses = []
    for _ in range(200):
        loss = policy.loss(batch).mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.median(losses[-5:]) < 0.15 * losses[0]


def test_instruction_alone_can_choose_which_way_to_go() -> None:
    spec = make_spec(sensors={}, images={"View1": (1, 3, 16, 16)}, action=(1, 1))
    policy, batch = small_policy(spec), make_batch(spec, 8)
    sign = torch.tensor([1.0, -1.0]).repeat(4)
    moments = spec.moments["action"]
    batch["action"] = (sign * float(moments.std[0]) + float(moments.mean[0])).view(8, 1, 1)
    batch["action_is_pad"][:] = False
    for key in ("observation.state", "observation.images.View1"):
        batch[key][:] = batch[key][:1]  # nothing but the instruction differs
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    for _ in range(60):
        loss = policy.loss(batch).mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2


def test_rows_after_the_frame_are_not_seen() -> None:
    spec = make_spec(state=(13, 4), sensors={"force": (12,)}, images={"View1": (4, 3, 32, 48)})
    spec = replace(spec, ahead_rows=3, newest=9)
    policy, batch = small_policy(spec).eval(), make_batch(spec)
    loss, actions = policy.loss(batch).mean, policy.act(batch)
    known = {k: v[:, :-3] if k.startswith("observation.") else v for k, v in batch.items()}
    assert torch.equal(policy.act(known), actions)  # as a robot has it
    for key in [key for key in batch if key.startswith("observation.")]:
        batch[key][:, -3:] = 1
    assert torch.equal(policy.loss(batch).mean, loss)
    batch["observation.state"][:, -4] += 1
    assert not torch.equal(policy.loss(batch).mean, loss)


def test_times_of_the_state_after_the_frame_are_refused() -> None:
    with pytest.raises(UsageError, match="row 8 of the state's 10 is the frame's own, and the rows after it are not"):
        small_policy(replace(make_spec(), newest=7))


def test_state_is_moved_in_training_where_there_are_images_and_all_its_rows_alike() -> None:
    spec = make_spec(images={"View1": (1, 3, 16, 16)}, sensors={})
    policy, batch = small_policy(spec, state_noise=None), make_batch(spec)
    seen: list[torch.Tensor] = []
    policy.series[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for training in (True, True, False, False):
        policy.train(training).loss(batch)
    once, again, still, same = seen
    assert torch.equal(still, same)
    assert not torch.equal(once, again)
    moved = once - still
    torch.testing.assert_close(moved, moved[:, :1].expand_as(moved), rtol=0, atol=1e-6)
    assert 0.05 < moved.std().item() < 0.2
    alone = make_spec(images={}, sensors={})
    policy, batch = small_policy(alone, state_noise=None), make_batch(alone)
    assert torch.equal(policy.loss(batch).total, policy.loss(batch).total)


@pytest.mark.parametrize("name", ["everything", "several_image_rows", "large_images"])
def test_map_read_whole_learns_and_an_absent_image_says_nothing_through_it(name: str) -> None:
    spec = SPECS[name]
    policy, batch = small_policy(spec, whole_map=True), make_batch(spec)
    policy.loss(batch).mean.backward()
    for encoder in policy.images:
        assert encoder.whole.read.in_features <= 16 * 256
        assert encoder.whole.read.weight.grad.abs().sum() > 0
    batch["observation.images.View1_is_pad"][:] = True
    before = policy.loss(batch).total
    batch["observation.images.View1"] = 255 - batch["observation.images.View1"]
    assert torch.equal(policy.loss(batch).total, before)


def test_whole_map_that_is_no_truth_value_is_refused() -> None:
    with pytest.raises(UsageError, match="policy_args whole_map: expected true or false, found 'yes'"):
        small_policy(make_spec(), whole_map="yes")
