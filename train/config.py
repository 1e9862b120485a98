"""The options of a training run: frozen dataclasses in groups, which check and complete themselves when created.

Each option has one flat name, which is also the name of its flag. A TOML file may write an option by its flat name, or
in the table of its group. Options come from three sources. A later source overrides an earlier one: the run's own
``config.json`` (if the run is resumed), ``--config FILE.toml``, flags.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, replace
from pathlib import Path
from typing import Any

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.paths import local_path
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.data.arguments import FITS
from vlapipe.train.data.moments import FLICKER
from vlapipe.train.option_values import flat_name, option, parse_fields
from vlapipe.train.run_files import CONFIG_FILE
from vlapipe.train.weight_names import mix_with_dataset_names, with_dataset_names

__all__ = ["CONFIG_FILE", "EPOCHS", "TrainConfig", "flat_saved", "option_fields", "read_saved_config"]

EPOCHS = 20.0  # of a run that says neither epochs nor max_steps


@dataclass(frozen=True, kw_only=True)
class _Group:
    def __post_init__(self) -> None:
        parse_fields(self)


@dataclass(frozen=True, kw_only=True)
class DataConfig(_Group):
    """Which samples a step reads, and how they are prepared."""

    paths: tuple[Path, ...] = option(flat="data")  # one or more datasets; a single path is accepted
    batch_size: int = option(64, least=1)  # samples of one rank and one backward pass
    fit_batch_size: bool = option(False)  # batch_size "auto": cut a step's samples into as few passes as fit the GPU
    num_workers: int | None = option(None, least=0)  # None: the loader tunes the number of threads
    prefetch_factor: int = option(6, least=1)
    cache_dir: Path | None = option(None)  # folder of the unpacked shards
    cache_size: int | None = option(None, least=0, is_size=True)  # limit of the unpacked shards, in bytes
    shuffle_shards: int | None = option(None, least=1)  # number of shards mixed at a time; None mixes all shards
    where: str | None = option(None)  # which episodes are read; see Loader
    weights: Mapping[str, Any] = option(dict)  # see Loader; [weights.task] and so on in TOML
    mix: Mapping[str, Any] = option(dict)  # each dataset's share of the samples, see Loader; [mix] in TOML
    embodiments: str = option("same", choices=("same", "pad"))  # several robots, padded to one size
    augment: bool = option(True)  # training images, by shift and colour
    augmentation: Mapping[str, Any] = option(dict)  # see Augmentation; [augmentation] in TOML
    transforms: tuple[str, ...] | None = option(None)  # pkg.module:function, see Transforms
    image_resize: str = option("stretch", choices=FITS)
    image_resize_height: int | None = option(None, least=8)
    image_resize_width: int | None = option(None, least=8)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.image_resize_height is None) != (self.image_resize_width is None):
            missing = "width" if self.image_resize_width is None else "height"
            raise UsageError(f"images cannot be resized without a {missing}", f"add --image-resize-{missing}")
        if self.image_size is None and self.image_resize != "stretch":
            cure = "add --image-resize-height and --image-resize-width"
            raise UsageError(f"image_resize {self.image_resize!r}: to which size?", cure)

    @property
    def text(self) -> str:
        """Paths of the datasets, separated by commas, for messages."""
        return ", ".join(map(str, self.paths))

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Target size (height, width) of images, or None if images keep their recorded size."""
        if self.image_resize_height is None or self.image_resize_width is None:
            return None
        return self.image_resize_height, self.image_resize_width


