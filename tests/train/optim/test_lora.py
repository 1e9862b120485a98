"""LoRA: adapters train, the rest stands still, and the merged weights do what the adapted policy did."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from vlapipe.schemas.errors import UsageError
from vlapipe.train.optim.groups import optimizer_groups
from vlapipe.train.optim.lora import linear_layers, merged
from vlapipe.train.optim.optimizer import make_optimizer
from vlapipe.train.optim.trainable import LoRA, Trainable

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


class Arm(nn.Module):
    """A layer, a norm, attention, and a layer without a bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.ModuleDict({"q": nn.Linear(4, 8), "norm": nn.LayerNorm(8)})
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """From (B, T, 4) to (B, T, 2)."""
        x = self.body["norm"](self.body["q"](x))
        return self.head(self.attention(x, x, x, need_weights=False)[0])


@pytest.fixture
def fast_path() -> Iterator[None]:
    torch.backends.mha.set_fastpath_enabled(True)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


LORA = Trainable(lora=LoRA(targets=("body.*",), rank=2, alpha=3))


def train(policy: nn.Module, num_steps: int = 5) -> None:
    optimizer = make_optimizer(policy, learning_rate=1e-2, weight_decay=0.1)
    for seed in range(num_steps):
        x = torch.randn(8, 3, 4, generator=torch.Generator().manual_seed(seed))
        policy(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_output_layer_of_torchs_attention_is_no_target() -> None:
    assert linear_layers(Arm()) == ["body.q", "head"]


def test_missing_peft_is_one_line_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(UsageError, match=r"\[trainable.lora\] needs peft.*pip install '\.\[lora\]'") as caught:
        LORA.apply(Arm())
    assert "\n" not in str(caught.value)


@needs_peft
def test_adapted_policy_begins_with_the_same_outputs() -> None:
    policy, x = Arm(), torch.randn(2, 3, 4)
    before = policy(x)
    LORA.apply(policy)
    torch.testing.assert_close(policy(x), before)


@needs_peft
def test_only_adapters_and_what_train_names_move() -> None:
    policy = Arm()
    Trainable(train=("head.*",), lora=LORA.lora).apply(policy)
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    train(policy)
    moved = {name for name, p in policy.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"body.q.lora_A.default.weight", "body.q.lora_B.default.weight", "head.weight"}
    assert sum(len(group["params"]) for group in optimizer_groups(policy, weight_decay=0.1)) == 3


@needs_peft
def test_merged_weights_have_the_plain_names_and_the_same_outputs() -> None:
    policy, x = Arm(), torch.randn(2, 3, 4)
    before = Arm()(x)
    LORA.apply(policy)
    train(policy)
    plain = Arm()
    assert LORA.lora is not None
    plain.load_state_dict(merged(policy.state_dict(), LORA.lora.scale))
    torch.testing.assert_close(plain(x), policy(x), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(policy(x), before, rtol=1e-3)


@needs_peft
def test_layer_whose_name_ends_like_a_targets_name_is_left_alone() -> None:
    policy = nn.ModuleDict({"q": nn.Linear(4, 4), "deep": nn.ModuleDict({"q": nn.Linear(4, 4)})})
    Trainable(lora=LoRA(targets=("q",))).apply(policy)
    assert [name for name, _ in policy.named_parameters() if "lora" in name] == [
        "q.lora_A.default.weight",
        "q.lora_B.default.weight",
    ]


@needs_peft
def test_same_seed_makes_the_same_adapters() -> None:
    first, second = Arm(), Arm()
    for policy in (first, second):
        torch.manual_seed(3)
        LORA.apply(policy)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@needs_peft
def test_adapted_stock_transformer_is_validated_with_its_adapters(fast_path: None) -> None:
    # torch's own fast path in evaluation reads the weights of the two linear layers and never calls them.
    torch.manual_seed(0)
    policy = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    Trainable(lora=LoRA(targets=("linear*",))).apply(policy)
    with torch.no_grad():
        policy.linear1.lora_B["default"].weight.fill_(1.0)
        x = torch.randn(2, 3, 8)
        in_training = policy.train()(x)
        torch.testing.assert_close(policy.eval()(x), in_training, rtol=1e-4, atol=1e-5)


def test_merging_leaves_other_tensors_and_their_dtypes() -> None:
    tensors = {
        "a.base_layer.weight": torch.zeros(2, 3, dtype=torch.bfloat16),
        "a.base_layer.bias": torch.ones(2),
        "a.lora_A.default.weight": torch.ones(1, 3),
        "a.lora_B.default.weight": torch.full((2, 1), 2.0),
        "own.base_layer.weight": torch.ones(1),
        "steps": torch.ones((), dtype=torch.int64),
    }
    plain = merged(tensors, 0.5)
    assert list(plain) == ["a.weight", "a.bias", "own.base_layer.weight", "steps"]
    assert torch.equal(plain["a.weight"], torch.ones(2, 3, dtype=torch.bfloat16))
    assert plain["steps"].dtype == torch.int64
