"""A compiled policy learns the same, and the run says how many graphs it has, why it splits and compiles again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import SMALL, options, run_ranks
from synthetic import make_batch, make_spec

from vlapipe.schemas.errors import UsageError, VlapipeError
from vlapipe.train.config import TrainConfig
from vlapipe.train.loop import train
from vlapipe.train.policies import compiled
from vlapipe.train.policies.compiled import compile_policy
from vlapipe.train.policies.loss_module import LossOf
from vlapipe.train.policies.regression import RegressionPolicy
from vlapipe.train.report.metrics import METRICS_FILE, read_metrics

CPU = torch.device("cpu")
ODD = "policies_under_test:HardToCompile"
TRACED = "from vlapipe.train.policies import compiled; compiled.BACKEND = 'eager'; import train_main; train_main.main()"


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are found as in a real compilation, and then run by plain torch: seconds instead of minutes."""
    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "BACKEND", "eager")


def losses(out: Path) -> list[float]:
    return [line[key] for line in read_metrics(out / METRICS_FILE) for key in ("train/loss", "val/loss") if key in line]


def trained(data: Path, out: Path, **changes: Any) -> list[float]:
    train(TrainConfig.of(**options(data, out, **changes)))
    return losses(out)


def test_regression_policy_is_one_graph_in_training_and_one_in_validation(
    traced: None, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = {"eval_every": 3, "eval_batches": 2}
    plain = trained(tiny_dataset, tmp_path / "plain", **common)
    assert trained(tiny_dataset, tmp_path / "compiled", compile="default", **common) == pytest.approx(plain, rel=1e-5)
    said = capsys.readouterr().err
    assert re.search(r"^compiled \(default\): 1 graph in \d+ s, no graph breaks$", said, re.MULTILINE)
    assert re.search(r"^compiled in all: 2 graphs in \d+ s, no graph breaks$", said, re.MULTILINE)
    assert "compiled again" not in said


def test_texts_that_are_prepared_do_not_compile_again(traced: None) -> None:
    said: list[str] = []
    spec = make_spec(images={})
    module = LossOf(RegressionPolicy(spec, **SMALL))
    watch = compile_policy(module, [], "default", device=CPU, num_passes=1, say=said.append)
    for i in range(4):
        module(make_batch(spec, seed=i) | {"task": [f"sentence {i} {j}" for j in range(4)]})
    assert (watch.counts.versions, len(said)) == (1, 1)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("split", r"compiled \(default\): 2 graphs in \d+ s, 1 graph break: .*\(policies_under_test.py:\d+\)"),
        ("again", r"compiled again, compute: .*factor == 1.*"),
        ("texts", r"compiled in all: .*; compiled again \d+ times?, first because of compute: .*task.*"),
    ],
)
def test_what_makes_compilation_less_useful_is_said(
    traced: None, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, line: str
) -> None:
    trained(tiny_dataset, tmp_path / "run", policy=ODD, policy_args={"kind": kind}, compile="default", max_steps=8)
    said = capsys.readouterr().err
    assert re.search(rf"^{line}$", said, re.MULTILINE), said
    assert said.count("compiled again, ") <= 3


def test_blocks_that_are_recomputed_in_backward_are_compiled_too(
    traced: None, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = trained(tiny_dataset, tmp_path / "plain", max_steps=3)
    both = {"compile": "default", "gradient_checkpointing": True, "max_steps": 3}
    assert trained(tiny_dataset, tmp_path / "both", **both) == pytest.approx(plain, rel=1e-5)
    assert "1 graph in " in capsys.readouterr().err


@pytest.mark.slow
def test_each_block_is_compiled_under_fsdp_and_the_whole_loss_under_ddp(tiny_dataset: Path, tmp_path: Path) -> None:
    plain = run_ranks(options(tiny_dataset, tmp_path / "plain", max_steps=3))
    assert [rank.code for rank in plain] == [0] * 4
    for kind, graphs in (("ddp", r"1 graph "), ("fsdp", r"[2-9] graphs ")):
        out = tmp_path / kind
        argument = options(tiny_dataset, out, max_steps=3, parallel=kind, compile="default")
        ranks = run_ranks(argument, code=TRACED)
        assert [rank.code for rank in ranks] == [0] * 4, ranks[0].err
        assert losses(out) == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
        assert re.search(rf"^compiled \(default\): {graphs}", ranks[0].err, re.MULTILINE), ranks[0].err
        assert "compiled" not in ranks[1].err


def test_missing_compiler_is_one_line(tiny_dataset: Path, tmp_path: Path) -> None:
    import torch._inductor.config as inductor

    with inductor.patch("cpp.cxx", (None, "no-such-compiler")), pytest.raises(UsageError) as caught:
        trained(tiny_dataset, tmp_path / "run", compile="default")
    assert str(caught.value).startswith("--compile needs a C++ compiler on a CPU, and found none (install g++, ")
    assert (caught.value.exit_code, "\n" in str(caught.value)) == (2, False)


def test_policy_that_cannot_be_compiled_is_one_line(
    traced: None, monkeypatch: pytest.MonkeyPatch, tiny_dataset: Path, tmp_path: Path
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise NotImplementedError("no kernel\nfor this")

    monkeypatch.setattr(compiled, "BACKEND", fails)
    with pytest.raises(VlapipeError, match=r"^torch.compile fails on the policy: .*no kernel") as caught:
        trained(tiny_dataset, tmp_path / "run", policy=ODD, policy_args={"kind": ""}, compile="default")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_real_compiler_gives_the_same_losses(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch._dynamo.reset()
    common = {"eval_every": 3, "eval_batches": 2, "grad_accum": 2}
    plain = trained(tiny_dataset, tmp_path / "plain", **common)
    assert trained(tiny_dataset, tmp_path / "compiled", compile="default", **common) == pytest.approx(plain, rel=1e-4)
    assert re.search(r"^compiled in all: 2 graphs in \d+ s, no graph breaks$", capsys.readouterr().err, re.MULTILINE)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("num_passes", [1, 2])
def test_compiled_on_a_gpu_gives_the_same_losses(
    tiny_dataset: Path, tmp_path: Path, mode: str, num_passes: int
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    torch._dynamo.reset()
    common = {"grad_accum": num_passes, "precision": "fp32"}
    plain = trained(tiny_dataset, tmp_path / "plain", **common)
    assert trained(tiny_dataset, tmp_path / "compiled", compile=mode, **common) == pytest.approx(plain, rel=1e-3)