@dataclass(frozen=True, kw_only=True)
class OptimConfig(_Group):
    """How a step moves the weights."""

    grad_accum: int = option(1, least=1)  # backward passes of one rank in a step
    learning_rate: float = option(1e-3, least=0)  # maximum, reached at the end of the warm-up
    weight_decay: float = option(0.01, least=0)
    schedule: str = option("warmup-cosine", choices=("warmup-cosine", "constant", "linear", "wsd"))
    warmup_steps: int | None = option(None, least=0)
    stable_steps: int | None = option(None, least=0)  # of wsd, between warm-up and decay; None: until a fifth is left
    decay_steps: int | None = option(None, least=1)  # steps until the rate is lowest; a resume keeps its first value
    min_lr_ratio: float = option(0.1, least=0, most=1)  # lowest learning rate, as a fraction of learning_rate
    grad_clip: float = option(1.0, least=0)  # maximum norm of the gradient; 0 does not clip
    ema: float | None = option(None, least=0, most=1)  # decay of the average of the weights; None: no average
    ema_warmup: bool = option(True)  # a smaller decay in the first steps

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ema == 1:
            raise UsageError("ema: expected a number below 1, found 1", "0.999 averages about the last 1000 steps")
        if self.schedule == "wsd" and None not in (self.warmup_steps, self.stable_steps, self.decay_steps):
            self._require_a_decay()

    def _require_a_decay(self) -> None:
        assert self.warmup_steps is not None
        assert self.stable_steps is not None
        assert self.decay_steps is not None
        if self.warmup_steps + self.stable_steps > self.decay_steps - 2:
            raise UsageError(
                f"stable_steps {self.stable_steps} after warmup_steps {self.warmup_steps} leave no steps to decay in: "
                f"decay_steps is {self.decay_steps}",
                "give fewer stable_steps, or a larger decay_steps",
            )


@dataclass(frozen=True, kw_only=True)
class ParallelConfig(_Group):
    """How several ranks share the work."""

    kind: str = option("ddp", flat="parallel", choices=("ddp", "fsdp", "hsdp"))
    shard_size: int | None = option(None, least=1)  # ranks that share a copy of the policy (hsdp); None: of a machine
    unused_parameters: str = option("search", choices=("search", "static", "none"))  # of a policy under ddp
    hang_timeout_s: float = option(40.0, least=0)  # until all ranks end after one rank began to hang; 0 waits for ever

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shard_size is not None and self.kind != "hsdp":
            raise UsageError(f"shard_size: has no meaning with parallel {self.kind!r}", "add --parallel hsdp")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(_Group):
    """When checkpoints are written, and which are kept."""

    save_every: int | None = option(None, least=1)
    async_save: bool = option(False)  # write checkpoints in a thread, while the run goes on
    keep_checkpoints: int = option(2, least=1)  # number of newest checkpoints that are kept
    keep_best: int = option(1, least=0)  # number of best checkpoints that are kept besides
    best_metric: str | None = option(None)
    best_is: str | None = option(None, choices=("lowest", "highest"))
    keep_every: int | None = option(None, least=1)  # checkpoints at multiples of this step are kept for good


@dataclass(frozen=True, kw_only=True)
class EvalConfig(_Group):
    """When the policy is validated, and on how much; and when it acts in an environment."""

    eval_every: int | None = option(None, least=1)
    eval_batches: int = option(32, least=0)  # batches of a validation on each rank; 0 reads the whole val split
    eval_env: str | None = option(None)  # demo, or pkg.module:make_env, see make_environment
    eval_env_every: int | None = option(None, least=1)  # None: after the last step
    eval_env_episodes: int = option(20, least=1)  # over all ranks
    eval_env_args: Mapping[str, Any] = option(dict)  # for the environment; [eval_env_args] in TOML

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_env is None and (self.eval_env_every is not None or self.eval_env_args):
            raise UsageError("eval_env_every: in which environment?", "add --eval-env demo, or pkg.module:make_env")


