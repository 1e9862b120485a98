"""Real steps find the largest batch that fits; a step keeps its samples, and the answer is remembered; not on a CPU."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from launching import SMALL, options
from synthetic import make_batch, make_spec

from vlapipe.cli import cli
from vlapipe.schemas.errors import StoppedError, UsageError
from vlapipe.train.batch_size import (
    Memory,
    Room,
    Trial,
    digest_of_step,
    divisors,
    joined,
    largest_that_fits,
    repeated,
    with_batch_size,
)
from vlapipe.train.config import CONFIG_FILE, TrainConfig
from vlapipe.train.faults import explain_device_errors
from vlapipe.train.loop import build, train
from vlapipe.train.policies.regression import RegressionPolicy

CPU = torch.device("cpu")


def config(**changes: Any) -> TrainConfig:
    return TrainConfig.of(**({"data": "data", "out": "run", "policy_args": SMALL} | changes))


@pytest.mark.parametrize("limit", range(14))
def test_search_finds_the_largest_with_few_trials(limit: int) -> None:
    sizes, tried = [2, 3, 5, 8, 13], []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= limit

    assert largest_that_fits(sizes, fits) == max((size for size in sizes if size <= limit), default=None)
    assert len(tried) <= 2 + math.ceil(math.log2(len(sizes)))


def test_one_size_is_tried_only_once_more() -> None:
    assert largest_that_fits([1], lambda _: True) == 1


class Limited(RegressionPolicy):
    """A GPU that holds 12 samples: the thirteenth is one too many, in forward or in the optimizer's first step."""

    def loss(self, batch: dict[str, Any]) -> Any:
        """As it should be, up to the limit."""
        if len(batch["action"]) > 12:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().loss(batch)


@pytest.mark.parametrize(
    ("wanted", "accumulated", "expected"), [(8, 1, (8, 1)), (32, 1, (8, 4)), (12, 5, (12, 5)), (13, 1, (1, 13))]
)
def test_real_steps_decide_and_the_samples_of_a_step_stay(
    wanted: int, accumulated: int, expected: tuple[int, int]
) -> None:
    spec = make_spec(images={})
    asked = config(batch_size=wanted, grad_accum=accumulated, ema=0.9)
    policy = Limited(spec, **SMALL)
    trial = Trial(asked, policy, make_batch(spec, 3), "fp32", CPU)
    found = largest_that_fits(divisors(wanted * accumulated), trial)
    assert found is not None
    fitted = with_batch_size(asked, found)
    assert (fitted.data.batch_size, fitted.optim.grad_accum) == expected
    assert fitted.data.batch_size * fitted.optim.grad_accum == wanted * accumulated
    assert not fitted.data.fit_batch_size
    assert all(p.grad is None for p in policy.parameters())


def test_trial_holds_the_state_of_the_optimizer_and_tells_other_errors() -> None:
    spec = make_spec(images={})
    policy = RegressionPolicy(spec, **SMALL)
    trial = Trial(config(), policy, make_batch(spec, 2), "fp32", CPU)
    assert trial(2)
    assert {"exp_avg", "exp_avg_sq"} <= set(next(iter(trial._made[1].state.values())))
    policy.loss = lambda _: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        trial(2)


