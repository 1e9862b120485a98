"""The config combines three layers, refuses unknown keys, and survives JSON."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from vlapipe.schemas.errors import UsageError
from vlapipe.train.config import CONFIG_FILE, EPOCHS, TrainConfig, option_fields
from vlapipe.train.optim.schedule import SCHEDULES

REQUIRED: dict[str, Any] = {"data": "data", "out": "run"}


def write_toml(folder: Path, text: str) -> Path:
    file = folder / "train.toml"
    file.write_text(text)
    return file


def test_option_list_is_as_documented() -> None:
    # A frozen list: a new option is added here, in docs/training.md and in cli.py together.
    names = """
        data batch_size fit_batch_size num_workers prefetch_factor cache_dir cache_size shuffle_shards where weights
        mix embodiments augment augmentation transforms image_resize
        image_resize_height image_resize_width out policy policy_args sample action normalize normalize_floor init
        trainable precision compile attention
        gradient_checkpointing deterministic resume epochs max_steps seed grad_accum learning_rate weight_decay schedule
        warmup_steps stable_steps decay_steps min_lr_ratio grad_clip ema ema_warmup
        parallel shard_size unused_parameters hang_timeout_s save_every async_save keep_checkpoints keep_best
        best_metric best_is keep_every eval_every eval_batches eval_env eval_env_every eval_env_episodes
        eval_env_args log_every wandb tensorboard profile
    """
    assert list(option_fields()) == names.split()


def test_flags_lie_over_the_file_and_none_is_not_given(tmp_path: Path) -> None:
    file = write_toml(tmp_path, 'batch_size = 8\nmax-steps = 50\nlearning_rate = 1\ndata = "a"\nout = "b"\n')
    config = TrainConfig.from_sources(file, {"batch_size": 4, "max_steps": None, "data": Path("c")})
    assert (config.data.batch_size, config.max_steps, config.optim.learning_rate) == (4, 50, 1.0)
    assert (config.data.paths, config.out) == ((Path("c"),), Path("b"))


def test_schedules_are_those_that_there_are() -> None:
    assert option_fields()["schedule"][1].metadata["choices"] == SCHEDULES


def test_average_that_would_never_move_is_refused() -> None:
    with pytest.raises(UsageError, match="ema: expected a number below 1, found 1"):
        TrainConfig.of(**REQUIRED, ema=1)


def test_stable_steps_leave_steps_to_decay_in() -> None:
    options = {**REQUIRED, "schedule": "wsd", "max_steps": 100, "warmup_steps": 10}
    assert TrainConfig.of(**options, stable_steps=88).optim.stable_steps == 88
    with pytest.raises(UsageError, match="stable_steps 89 after warmup_steps 10 leave no steps to decay in: decay_st"):
        TrainConfig.of(**options, stable_steps=89)
    assert TrainConfig.of(**options, stable_steps=89, decay_steps=200).optim.stable_steps == 89


def test_data_is_one_path_or_several(tmp_path: Path) -> None:
    file = write_toml(tmp_path, 'data = ["a", "b"]\nout = "run"\n')
    assert TrainConfig.from_sources(file, {}).data.paths == (Path("a"), Path("b"))
    assert TrainConfig.from_sources(file, {"data": (Path("c"),)}).data.paths == (Path("c"),)
    for wrong in (7, [], ["a", 7]):
        with pytest.raises(UsageError, match="data: expected a path or several, found "):
            TrainConfig.of(data=wrong, out=tmp_path)


def test_policy_arguments_come_from_a_table(tmp_path: Path) -> None:
    file = write_toml(tmp_path, "[policy_args]\ndim = 64\n")
    assert TrainConfig.from_sources(file, REQUIRED).policy_args == {"dim": 64}


def test_size_of_the_cache_is_bytes_or_a_text(tmp_path: Path) -> None:
    file = write_toml(tmp_path, 'cache_size = "1.5GB"\ncache_dir = "scratch"\n')
    config = TrainConfig.from_sources(file, REQUIRED)
    assert (config.data.cache_size, config.data.cache_dir) == (1_500_000_000, Path("scratch"))
    assert TrainConfig.from_sources(file, REQUIRED | {"cache_size": 7}).data.cache_size == 7


def test_what_is_left_open_is_derived_from_max_steps() -> None:
    config = TrainConfig.of(**REQUIRED, max_steps=300)
    assert (config.optim.warmup_steps, config.eval.eval_every, config.checkpoint.save_every) == (30, 50, 100)
    assert TrainConfig.of(**REQUIRED, max_steps=100_000).checkpoint.save_every == 1000


def test_a_run_is_as_long_as_its_epochs_need() -> None:
    config = TrainConfig.of(**REQUIRED, epochs=3, batch_size=10, grad_accum=2)
    known = config.with_length(1000, num_ranks=4)
    assert (known.num_steps, known.epochs) == (38, None)  # 3 x 1000 frames, 80 a step
    assert (known.optim.warmup_steps, known.optim.decay_steps) == (3, 38)
    assert TrainConfig.of(**REQUIRED, batch_size=10).with_length(1000, 1).num_steps == EPOCHS * 100
    assert TrainConfig.of(**REQUIRED, max_steps=7).with_length(1000, 1).num_steps == 7


def test_a_run_has_one_length(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="epochs and max_steps: a run has one length"):
        TrainConfig.of(**REQUIRED, epochs=3, max_steps=7)
    with pytest.raises(UsageError, match="epochs: expected a number above 0, found 0"):
        TrainConfig.of(**REQUIRED, epochs=0)
    file = write_toml(tmp_path, "epochs = 2\n")
    assert TrainConfig.from_sources(file, {**REQUIRED, "max_steps": 9}).num_steps == 9


def test_resumed_run_may_be_made_longer_in_epochs(tmp_path: Path) -> None:
    saved = TrainConfig.of(data=Path("d"), out=tmp_path, epochs=2, batch_size=10).with_length(100, 1)
    (tmp_path / CONFIG_FILE).write_text(json.dumps(saved.to_dict()))
    assert TrainConfig.from_sources(None, {"out": tmp_path, "resume": True}).num_steps == 20
    longer = TrainConfig.from_sources(None, {"out": tmp_path, "resume": True, "epochs": 4}).with_length(100, 1)
    assert (longer.num_steps, longer.optim.decay_steps) == (40, 20)  # the learning rate keeps its schedule


def test_dict_survives_json_and_gives_the_same_config() -> None:
    config = TrainConfig.of(data=Path("/data"), out=Path("/run"), compile="max-autotune", policy_args={"dim": 64})
    assert TrainConfig.of(**json.loads(json.dumps(config.to_dict()))) == config


def test_options_may_stand_in_the_table_of_their_group(tmp_path: Path) -> None:
    file = write_toml(tmp_path, 'out = "run"\n[data]\npaths = ["a"]\nbatch-size = 8\n[parallel]\nkind = "ddp"\n')
    config = TrainConfig.from_sources(file, {"learning_rate": 1.0})
    assert (config.data.paths, config.data.batch_size, config.optim.learning_rate) == ((Path("a"),), 8, 1.0)
    file = write_toml(tmp_path, "[optim]\nbatch_size = 8\n")
    with pytest.raises(UsageError, match=r"unknown option 'batch_size' in \[optim\]"):
        TrainConfig.from_sources(file, REQUIRED)


def test_config_that_an_earlier_version_saved_flat_is_read(tmp_path: Path) -> None:
    saved = TrainConfig.of(data=Path("old"), out=tmp_path, batch_size=7, max_steps=40, save_every=9).to_flat()
    (tmp_path / CONFIG_FILE).write_text(json.dumps(saved))
    config = TrainConfig.from_sources(None, {"out": tmp_path, "resume": True})
    assert (config.data.batch_size, config.max_steps, config.checkpoint.save_every) == (7, 40, 9)


def test_resumed_run_begins_with_its_own_options(tmp_path: Path) -> None:
    saved = TrainConfig.of(data=Path("old"), out=tmp_path, batch_size=7, max_steps=40, seed=3)
    (tmp_path / CONFIG_FILE).write_text(json.dumps(saved.to_dict() | {"from_another_version": 1, "log": {"odd": 2}}))
    file = write_toml(tmp_path, "seed = 4\n")
    config = TrainConfig.from_sources(file, {"out": tmp_path, "resume": True, "data": "new", "max_steps": 80})
    assert (config.data.batch_size, config.max_steps, config.seed, config.data.paths) == (7, 80, 4, (Path("new"),))
    assert TrainConfig.from_sources(None, {"out": tmp_path, "data": "new"}).data.batch_size == 64


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"batch_sise": 3}, "unknown option 'batch_sise' (did you mean 'batch_size'?)"),
        ({"batch_size": 0}, "batch_size: expected a whole number from 1, found 0"),
        ({"batch_size": 2.5}, "batch_size: expected a whole number from 1, found 2.5"),
        ({"batch_size": True}, "batch_size: expected a whole number from 1, found True"),
        ({"batch_size": "32"}, "batch_size: expected a whole number from 1, found '32'"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a number from 0, found nan"),
        ({"learning_rate": float("inf")}, "learning_rate: expected a number from 0, found inf"),
        ({"min_lr_ratio": 1.5}, "min_lr_ratio: expected a number from 0 to 1, found 1.5"),
        ({"precision": "bf61"}, "precision 'bf61': unknown (did you mean 'bf16'?)"),
        ({"precision": "int4"}, "precision 'int4': unknown (known: auto, bf16, fp32)"),
        ({"compile": "fast"}, "compile 'fast': unknown (known: default, max-autotune, reduce-overhead)"),
        ({"parallel": "fdsp"}, "parallel 'fdsp': unknown (did you mean 'fsdp'?)"),
        ({"wandb": "offlin"}, "did you mean 'offline'?"),
        ({"resume": 1}, "resume: expected true or false, found 1"),
        ({"policy_args": 3}, "policy_args: expected a table, found 3"),
        ({"image_resize_height": 96}, "images cannot be resized without a width (add --image-resize-width)"),
        ({"seed": 2**63}, f"seed: expected a whole number from 0 to {2**63 - 1}, found {2**63}"),
        ({"learning_rate": 10**400}, "learning_rate: expected a number from 0, found 1000"),
        ({"cache_size": "12 parsecs"}, "'12 parsecs' is not a size (write for example 256MB)"),
        ({"cache_size": -1}, "cache_size: expected a whole number from 0, found -1"),
        ({"log": 5}, "log: expected a table of options, found 5"),
        ({"data": {"paths": "a", "batch_size": 4}, "batch_size": 8}, "'batch_size' is given twice"),
        ({"shard_size": 2}, "shard_size: has no meaning with parallel 'ddp'"),
        ({"policy_args": {"when": date(2026, 1, 1)}}, "policy_args: expected texts, numbers, lists and tables"),
        ({"eval_every": 0}, "eval_every: expected a whole number from 1, found 0"),
    ],
)
def test_option_that_cannot_be_used_is_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        TrainConfig.from_sources(None, REQUIRED | overrides)
    assert message in str(caught.value)


def test_saved_paths_mean_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved = TrainConfig.of(data=Path("data"), out=Path("run")).to_dict()
    assert (saved["data"]["paths"], saved["out"]) == ([str(tmp_path / "data")], str(tmp_path / "run"))


@pytest.mark.parametrize("text", ["[]", "3", "null", '"data"', "{", "\x80"])
def test_saved_config_that_is_none_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / CONFIG_FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(
        UsageError, match=r"config\.json: .*\(restore it, or remove it and repeat the flags\)"
    ) as caught:
        TrainConfig.from_sources(None, {"out": tmp_path, "resume": True})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["data", "out"])
def test_missing_folder_is_asked_for(missing: str) -> None:
    with pytest.raises(UsageError, match=f"--{missing} is missing"):
        TrainConfig.from_sources(None, {k: v for k, v in REQUIRED.items() if k != missing})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_size = ", "not TOML"),
        ("btch = 1", "unknown option 'btch'"),
        ("seed = 1\nmax-steps = 2\nmax_steps = 3", "given twice"),
        ("\xff", "not TOML"),
    ],
)
def test_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "train.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=message):
        TrainConfig.from_sources(file, REQUIRED)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml: cannot be read"):
        TrainConfig.from_sources(tmp_path / "none.toml", REQUIRED)


def test_image_size_is_height_then_width() -> None:
    assert TrainConfig.of(**REQUIRED, image_resize_height=96, image_resize_width=128).data.image_size == (96, 128)
    assert TrainConfig.of(**REQUIRED).data.image_size is None