@dataclass(frozen=True, kw_only=True)
class LogConfig(_Group):
    """What is reported, and where."""

    log_every: int = option(1, least=1)
    wandb: str = option("offline", choices=("offline", "online", "disabled"))
    tensorboard: bool = option(False)
    profile: int = option(0, least=0)  # steps that torch's profiler traces; 0 traces none


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of ``vlapipe train``; ``TrainConfig.of`` makes one from flat names.

    If a field's default is ``None``, then ``None`` means that vlapipe chooses the value. The constructor computes
    ``warmup_steps``, ``decay_steps``, ``eval_every`` and ``save_every`` from ``max_steps``, and ``best_metric`` and
    ``best_is`` from what is evaluated. Other fields stay ``None``.

    A run's length is ``max_steps``, or ``epochs`` times the frames of the train split. Without either it is
    ``EPOCHS`` epochs. ``with_length`` turns epochs into steps as soon as the dataset is open.
    """

    data: DataConfig
    out: Path = option()
    policy: str = option("regression")  # or pkg.module:Class
    policy_args: Mapping[str, Any] = option(dict)  # for the policy's constructor; [policy_args] in TOML
    sample: Mapping[str, Any] = option(dict)  # what a sample holds, see Window; [sample] in TOML
    action: Mapping[str, Any] = option(dict)  # keys of a schema's [action] that replace the schema's own
    normalize: Mapping[str, Any] = option(dict)  # batch key -> kind, see Normalizer; [normalize] in TOML
    normalize_floor: float = option(FLICKER, least=0, most=1)  # columns of a smaller spread count as constant
    init: Path | None = option(None)  # a run, or one of its checkpoints, whose weights a new run begins with
    trainable: Mapping[str, Any] = option(dict)  # see Trainable; [trainable] in TOML
    precision: str = option("auto", choices=("auto", "bf16", "fp32"))
    compile: str | None = option(None, choices=("default", "reduce-overhead", "max-autotune"))  # torch.compile's mode
    attention: str = option(
        "auto", choices=("auto", "flash", "efficient", "math", "cudnn")
    )  # kernel of torch's own attention
    gradient_checkpointing: bool = option(False)
    deterministic: bool = option(False)
    resume: bool = option(False)
    epochs: float | None = option(None, least=0)  # how often a run reads each frame of the train split
    max_steps: int | None = option(None, least=1)
    seed: int = option(0, least=0, most=2**63 - 1)
    optim: OptimConfig
    parallel: ParallelConfig
    checkpoint: CheckpointConfig
    eval: EvalConfig
    log: LogConfig

    def __post_init__(self) -> None:
        parse_fields(self)
        if self.epochs is not None and self.max_steps is not None:
            raise UsageError("epochs and max_steps: a run has one length", "leave one of them away")
        if self.epochs == 0:
            raise UsageError("epochs: expected a number above 0, found 0", "0.5 reads half of the frames")
        metric = self.checkpoint.best_metric or ("val/loss" if self.eval.eval_env is None else "env/success")
        best_is = "highest" if metric.startswith("env/") else "lowest"
        self._fill("checkpoint", best_metric=metric, best_is=best_is)
        if self.eval.eval_env is not None and self.parallel.kind != "ddp":
            problem = f"eval_env: a rank has only a part of the policy with parallel {self.parallel.kind!r}"
            raise UsageError(problem, "evaluate its checkpoints: vlapipe eval RUN --env ...")
        if self.max_steps is not None:
            self._fill_by_length(self.max_steps)

    @property
    def num_steps(self) -> int:
        """The number of steps of the whole run, which ``with_length`` has made known."""
        assert self.max_steps is not None
        return self.max_steps

    def with_length(self, num_frames: int, num_ranks: int) -> TrainConfig:
        """Returns the config with ``max_steps`` in place of ``epochs``: every step reads its batches on each rank."""
        if self.max_steps is not None:
            return self
        a_step = self.data.batch_size * self.optim.grad_accum * num_ranks
        epochs = EPOCHS if self.epochs is None else self.epochs
        return replace(self, epochs=None, max_steps=max(1, round(epochs * num_frames / a_step)))

    def _fill_by_length(self, max_steps: int) -> None:
        self._fill("optim", warmup_steps=min(100, max_steps // 10), decay_steps=max_steps)
        self._fill("eval", eval_every=min(500, max(50, max_steps // 10)))
        assert self.eval.eval_every is not None
        # A checkpoint can be the best one only if it is validated, so it falls on a validation if that is possible.
        save_every, eval_every = min(1000, max(50, max_steps // 4)), self.eval.eval_every
        if eval_every <= save_every:
            save_every = -(-save_every // eval_every) * eval_every
        self._fill("checkpoint", save_every=save_every)

    def _fill(self, group: str, **defaults: Any) -> None:
        options = getattr(self, group)
        missing = {name: value for name, value in defaults.items() if getattr(options, name) is None}
        object.__setattr__(self, group, replace(options, **missing))

    @classmethod
    def of(cls, **values: Any) -> TrainConfig:
        """Returns the config of these options, by their flat names or in a table for each group.

        Raises:
            UsageError: an option is unknown, missing or out of range.
        """
        values = flat_options(values)
        _refuse_unknown(values, "train")
        groups: dict[str, dict[str, Any]] = {name: {} for name in _GROUPS}
        own: dict[str, Any] = {}
        for name, (group, field) in _OPTIONS.items():
            if name in values:
                (groups[group] if group else own)[field.name] = values[name]
            elif field.default is MISSING and field.default_factory is MISSING:
                raise UsageError(f"--{name} is missing", f"add --{name} DIR, or {name} in the --config file")
        return cls(**own, **{name: kind(**groups[name]) for name, kind in _GROUPS.items()})

    def to_dict(self) -> dict[str, Any]:
        """Returns every option as a JSON value, in a table for each group. ``TrainConfig.of`` reads the result.

        Paths are absolute, so they stay valid in any working folder.
        """
        values = {f.name: _as_json(getattr(self, f.name)) for f in fields(self) if f.name not in _GROUPS}
        for name in _GROUPS:
            group = getattr(self, name)
            values[name] = {f.name: _as_json(getattr(group, f.name)) for f in fields(group)}
        absolute = [str(p.absolute()) for p in self.data.paths]
        values["data"]["weights"] = with_dataset_names(self.data.weights, self.data.paths, absolute)
        values["data"]["mix"] = mix_with_dataset_names(self.data.mix, self.data.paths, absolute)
        return values

    def to_flat(self) -> dict[str, Any]:
        """Returns every option as a JSON value, by its flat name."""
        return flat_options(self.to_dict())

    @classmethod
    def from_sources(cls, file: Path | None, overrides: Mapping[str, Any]) -> TrainConfig:
        """Read options from ``file`` and override them with ``overrides``. In ``overrides``, ``None`` means not given.

        If the options resume a run, the run's saved options are the base of both.

        Raises:
            UsageError: a file cannot be read, or an option is unknown, missing or out of range.
        """
        given = {name: value for name, value in flat_options(overrides).items() if value is not None}
        _refuse_unknown(given, "train")
        from_file = _read_toml(file) if file is not None else {}
        if "sample" in given and isinstance(from_file.get("sample"), Mapping):  # flags are single keys of the table
            given["sample"] = {**from_file["sample"], **given["sample"]}
        for length, other in (("epochs", "max_steps"), ("max_steps", "epochs")):
            if length in given:  # a flag replaces the length in the file, in whichever unit it is
                from_file.pop(other, None)
        values = from_file | given
        if values.get("resume") and "out" in values:
            saved = read_saved_config(local_path(values["out"], "out"))
            # Another version may have saved options that this version does not know. They are left out.
            values = {k: v for k, v in _carried_over(saved, values).items() if k in _OPTIONS and v is not None}
        return cls.of(**values)


_GROUPS: dict[str, Any] = {
    "data": DataConfig,
    "optim": OptimConfig,
    "parallel": ParallelConfig,
    "checkpoint": CheckpointConfig,
    "eval": EvalConfig,
    "log": LogConfig,
}


def option_fields() -> dict[str, tuple[str, Field[Any]]]:
    """Returns each option by its flat name: its group (empty for an option of the run itself) and its field."""
    found: dict[str, tuple[str, Field[Any]]] = {}
    for outer in fields(TrainConfig):
        inner = fields(_GROUPS[outer.name]) if outer.name in _GROUPS else None
        for field in (outer,) if inner is None else inner:
            found[flat_name(field)] = (outer.name if inner else "", field)
    return found


_OPTIONS = option_fields()


def flat_options(values: Mapping[str, Any], where: str = "train") -> dict[str, Any]:
    """Returns options by their flat names. ``values`` may have them flat, in a table for each group, or both.

    Raises:
        UsageError: the table of a group has an unknown option.
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if name not in _GROUPS or (name in _OPTIONS and not isinstance(value, Mapping)):
            _add(flat, name, value, where)
            continue
        if not isinstance(value, Mapping):
            raise UsageError(f"{where}: {name}: expected a table of options, found {value!r:.40}")
        of_group = {field.name: flat_name for flat_name, (group, field) in _OPTIONS.items() if group == name}
        for inner, setting in value.items():
            if inner.replace("-", "_") not in of_group:
                cure = did_you_mean(inner, of_group, page="docs/options.md")
                raise UsageError(f"{where}: unknown option {inner!r} in [{name}]", cure)
            _add(flat, of_group[inner.replace("-", "_")], setting, where)
    if flat.get("batch_size") == "auto":  # the number of an earlier source says how many samples a step has
        flat["fit_batch_size"] = True
        del flat["batch_size"]
    elif flat.get("batch_size") is not None:
        flat.setdefault("fit_batch_size", False)
    return flat


