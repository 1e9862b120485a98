"""``regression`` and ``flow`` with a pretrained image network: the real classes of transformers at tiny sizes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from robot_lab import make_run, observed
from synthetic import losses_while_learning, make_batch, make_spec

import vlapipe
from vlapipe.schemas.errors import UsageError
from vlapipe.train.optim.groups import optimizer_groups
from vlapipe.train.optim.trainable import Trainable
from vlapipe.train.policies.registry import build_policy

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
NETWORKS = ("resnet", "convnext", "dinov2")
SPEC = make_spec(sensors={}, images={"View1": (1, 3, 64, 96)})


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network of each kind, as it is saved for classification or other uses: without its maps."""
    from transformers import (
        ConvNextConfig,
        ConvNextModel,
        Dinov2Config,
        Dinov2Model,
        ResNetConfig,
        ResNetModel,
        ViTConfig,
        ViTModel,
    )

    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    stages: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
    ResNetModel(ResNetConfig(embedding_size=8, layer_type="basic", **stages)).save_pretrained(folder / "resnet")
    ConvNextModel(ConvNextConfig(**stages)).save_pretrained(folder / "convnext")
    vit: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    Dinov2Model(Dinov2Config(image_size=28, patch_size=4, mlp_ratio=2, **vit)).save_pretrained(folder / "dinov2")
    ViTModel(ViTConfig(image_size=32, patch_size=8, **vit)).save_pretrained(folder / "vit")
    return folder


def tiny(networks: Path, name: str, policy: str = "regression", **args: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"dim": 32, "depth": 1, "num_heads": 2, "num_word_buckets": 64}
    return build_policy(policy, SPEC, {**sizes, "backbone": str(networks / name), **args})


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("policy", ["regression", "flow"])
def test_policy_with_a_pretrained_network_learns_and_acts(networks: Path, name: str, policy: str) -> None:
    made, batch = tiny(networks, name, policy), make_batch(SPEC)
    losses = losses_while_learning(made, batch, steps=30)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    made.eval()
    assert made.act(batch).shape == (4, 3, 2)
    assert made.flops_per_sample() > 1e5


@pytest.mark.parametrize("name", NETWORKS)
def test_feature_maps_are_those_of_the_network_itself(networks: Path, name: str) -> None:
    """With the weights of the folder, and colours as its processor brings them."""
    from transformers import AutoModel

    said = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (networks / name / "preprocessor_config.json").write_text(json.dumps(said))
    encoder, key = tiny(networks, name).eval().images[0], "observation.images.View1"
    (networks / name / "preprocessor_config.json").unlink()
    images, given = make_batch(SPEC)[key], []
    encoder.backbone.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    found: list[Any] = []
    encoder.backbone.register_forward_hook(lambda _, __, output: found.append(output.feature_maps))
    with torch.no_grad():
        encoder(images, torch.zeros(4, 1, dtype=torch.bool), torch.zeros(4, 32))
        mean, std = (torch.tensor(said[k]).view(3, 1, 1) for k in ("image_mean", "image_std"))
        torch.testing.assert_close(given[0], (images[:, 0] / 255 - mean) / std)
        whole: Any = AutoModel.from_pretrained(networks / name, dtype=torch.float32).eval()
        last = whole(given[0], output_hidden_states=True).last_hidden_state
    if name == "convnext":
        last = found[0][-1]  # which is normed: compare the shape and the weights
        own = whole.state_dict()
        pairs = [(value, own[k]) for k, value in encoder.backbone.state_dict().items() if k in own]
        assert len(pairs) > 30
        assert all(torch.equal(a, b) for a, b in pairs)
    elif name == "dinov2":
        last = last[:, 1:].transpose(1, 2).unflatten(2, (16, 24))
    torch.testing.assert_close(found[0][-1], last)
    assert [tuple(each.shape[2:]) for each in found[0]] == {"dinov2": [(16, 24)]}.get(name, [(8, 12), (2, 3)])


def test_what_matters_changes_the_answer_and_padding_does_not(networks: Path) -> None:
    policy, batch = tiny(networks, "resnet").eval(), make_batch(SPEC)
    for reading in (policy.images[0].fine, policy.images[0].last):
        torch.nn.init.normal_(reading.film.weight)
    before, key = policy.act(batch), "observation.images.View1"
    assert not torch.equal(policy.act({**batch, key: 255 - batch[key]}), before)
    is_pad = torch.zeros(4, 1, dtype=torch.bool)
    said = [policy.images[0](batch[key], is_pad, torch.full((4, 32), number)) for number in (0.5, 1.5)]
    assert not any(torch.equal(a, b) for a, b in zip(*said, strict=True))
    absent = {f"{key}_is_pad": torch.ones(4, 1, dtype=torch.bool)}
    assert torch.equal(policy.act(batch | absent), policy.act({**batch, **absent, key: 255 - batch[key]}))


def test_network_learns_slower_or_not_at_all_and_keeps_its_statistics(networks: Path) -> None:
    policy, batch = tiny(networks, "resnet", backbone_lr=0.25).train(), make_batch(SPEC)
    factors = {group["name"]: group["lr_factor"] for group in optimizer_groups(policy, weight_decay=0.1)}
    assert factors == {"backbone": 0.25, "all": 1.0}
    before = {key: value.clone() for key, value in policy.images[0].backbone.named_buffers()}
    assert any("running_mean" in key for key in before)
    Trainable(freeze=("images.*.backbone.*",)).apply(policy)
    policy.loss(batch).mean.backward()
    assert all(torch.equal(value, before[key]) for key, value in policy.images[0].backbone.named_buffers())
    assert all(parameter.grad is None for parameter in policy.images[0].backbone.parameters())
    assert policy.images[0].last.convolution.weight.grad.abs().sum() > 0


def test_wrong_networks_are_refused_in_one_line(
    networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    def refusal(name: str | Path, **args: Any) -> str:
        with pytest.raises(UsageError) as refused:
            tiny(networks, str(name), **args)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    assert "vit gives no feature maps (a network with feature maps, such as ResNet" in refusal("vit")
    assert "cannot be read" in refusal("nothing")
    assert "expected a folder or a name, found 3" in refusal("resnet", backbone=3)
    part = tmp_path / "part"
    part.mkdir()
    (part / "config.json").write_bytes((networks / "resnet" / "config.json").read_bytes())
    weights = load_file(networks / "resnet" / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "stages.1" not in k}, part / "model.safetensors", {"format": "pt"})
    assert "weights are missing, such as encoder.stages.1." in refusal(part)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "needs transformers, which is not installed (in the checkout" in refusal("resnet")


def test_run_is_trained_saved_and_loaded_again(networks: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    args = {"dim": 16, "depth": 1, "num_heads": 2, "num_word_buckets": 64, "backbone": str(networks / "resnet")}
    policy: Any = vlapipe.load_policy(make_run(tiny_dataset, tmp_path / "run", policy="regression", policy_args=args))
    trained = policy.images[0].backbone.state_dict()
    pretrained = build_policy("regression", policy.spec, args).images[0].backbone.state_dict()  # type: ignore[union-attr, index]
    assert any(not torch.equal(value, pretrained[key]) for key, value in trained.items())
    assert policy.runner().step(observed()).shape == (policy.spec.action[1],)
