"""Says where the time of a run went, what held the run back, and what the cure would gain.

Every number comes from the times of this run. No cure is promised more than the time that it could save.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["PHASES", "Setting", "TimeSpent", "Verdict", "judge", "milliseconds"]

PHASES = ("data", "ranks", "h2d", "forward", "backward", "optimizer")  # of a step
# If waiting for data takes more than this share of the time, it is named: it is the easiest to cure.
_DATA_SHARE = 0.2
_NAMES = {
    "data": "waiting for data",
    "ranks": "waiting for other ranks",
    "h2d": "host-to-device copies",
    "compute": "forward and backward",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "optimizer",
    "validation": "validation",
    "closed loop": "closed loop",
    "checkpoints": "checkpoints",
    "profile": "the profile",
    "other": "the rest",
}


@dataclass(kw_only=True)
class TimeSpent:
    """Seconds of a run by what they were spent on, without its first step, which builds caches and compiles."""

    phases: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    aside: dict[str, float] = field(default_factory=dict)  # between steps: validation, closed loop, checkpoints
    steps_s: float = 0.0  # from the end of the first step to the end of the last one, without ``aside``
    num_steps: int = 0

    @property
    def shares(self) -> dict[str, float]:
        """Each phase's share of the time; empty if no step was timed. ``other`` is what is left."""
        in_phases = sum(self.phases.values())
        whole = max(self.steps_s, in_phases) + sum(self.aside.values())
        if not self.num_steps or not whole:
            return {}
        seconds = self.phases | self.aside | {"other": max(0.0, self.steps_s - in_phases)}
        return {name: spent / whole for name, spent in seconds.items()}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a run uses, and what its machine could do besides."""

    on_gpu: bool
    compiles: bool
    faster_in_bf16: bool  # the run is in fp32, and the hardware computes in bf16
    num_workers: int | None  # None: the loader found out
    most_workers: int
    grad_accum: int
    eval_every: int
    save_every: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What held a run back: its name, two lines of text, and the factor by which the cure could speed the run up."""

    cause: str  # a name of ``TimeSpent.shares``, or "compute" for forward and backward
    lines: tuple[str, str]
    gain: float


def judge(spent: TimeSpent, setting: Setting) -> Verdict | None:
    """Returns the verdict; None if no step was timed."""
    shares = spent.shares
    if not shares:
        return None
    grouped = {"compute": shares["forward"] + shares["backward"]}
    grouped |= {name: share for name, share in shares.items() if name not in ("forward", "backward")}
    cause = "data" if grouped["data"] > _DATA_SHARE else max(grouped, key=lambda name: grouped[name])
    rest = {name: share for name, share in shares.items() if name != cause and share >= 0.005}
    split = ", ".join(f"{_NAMES[name]} {_percent(rest[name])}" for name in sorted(rest, key=lambda key: -rest[key]))
    step = milliseconds(spent.steps_s / spent.num_steps)
    first = f"held back by {_NAMES[cause]}, {_percent(grouped[cause])} of the time; a step took {step}"
    way, saved, condition = _cure(cause, setting)
    gain = 1 / (1 - min(saved * grouped[cause], 0.999))
    second = f"try {way}: {gain:.2f} times as many samples/s {condition}"
    return Verdict(cause=cause, lines=(f"{first}{f' ({split})' if split else ''}", second), gain=gain)


def milliseconds(seconds: float) -> str:
    """Returns ``0.52 ms``, ``5.2 ms``, ``52 ms`` or ``5,200 ms``."""
    ms = 1e3 * seconds
    return f"{ms:,.{0 if ms >= 10 else 1 if ms >= 1 else 2}f} ms"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _cure(cause: str, setting: Setting) -> tuple[str, float, str]:
    """Returns what to try, the part of the cause's time that it saves, and the condition under which it does."""
    s = setting
    if cause == "data":
        too_few = s.num_workers is not None and s.num_workers < s.most_workers
        way = f"--num-workers {s.most_workers}" if too_few else "smaller images, more cores or a faster disk"
        return way, 1.0, "at most, when no step waits for data"
    if cause == "ranks":
        return "equally fast machines and disks for all ranks", 1.0, "at most, when no rank waits for another"
    if cause == "h2d":
        return "smaller images", 1.0, "at most, when no step waits for a copy"
    if cause == "optimizer":
        return f"--grad-accum {2 * s.grad_accum}", 0.5, "by half as many moves of the weights"
    if cause == "validation":
        return f"--eval-every {2 * s.eval_every}", 0.5, "by half as many validations"
    if cause == "closed loop":
        return "a larger eval_env_every, or fewer eval_env_episodes", 0.5, "by half as many episodes"
    if cause == "checkpoints":
        return f"--save-every {2 * s.save_every}", 0.5, "by half as many checkpoints"
    if cause == "profile":
        return "the run without --profile", 1.0, "at most"
    if cause == "other":
        return "a larger log_every", 1.0, "at most, when nothing runs between the phases of a step"
    ways = ["--precision bf16"] if s.faster_in_bf16 else []
    ways += ["--compile"] if s.on_gpu and not s.compiles else []
    ways += ["smaller images", "more GPUs" if s.on_gpu else "a GPU"]
    return ", ".join(ways), 0.5, "if forward and backward took half the time"
