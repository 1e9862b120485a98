"""The policy ``vla`` with the real classes of transformers, at tiny sizes: it computes what the models compute."""

from __future__ import annotations

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic import losses_while_learning, make_batch, make_spec
from tiny_backbones import FAMILIES, save_tiny_backbone
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.batch_layout import SampleSpec
from vlapipe.train.policies import compiled
from vlapipe.train.policies.base import blocks_of
from vlapipe.train.policies.compiled import compile_policy
from vlapipe.train.policies.loss_module import LossOf
from vlapipe.train.policies.recompute import recompute_in_backward
from vlapipe.train.policies.vla.inputs import IDS, IS_PAD, PIXELS
from vlapipe.train.policies.vla.policy import VLAPolicy

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model of each family."""
    folder = tmp_path_factory.mktemp("backbones")
    for family in FAMILIES:
        save_tiny_backbone(family, folder / family)
    return folder


def tiny_policy(backbones: Path, family: str = "smolvlm", spec: SampleSpec | None = None, **args: Any) -> VLAPolicy:
    torch.manual_seed(0)
    return VLAPolicy(spec or make_spec(), backbone=str(backbones / family), **args)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", ["flow", "regression"])
def test_step_lowers_the_loss_of_its_batch(backbones: Path, family: str, head: str) -> None:
    policy, batch = tiny_policy(backbones, family, head=head), make_batch(make_spec())
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.05)
    losses = []
    for _ in range(2):
        torch.manual_seed(1)
        loss = policy.loss(batch).mean
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[1] < losses[0]


def test_flow_learns_a_batch(backbones: Path) -> None:
    policy = tiny_policy(backbones)
    batch = policy.prepare(make_batch(make_spec()))
    losses = losses_while_learning(policy, batch, steps=60)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_expert_that_knows_the_way_has_no_loss_and_ends_at_the_actions(backbones: Path) -> None:
    policy, batch = tiny_policy(backbones).eval(), make_batch(make_spec())
    target = policy.action_normalizer(batch["action"])
    policy._noisy = lambda x, t: (x, t)  # type: ignore[assignment, method-assign, return-value]
    policy._predict = lambda _, at, *__: (target - at[0]) / (1 - at[1][:, None, None])  # type: ignore[method-assign]
    assert policy.loss(batch).mean.item() < 1e-4
    torch.testing.assert_close(policy.act(batch), batch["action"], atol=1e-3, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_have_the_keys_and_values_of_the_model_itself(backbones: Path, family: str) -> None:
    """So positions, masks, image tokens and added features are those that the model was trained with."""
    from transformers import AutoModel

    spec = make_spec(images={"View1": (1, 3, 32, 48), "View2": (2, 3, 40, 32)})
    policy, batch = tiny_policy(backbones, family, spec).eval(), make_batch(spec)
    read = policy.prepare(batch)
    model: Any = AutoModel.from_pretrained(backbones / family, dtype=torch.float32).eval()
    ids, pixels = read[IDS], read[PIXELS]
    of_images = {name: value for name, value in policy._reader.of_images.items() if name != "pixel_attention_mask"}
    more: dict[str, Any] = {name: value.repeat(len(ids), 1) for name, value in of_images.items()}
    if family.startswith("qwen"):
        more["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
    if family == "paligemma":
        more["token_type_ids"] = torch.zeros_like(ids)
    if family == "smolvlm":
        mask = policy._reader.of_images["pixel_attention_mask"]
        more["pixel_attention_mask"] = mask.repeat(len(ids), 1, 1, 1)
    pixels = pixels.squeeze(1) if family == "smolvlm" else pixels.flatten(0, 1)
    seen = ~read[IS_PAD]
    with torch.no_grad():
        own = model(input_ids=ids, attention_mask=seen.long(), pixel_values=pixels, use_cache=True, **more)
        kept = policy._keep(read)
    assert seen.sum(dim=1).unique().numel() > 1  # instructions of different lengths
    for layer, (key, value) in zip(own.cache.layers, kept, strict=True):
        for ours, theirs in ((key, layer.keys), (value, layer.values)):
            assert (ours - theirs).transpose(1, 2)[seen].abs().max() < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["euler", "heun"])
def test_act_with_the_kept_prefix_equals_act_without(backbones: Path, family: str, method: str) -> None:
    policy = tiny_policy(backbones, family, flow_method=method, flow_steps=3).eval()
    batch = {key: value for key, value in make_batch(make_spec()).items() if not key.startswith("action")}
    passes = []
    policy.backbone.register_forward_hook(lambda *_: passes.append(1))
    answers = []
    for cached in (True, False):
        torch.manual_seed(5)
        answers.append(policy.act(batch, cached=cached))
    assert answers[0].shape == (4, 3, 2)
    assert (answers[0] - answers[1]).abs().max() < 1e-4
    assert len(passes) == 1 + 3 * (2 if method == "heun" else 1)


@pytest.mark.parametrize("head", ["flow", "regression"])
def test_what_matters_changes_the_answer_and_padding_does_not(backbones: Path, head: str) -> None:
    spec = make_spec()
    policy, batch = tiny_policy(backbones, spec=spec, head=head).eval(), make_batch(spec)

    def answer(**changes: Any) -> torch.Tensor:
        torch.manual_seed(5)
        return policy.act(batch | changes)

    before, key = answer(), "observation.images.View1"
    assert not torch.equal(answer(task=["push the green cube"] * 4), before)
    assert not torch.equal(answer(**{key: 255 - batch[key]}), before)
    state = batch["observation.state"].clone()
    state[:, -1] += 1
    assert not torch.equal(answer(**{"observation.state": state}), before)
    absent = {f"{key}_is_pad": torch.ones(4, 1, dtype=torch.bool)}
    assert torch.equal(answer(**absent), answer(**absent, **{key: 255 - batch[key]}))


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_of_prompts_is_not_seen(backbones: Path, family: str) -> None:
    batch, answers = make_batch(make_spec()), []
    for max_tokens in (16, 32):
        policy = tiny_policy(backbones, family, max_tokens=max_tokens).eval()
        torch.manual_seed(5)
        answers.append(policy.act(batch))
    assert (answers[0] - answers[1]).abs().max() < 1e-5


def test_frozen_backbone_that_is_recomputed_gives_the_same_gradient(backbones: Path) -> None:
    gradients = []
    for again in (False, True):
        policy = tiny_policy(backbones, "qwen3_vl")
        policy.backbone.requires_grad_(False)
        assert len(blocks_of(policy)) == 4  # 2 layers of the image encoder, 2 of language
        if again:
            recompute_in_backward(policy, blocks_of(policy))
        torch.manual_seed(1)
        policy.loss(make_batch(make_spec())).mean.backward()
        gradients.append({name: p.grad for name, p in policy.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert not any(name.startswith("backbone.") for name in gradients[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-5)


def test_only_what_is_read_is_trained(backbones: Path) -> None:
    policy = tiny_policy(backbones, "paligemma")
    groups = {group.name: group for group in policy.parameter_groups()}
    policy.loss(make_batch(make_spec())).mean.backward()
    unread = {p for p in policy.parameters() if p.grad is None}
    assert set(groups["unread"].parameters) == unread
    assert groups["unread"].frozen
    assert groups["backbone"].learning_rate_factor == 0.1


def test_first_layers_alone(backbones: Path) -> None:
    policy = tiny_policy(backbones, "qwen2_5_vl", num_layers=1)
    assert len(policy.layers) == 1
    assert policy.loss(make_batch(make_spec())).mean.isfinite()
    with pytest.raises(UsageError, match=r"policy_args num_layers: expected at most 2, found 3"):
        tiny_policy(backbones, "qwen2_5_vl", num_layers=3)


def test_depth_camera_and_several_rows_are_images(backbones: Path) -> None:
    spec = make_spec(images={"View1": (2, 3, 32, 48), "Depth": (1, 1, 32, 32)})
    spec = replace(spec, depth={"Depth": 0.001})
    batch = make_batch(spec)
    key = "observation.images.Depth"
    batch[key] = (batch[key].to(torch.int32) * 8).to(torch.uint16)
    policy = tiny_policy(backbones, spec=spec)
    assert policy._reader.num_images == 3
    assert policy.loss(batch).mean.isfinite()


def test_several_threads_read_what_one_reads(backbones: Path) -> None:
    reader = tiny_policy(backbones, "qwen3_vl").preprocessor()
    batches = [make_batch(make_spec(), seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as threads:
        found = [*threads.map(reader, batches)]
    for batch, read in zip(batches, found, strict=True):
        alone = reader(batch)
        assert all(torch.equal(read[key], alone[key]) for key in (IDS, IS_PAD, PIXELS))


def test_long_instruction_is_cut_after_a_word_and_told(backbones: Path) -> None:
    policy = tiny_policy(backbones, max_tokens=6).eval()
    long, batch = "push the green cube to the left right", make_batch(make_spec())
    assert policy.instruction_note(["push the cube"]) == ""
    assert policy.instruction_note(["push the cube", long]) == (
        "1 of 2 instructions are longer than the 5 tokens that are read; the longest has 8: "
        "'push the green cube to the left right' (say max_tokens = 9 in policy_args)"
    )
    with pytest.warns(UserWarning, match="act: 4 of 4 instructions are longer"):
        policy.act(batch | {"task": [long] * 4})
    read = policy.prepare(batch | {"task": [long, "push the green cube to", "<image> push the green", "push"]})
    assert torch.equal(read[IDS][0], read[IDS][1])
    assert torch.equal((read[IDS] == policy.backbone.model.config.image_token_id).sum(1), torch.full((4,), 4))


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"backbone": "empty"}, r"policy_args backbone 'empty': cannot be read: .* \(give a folder with"),
        (
            {"backbone": "clip"},
            "a model of type 'clip_text_model' is not known .*Qwen2.5-VL, Qwen3-VL, Smol",
        ),
        ({"head": "diffusion"}, "policy_args head: 'diffusion' is unknown"),
        ({"flow_steps": 0}, "policy_args flow_steps: expected"),
    ],
)
def test_wrong_argument_is_refused_in_one_line(
    backbones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: dict[str, Any], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text('{"model_type": "clip_text_model"}')
    with pytest.raises(UsageError, match=told) as caught:
        VLAPolicy(make_spec(), **{"backbone": str(backbones / "smolvlm"), **args})
    assert "\n" not in str(caught.value)


def test_no_camera_and_no_transformers_are_refused(backbones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="policy vla: expected a camera, the samples have none"):
        tiny_policy(backbones, spec=make_spec(images={}))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"policy vla needs transformers, which is not installed \(in the checkout"):
        tiny_policy(backbones)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", ["flow", "regression"])
def test_operations_are_those_that_a_real_batch_takes_for_each_sample(backbones: Path, family: str, head: str) -> None:
    policy, generator = tiny_policy(backbones, family, head=head), torch.get_rng_state()
    said = policy.flops_per_sample()
    assert torch.equal(torch.get_rng_state(), generator)
    counter = FlopCounterMode(display=False)
    # The counter does not know the fused attention of a CPU.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        policy.loss(make_batch(make_spec()))
    assert said == pytest.approx(counter.get_total_flops() / 4, rel=0.02)


def loss_and_gradient(module: LossOf) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    module.zero_grad()
    total, weight, _ = module(make_batch(make_spec()))
    (total / weight).backward()
    found = [parameter.grad.flatten() for parameter in module.parameters() if parameter.grad is not None]
    return (total / weight).detach(), torch.cat(found)


@pytest.mark.parametrize(
    "family",
    ["paligemma", *(pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES if family != "paligemma")],
)
def test_compiled_loss_and_gradient_are_those_without(
    backbones: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """Graphs are found as in a real compilation, and then run by plain torch: seconds instead of minutes."""
    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    module = LossOf(tiny_policy(backbones, family))
    plain = loss_and_gradient(module)
    said: list[str] = []
    watch = compile_policy(module, [], "default", device=torch.device("cpu"), num_passes=1, say=said.append)
    for _ in range(2):
        torch.testing.assert_close(loss_and_gradient(module), plain, rtol=1e-4, atol=1e-5)
    assert watch.counts.versions > 0
    assert not watch.counts.recompiles
    watch.close()