def _add(flat: dict[str, Any], name: str, value: Any, where: str) -> None:
    if name in flat:
        raise UsageError(f"{where}: {name!r} is given twice", "leave one of them away")
    flat[name] = value


def _carried_over(saved: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a resumed run: ``saved``, overridden by ``given``."""
    if "max_steps" in saved:  # a larger max_steps must not raise a learning rate that has already fallen
        saved.setdefault("decay_steps", saved["max_steps"])
    if given.get("epochs") is not None:
        saved.pop("max_steps", None)
    old, new = saved.get("data"), given.get("data", ())
    names = [str(path) for path in ((new,) if isinstance(new, str | Path) else new)]
    if isinstance(old, list) and len(old) == len(names):  # a dataset that has moved keeps its weight
        before = [Path(str(path)) for path in old]
        saved["weights"] = with_dataset_names(saved.get("weights"), before, names)
        saved["mix"] = mix_with_dataset_names(saved.get("mix"), before, names)
    return saved | dict(given)


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_as_json(item) for item in value]
    return str(value.absolute()) if isinstance(value, Path) else value


def _read_toml(file: Path) -> dict[str, Any]:
    local_path(file, "--config")
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {file}: cannot be read: {error.strerror}", "give an existing TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {file}: not TOML: {error}", "write for example: batch_size = 32") from None
    twice = [name for name in values if "-" in name and name.replace("-", "_") in values]
    if twice:
        raise UsageError(f"{file}: {twice[0]!r} is given twice", "leave one of them away")
    values = flat_options({name.replace("-", "_"): value for name, value in values.items()}, str(file))
    _refuse_unknown(values, str(file))
    return values


def read_saved_config(out: Path) -> dict[str, Any]:
    """Returns the saved options of the run in ``out`` by flat names, unchecked; an empty dict if there are none.

    Raises:
        UsageError: the file of options cannot be read.
    """
    file, cure = out / CONFIG_FILE, "restore it, or remove it and repeat the flags"
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}  # run_folder reports a missing folder
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}", cure) from None
    except ValueError as error:
        raise UsageError(f"{file}: cannot be read: {error}", cure) from None
    if not isinstance(saved, dict):
        raise UsageError(f"{file}: expected a table of options, found {saved!r:.40}", cure)
    return flat_saved(saved)


def flat_saved(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Returns saved options by flat names, of any version. Options that this version does not know are left out."""
    known = {
        name: {inner: v for inner, v in value.items() if inner in {f.name for f in fields(_GROUPS[name])}}
        if name in _GROUPS and isinstance(value, Mapping)
        else value
        for name, value in saved.items()
    }
    return flat_options(known)


def _refuse_unknown(values: Mapping[str, Any], where: str) -> None:
    for name in values:
        if name not in _OPTIONS:
            raise UsageError(f"{where}: unknown option {name!r}", did_you_mean(name, _OPTIONS, page="docs/options.md"))
