"""Reports how a resumed run differs from the saved run: one line for each changed option that affects the training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlapipe.train.config import TrainConfig
from vlapipe.train.optim.schedule import Schedule
from vlapipe.train.weight_names import by_position, mix_by_position

__all__ = ["make_schedule", "resume_changes", "same_weights", "schedule_note"]

# These options change a run's paths, speed and reports, but not the training result.
_HARMLESS = (
    *("out", "resume", "wandb", "num_workers", "prefetch_factor", "cache_dir", "cache_size", "log_every", "eval_every"),
    *("save_every", "async_save", "keep_checkpoints", "keep_best", "best_metric", "best_is", "keep_every"),
    *("tensorboard", "profile", "hang_timeout_s"),
    *("compile", "attention", "fit_batch_size", "gradient_checkpointing", "deterministic"),
)
_OF_A_STEP = ("batch_size", "grad_accum")
_OF_THE_RATE = ("learning_rate", "schedule", "warmup_steps", "stable_steps", "decay_steps", "min_lr_ratio")


def make_schedule(options: Mapping[str, Any]) -> Schedule:
    """Returns the learning-rate schedule of a dict of options."""
    return Schedule(
        learning_rate=options["learning_rate"],
        warmup_steps=options["warmup_steps"],
        decay_steps=options.get("decay_steps") or options["max_steps"],
        min_ratio=options["min_lr_ratio"],
        kind=options["schedule"],
        stable_steps=options["stable_steps"],
    )


def schedule_note(config: TrainConfig) -> str:
    """Returns a note on the learning rate if ``decay_steps`` differs from ``max_steps``; otherwise an empty text."""
    schedule, last = make_schedule(config.to_flat()), config.num_steps - 1
    steps = config.optim.decay_steps
    assert steps is not None  # TrainConfig fills in the default
    if steps == config.num_steps or config.optim.schedule == "constant":
        return ""
    cure = f"--decay-steps {config.num_steps} lets it fall over all {config.num_steps} steps"
    if steps < config.num_steps:
        return f"the learning rate stays at {schedule.at(last):.3g} after step {steps} ({cure})"
    return f"the learning rate falls over {steps} steps, to {schedule.at(last):.3g} in the last one ({cure})"


def same_weights(saved: Mapping[str, Any], config: TrainConfig) -> bool:
    """Whether the saved weights equal ``config``'s weights. Datasets are compared by position, not by path."""
    before = by_position(saved.get("weights"), [Path(path) for path in saved.get("data", ())])
    return bool(before == by_position(config.data.weights, config.data.paths))


def _same_mix(saved: Mapping[str, Any], config: TrainConfig) -> bool:
    """Whether the saved mix equals ``config``'s, whatever the paths of the datasets."""
    before = mix_by_position(saved.get("mix") or {}, [Path(path) for path in saved.get("data", ())])
    return bool(before == mix_by_position(config.data.mix, config.data.paths))


def resume_changes(
    saved: Mapping[str, Any], saved_ranks: int, config: TrainConfig, num_ranks: int, step: int
) -> list[str]:
    """Returns a line for each option, and for the number of ranks, that has changed since the checkpoint.

    ``saved`` are the options of the checkpoint after ``step`` steps, ``saved_ranks`` its number of ranks.
    """
    return [*_changes(saved, saved_ranks, config, num_ranks, step)]


def _changes(
    saved: Mapping[str, Any], saved_ranks: int, config: TrainConfig, num_ranks: int, step: int
) -> Iterator[str]:
    options = config.to_flat()
    # The values that earlier versions used.
    saved = {"decay_steps": saved.get("max_steps"), "schedule": "warmup-cosine", **saved}
    names = [name for name in options if name in saved and name not in _HARMLESS]
    saved = options | saved
    changed = {name for name in names if options[name] != saved[name]}
    if same_weights(saved, config):
        changed.discard("weights")
    if _same_mix(saved, config):
        changed.discard("mix")
    samples = _samples(saved, saved_ranks), _samples(options, num_ranks)
    rates = make_schedule(saved).at(step), make_schedule(options).at(step)
    for name in names:
        if name not in changed:
            continue
        line = f"{name} is {_shown(options[name])}, was {_shown(saved[name])}"
        if name == "max_steps" and schedule_note(config):
            line += f": {schedule_note(config)}"
        elif name in _OF_THE_RATE:
            line += f": step {step + 1} has a learning rate of {rates[1]:.3g}, and would have had {rates[0]:.3g}"
        elif name in _OF_A_STEP:
            line += f": {_compared(*samples)}"
        elif name == "init":
            line += ": a resumed run goes on with its own weights"
        elif name == "data":
            line += ": the same dataset at another place"
        yield line
    if num_ranks != saved_ranks:
        yield f"ranks are {num_ranks}, were {saved_ranks}: {_compared(*samples)}"


def _samples(options: Mapping[str, Any], num_ranks: int) -> int:
    return int(options["batch_size"]) * int(options["grad_accum"]) * num_ranks


def _compared(before: int, now: int) -> str:
    if now == before:
        return f"a step still sees {now} samples"
    times = {2.0: "twice", 0.5: "half"}.get(now / before, f"{now / before:.3g} times")
    return f"a step now sees {now} samples, {times} as many as before ({before})"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "not set" if value is None else str(value)