def test_samples_are_repeated_and_joined_with_their_texts() -> None:
    batch = make_batch(make_spec(), 3)
    more = repeated(batch, 7)
    assert more["index"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert more["task"] == [batch["task"][i] for i in (0, 1, 2, 0, 1, 2, 0)]
    both = joined([batch, repeated(batch, 2)])
    assert both["index"].tolist() == [0, 1, 2, 0, 1]
    assert both["task"] == [*batch["task"], *batch["task"][:2]]


def test_answer_is_remembered_by_what_memory_depends_on_and_a_damaged_file_is_no_answer(tmp_path: Path) -> None:
    spec = make_spec(images={})
    policy, batch, gpu = RegressionPolicy(spec, **SMALL), make_batch(spec), ["NVIDIA A100", 80 * 10**9]
    wider = RegressionPolicy(spec, **(SMALL | {"dim": 64}))
    longer = make_batch(make_spec(images={}, state=(20, 4)))
    keys = [
        digest_of_step(config(), policy, batch, "bf16", gpu),
        digest_of_step(config(), policy, batch, "fp32", gpu),
        digest_of_step(config(), wider, batch, "bf16", gpu),
        digest_of_step(config(), policy, longer, "bf16", gpu),
        digest_of_step(config(), policy, batch, "bf16", ["NVIDIA A100", 40 * 10**9]),
        digest_of_step(config(gradient_checkpointing=True), policy, batch, "bf16", gpu),
        digest_of_step(config(grad_accum=2), policy, batch, "bf16", gpu),
    ]
    assert len(set(keys)) == len(keys)
    assert digest_of_step(config(seed=3, learning_rate=1.0), policy, repeated(batch, 9), "bf16", gpu) == keys[0]

    file = tmp_path / "cache" / "batch_sizes.json"
    assert Memory(file, keys[0]).read() is None
    Memory(file, keys[0]).write(16)
    Memory(file, keys[1]).write(8)
    assert (Memory(file, keys[0]).read(), Memory(file, keys[1]).read(), Memory(file, keys[2]).read()) == (16, 8, None)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    file.write_text("[1")
    assert Memory(file, keys[0]).read() is None
    Memory(file, keys[0]).write(4)
    assert json.loads(file.read_text()) == {keys[0]: 4}


@pytest.mark.parametrize(
    ("in_file", "flags", "expected"),
    [
        ("", {}, (64, False)),
        ("", {"batch_size": "auto"}, (64, True)),
        ("batch_size = 48", {"batch_size": "auto"}, (48, True)),
        ('batch_size = "auto"', {}, (64, True)),
        ('batch_size = "auto"', {"batch_size": 16}, (16, False)),
        ("[data]\nbatch_size = 48\nfit_batch_size = true", {}, (48, True)),
    ],
)
def test_auto_keeps_the_number_that_an_earlier_source_gave(
    tmp_path: Path, in_file: str, flags: dict[str, Any], expected: tuple[int, bool]
) -> None:
    file = tmp_path / "train.toml"
    file.write_text(in_file)
    read = TrainConfig.from_sources(file, {"data": "data", "out": "run", **flags})
    assert (read.data.batch_size, read.data.fit_batch_size) == expected


def test_no_gpu_is_one_line(tiny_dataset: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    arguments = ["train", "--data", str(tiny_dataset), "--out", str(tmp_path / "run"), "--batch-size"]
    done = CliRunner().invoke(cli, [*arguments, "auto"])
    assert isinstance(done.exception, UsageError)
    assert str(done.exception) == (
        "--batch-size auto: measures the memory of a GPU, and there is none here "
        "(give a number, for example --batch-size 32)"
    )
    assert done.exception.exit_code == 2
    assert not (tmp_path / "run").exists()
    done = CliRunner().invoke(cli, [*arguments, "atuo"])
    assert (done.exit_code, "'atuo' is not a valid integer" in done.output) == (2, True)


GB = 10**9


@pytest.mark.parametrize(
    ("room", "message"),
    [
        (
            Room(used=23 * GB, total=24 * GB, held=4 * GB, of_sample=GB),
            "CUDA out of memory; 23.0 of 24.0 GB were in use; a sample takes 1,000 MB, so about 18 fit "
            "(try --batch-size 16 --grad-accum 4, or --batch-size auto, or --gradient-checkpointing, or smaller images",
        ),
        (
            Room(used=23 * GB, total=24 * GB, held=24 * GB, of_sample=GB),
            "so about 0 fit (try --gradient-checkpointing, or smaller images",
        ),
        (
            None,
            "CUDA out of memory (try --batch-size 16 --grad-accum 4, or --gradient-checkpointing, or smaller images",
        ),
    ],
)
def test_lack_of_a_gpus_memory_has_the_figures_and_what_fits(
    monkeypatch: pytest.MonkeyPatch, tiny_dataset: Path, tmp_path: Path, room: Room | None, message: str
) -> None:
    monkeypatch.setattr("vlapipe.train.faults._room_on_gpu", lambda *_: room)
    values = options(tiny_dataset, tmp_path / "run", batch_size=32, grad_accum=2)
    with (
        build(TrainConfig.of(**values)) as run,
        pytest.raises(StoppedError) as caught,
        explain_device_errors(run),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")
    assert str(caught.value).startswith("the GPU's memory does not hold batch_size 32: CUDA out of memory")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
def test_batch_that_fits_a_gpu_is_found_and_remembered_and_one_that_does_not_is_explained(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # A quarter of a GPU's memory or so is left to the policy, whose samples have images of 1024x1024.
    taken = torch.empty(int(0.75 * torch.cuda.mem_get_info()[0]), dtype=torch.uint8, device="cuda")
    large = {"image_resize_height": 1024, "image_resize_width": 1024, "policy_args": {"image_width": 256}}
    common = {"batch_size": 128, "max_steps": 2, "prefetch_factor": 1, "precision": "bf16", **large}
    train(TrainConfig.of(**options(tiny_dataset, tmp_path / "auto", **(common | {"fit_batch_size": True}))))
    said = capsys.readouterr().err
    assert "the largest that fits into" in said
    assert "(found in " in said
    saved = json.loads((tmp_path / "auto" / CONFIG_FILE).read_text())
    found, passes = saved["data"]["batch_size"], saved["optim"]["grad_accum"]
    assert found * passes == 128
    assert found < 128
    train(TrainConfig.of(**options(tiny_dataset, tmp_path / "again", **(common | {"fit_batch_size": True}))))
    assert f"batch size {found} in " in (again := capsys.readouterr().err)
    assert "(as found before, see " in again
    with pytest.raises(
        StoppedError, match=r"GB were in use; a sample takes [\d,]+ MB, so about \d+ fit \(try --batch-size"
    ):
        train(TrainConfig.of(**options(tiny_dataset, tmp_path / "whole", **common)))
    del taken
