"""A policy that cannot be loaded is refused in one line with the cure."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from synthetic import make_spec
from torch import nn

from vlapipe.schemas.errors import UsageError
from vlapipe.train.policies.base import blocks_of
from vlapipe.train.policies.recompute import recompute_in_backward
from vlapipe.train.policies.registry import build_policy, load_policy_class
from vlapipe.train.policies.regression import RegressionPolicy

MINE = """
import torch
from torch import nn

class Policy(nn.Module):
    def __init__(self, spec, *, width=8):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(spec.action))
        self.width = width
    def loss(self, batch):
        return self.weight.sum()
    def act(self, observation):
        return self.weight

class NoAct(nn.Module):
    def loss(self, batch): ...

class Greedy(Policy):
    def __init__(self, spec, **anything):
        super().__init__(spec)
        if anything:
            raise ValueError("too much")

class Faulty(Policy):
    def __init__(self, spec):
        super().__init__(spec)
        spec.images["View9"]

class Abstract:
    pass

number = 3
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a policy module in it, as the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    (tmp_path / "my_policy.py").write_text(MINE)
    (tmp_path / "broken_policy.py").write_text("1 / 0\n")
    (tmp_path / "needy_policy.py").write_text("import not_installed_anywhere\n")
    yield tmp_path
    for name in ("my_policy", "broken_policy", "needy_policy"):
        sys.modules.pop(name, None)


def test_built_in_name_gives_the_built_in_class() -> None:
    assert load_policy_class("regression") is RegressionPolicy


def test_class_in_the_current_folder_is_found_and_built() -> None:
    policy_class = load_policy_class("my_policy:Policy")
    assert policy_class.__name__ == "Policy"
    policy = build_policy(policy_class, make_spec(), {"width": 3})
    assert isinstance(policy, nn.Module)
    assert policy.width == 3


@pytest.mark.parametrize(
    ("name", "problem", "cure"),
    [
        ("regresion", "unknown policy", "did you mean 'regression'?"),
        ("zzz", "unknown policy", "pkg.module:Class"),
        ("my_policy:", "unknown policy", "pkg.module:Class"),
        ("my_polcy:Policy", "no module 'my_polcy'", "PYTHONPATH"),
        ("my_policy.sub:Policy", "no module 'my_policy.sub'", "PYTHONPATH"),
        ("broken_policy:Policy", "ZeroDivisionError: division by zero", "python -c"),
        ("needy_policy:Policy", "No module named 'not_installed_anywhere'", "install not_installed_anywhere"),
        ("my_policy:Polcy", "no 'Polcy'", "did you mean 'Policy'?"),
        ("my_policy:NoAct", "NoAct has no act", "loss(batch) and act(observation)"),
        ("my_policy:Abstract", "expected a subclass of torch.nn.Module, found class Abstract", ""),
        ("my_policy:number", "expected a subclass of torch.nn.Module, found a int", ""),
    ],
)
def test_policy_that_cannot_be_loaded_is_explained(name: str, problem: str, cure: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_policy_class(name)
    assert problem in caught.value.problem
    assert cure in caught.value.cure
    assert "\n" not in str(caught.value)


def test_unknown_argument_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown argument 'dimm'.*did you mean 'dim'"):
        build_policy(RegressionPolicy, make_spec(), {"dimm": 64})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("dim", value) for value in (0, -8, 20, 8.0, True, "64")),
        *((name, 0) for name in ("depth", "num_heads", "image_width", "num_word_buckets")),
        ("num_word_buckets", 1),
        ("image_width", 12),
    ],
)
def test_size_that_makes_no_network_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"policy_args {name}: expected a whole number from \d+.*, found {value!r}"):
        build_policy(RegressionPolicy, make_spec(), {name: value})


def test_fault_within_a_constructor_is_one_line_with_its_place() -> None:
    with pytest.raises(UsageError, match=r"Faulty cannot be built: KeyError: 'View9' \(my_policy\.py:\d+\)"):
        build_policy(load_policy_class("my_policy:Faulty"), make_spec(), {})


def test_refused_value_is_one_line() -> None:
    with pytest.raises(UsageError, match="multiple of num_heads"):
        build_policy(RegressionPolicy, make_spec(), {"dim": 64, "num_heads": 3})
    with pytest.raises(UsageError, match="too much"):
        build_policy(load_policy_class("my_policy:Greedy"), make_spec(), {"x": 1})


def test_gradient_checkpointing_is_refused_where_the_policy_names_no_blocks() -> None:
    policy = build_policy(load_policy_class("my_policy:Policy"), make_spec(), {})
    with pytest.raises(UsageError, match="does not do gradient checkpointing"):
        recompute_in_backward(policy, blocks_of(policy))
