"""The options of a training run: one frozen dataclass, which checks and completes itself when it is created.

Options come from three sources. A later source overrides an earlier one: the run's own ``config.json`` (if the run is
resumed), ``--config FILE.toml``, flags.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.paths import local_path
from vlapipe.schemas.sizes import parse_size
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.data.arguments import parse_number, parse_whole_number
from vlapipe.train.weight_names import with_dataset_names

__all__ = ["CONFIG_FILE", "TrainConfig", "read_saved_config"]

CONFIG_FILE = "config.json"
_CHOICES = {
    "precision": ("auto", "bf16", "fp32"),
    "compile": ("default", "reduce-overhead", "max-autotune"),
    "parallel": ("ddp",),
    "wandb": ("offline", "online", "disabled"),
}
# Minimum of each number. A field that may be None is checked only if it has a number.
_AT_LEAST: dict[str, int] = {
    "batch_size": 1,
    "grad_accum": 1,
    "num_workers": 0,
    "prefetch_factor": 1,
    "shuffle_shards": 1,
    "cache_size": 0,
    "image_resize_height": 8,
    "image_resize_width": 8,
    "max_steps": 1,
    "learning_rate": 0,
    "weight_decay": 0,
    "warmup_steps": 0,
    "decay_steps": 1,
    "min_lr_ratio": 0,
    "grad_clip": 0,
    "eval_every": 1,
    "eval_batches": 0,
    "save_every": 1,
    "keep_checkpoints": 1,
    "log_every": 1,
    "seed": 0,
}
_AT_MOST: dict[str, int] = {"min_lr_ratio": 1, "seed": 2**63 - 1}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of ``vlapipe train``. A field has the name of its flag, with underscores.

    If a field's default is ``None``, then ``None`` means that vlapipe chooses the value. The constructor computes
    ``warmup_steps``, ``decay_steps``, ``eval_every`` and ``save_every`` from ``max_steps``. Other fields stay ``None``.
    """

    data: tuple[Path, ...]  # one or more datasets; a single path is accepted
    out: Path
    policy: str = "regression"  # or pkg.module:Class
    policy_args: Mapping[str, Any] = field(default_factory=dict)  # for the policy's constructor; [policy_args] in TOML
    batch_size: int = 32  # samples of one rank and one backward pass
    grad_accum: int = 1  # backward passes of one rank in a step
    num_workers: int | None = None  # None: the loader tunes the number of threads
    prefetch_factor: int = 6
    cache_dir: Path | None = None  # folder of the unpacked shards
    cache_size: int | None = None  # limit of the unpacked shards, in bytes; a text such as "50GB" in TOML
    shuffle_shards: int | None = None  # number of shards whose frames are mixed at a time; None mixes all shards
    weights: Mapping[str, Any] = field(default_factory=dict)  # see Loader; [weights.task] and so on in TOML
    augment: bool = False
    augmentation: Mapping[str, Any] = field(default_factory=dict)  # see Augmentation; [augmentation] in TOML
    image_resize_height: int | None = None
    image_resize_width: int | None = None
    precision: str = "auto"
    compile: str | None = None  # mode of torch.compile
    gradient_checkpointing: bool = False
    parallel: str = "ddp"
    deterministic: bool = False
    resume: bool = False
    wandb: str = "offline"
    max_steps: int = 1000
    learning_rate: float = 3e-4  # maximum, reached at the end of the warm-up
    weight_decay: float = 0.01
    warmup_steps: int | None = None
    decay_steps: int | None = None  # steps until the learning rate is lowest; a resumed run keeps its first value
    min_lr_ratio: float = 0.1  # lowest learning rate, as a fraction of learning_rate
    grad_clip: float = 1.0  # maximum norm of the gradient; 0 does not clip
    eval_every: int | None = None
    eval_batches: int = 32  # batches of a validation on each rank; 0 reads the whole val split
    save_every: int | None = None
    keep_checkpoints: int = 2
    log_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self._names():
            object.__setattr__(self, name, _checked(name, getattr(self, name)))
        derived = {
            "warmup_steps": min(100, self.max_steps // 10),
            "decay_steps": self.max_steps,
            "eval_every": min(500, max(50, self.max_steps // 10)),
            "save_every": min(1000, max(50, self.max_steps // 4)),
        }
        for name, value in derived.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if (self.image_resize_height is None) != (self.image_resize_width is None):
            missing = "width" if self.image_resize_width is None else "height"
            raise UsageError(f"images cannot be resized without a {missing}", f"add --image-resize-{missing}")

    @property
    def data_text(self) -> str:
        """Paths of the datasets, separated by commas, for messages."""
        return ", ".join(map(str, self.data))

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Target size (height, width) of images, or None if images keep their recorded size."""
        if self.image_resize_height is None or self.image_resize_width is None:
            return None
        return self.image_resize_height, self.image_resize_width

    def to_dict(self) -> dict[str, Any]:
        """Returns every field as a JSON value. Paths are absolute, so they stay valid in any working folder."""
        values = {name: getattr(self, name) for name in self._names()}
        values["weights"] = with_dataset_names(self.weights, self.data, [str(path.absolute()) for path in self.data])
        return {name: _as_json(v) for name, v in values.items()}

    @classmethod
    def _names(cls) -> list[str]:
        return [f.name for f in fields(cls)]

    @classmethod
    def from_sources(cls, file: Path | None, overrides: Mapping[str, Any]) -> TrainConfig:
        """Read options from ``file`` and override them with ``overrides``. In ``overrides``, ``None`` means not given.

        If the options resume a run, the run's saved options are the base of both.

        Raises:
            UsageError: a file cannot be read, or an option is unknown, missing or out of range.
        """
        given = {name: value for name, value in overrides.items() if value is not None}
        _refuse_unknown(given, cls._names(), "train")
        values = (_read_toml(file, cls._names()) if file is not None else {}) | given
        if values.get("resume") and "out" in values:
            saved = read_saved_config(local_path(values["out"], "out"))
            # Another version may have saved options that this version does not know. They are left out.
            values = {k: v for k, v in _carried_over(saved, values).items() if k in cls._names() and v is not None}
        for f in fields(cls):
            if f.default is MISSING and f.default_factory is MISSING and f.name not in values:
                raise UsageError(f"--{f.name} is missing", f"add --{f.name} DIR, or {f.name} in the --config file")
        return cls(**values)


def _carried_over(saved: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a resumed run: ``saved``, overridden by ``given``."""
    if "max_steps" in saved:  # a larger max_steps must not raise a learning rate that has already fallen
        saved.setdefault("decay_steps", saved["max_steps"])
    old, new = saved.get("data"), given.get("data", ())
    names = [str(path) for path in ((new,) if isinstance(new, str | Path) else new)]
    if isinstance(old, list) and len(old) == len(names):  # a dataset that has moved keeps its weight
        saved["weights"] = with_dataset_names(saved.get("weights"), [Path(str(path)) for path in old], names)
    return saved | dict(given)


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_as_json(item) for item in value]
    return str(value.absolute()) if isinstance(value, Path) else value


def _read_toml(file: Path, known: list[str]) -> dict[str, Any]:
    local_path(file, "--config")
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {file}: cannot be read: {error.strerror}", "give an existing TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {file}: not TOML: {error}", "write for example: batch_size = 32") from None
    values = {name.replace("-", "_"): value for name, value in values.items()}
    _refuse_unknown(values, known, str(file))
    return values


def read_saved_config(out: Path) -> dict[str, Any]:
    """Returns the saved options of the run in ``out``, unchecked; an empty dict if the run has saved none.

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
    return saved


def _refuse_unknown(values: Mapping[str, Any], known: list[str], where: str) -> None:
    for name in values:
        if name not in known:
            raise UsageError(f"{where}: unknown option {name!r}", did_you_mean(name, known, page="docs/options.md"))


def _checked(name: str, value: Any) -> Any:
    """Returns ``value`` converted to the field's type, or raises a UsageError that says expected and found."""
    field_of = next(f for f in fields(TrainConfig) if f.name == name)
    kind = str(field_of.type).removesuffix(" | None")
    if value is None:
        if field_of.default is None:
            return None
        raise UsageError(f"{name}: expected {_NOUN.get(kind, kind)}, found nothing")
    if name in _CHOICES and value not in _CHOICES[name]:
        raise UsageError(f"{name} {value!r}: unknown", did_you_mean(str(value), _CHOICES[name]))
    if name == "cache_size" and isinstance(value, str):
        value = parse_size(value)
    if kind == "Path" and isinstance(value, str | Path):
        return local_path(value, name)
    if kind == "tuple[Path, ...]":
        paths = (value,) if isinstance(value, str | Path) else value
        if isinstance(paths, Sequence) and paths and all(isinstance(path, str | Path) for path in paths):
            return tuple(local_path(path, name) for path in paths)
        raise UsageError(f"{name}: expected {_NOUN[kind]}, found {value!r}")
    if kind == "int":
        return parse_whole_number(name, value, least=_AT_LEAST[name], most=_AT_MOST.get(name))
    if kind == "float":
        return parse_number(name, value, least=_AT_LEAST[name], most=_AT_MOST.get(name, math.inf))
    if not isinstance(value, _TYPES[kind]):
        raise UsageError(f"{name}: expected {_NOUN[kind]}, found {value!r}")
    return dict(value) if kind.startswith("Mapping") else value


_TYPES: dict[str, Any] = {
    "bool": bool,
    "str": str,
    "Path": Path,
    "Mapping[str, Any]": Mapping,
}
_NOUN = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "Path": "a path",
    "tuple[Path, ...]": "a path or several",
    "Mapping[str, Any]": "a table",
}
