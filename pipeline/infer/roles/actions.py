"""Guesses the action: the commanded columns if names tell of any, otherwise the robot's state 0.1 s later."""

from __future__ import annotations

from vlapipe.pipeline.infer.choices import Choices
from vlapipe.pipeline.infer.columns.clock import ClockGuess
from vlapipe.pipeline.infer.guess import FieldGuess, StreamGuess
from vlapipe.schemas.schema import ActionSpec, SampleDefaults

__all__ = ["guess_action", "guess_sample", "look_ahead"]

_AHEAD_S = 0.1
_STATE_S = 1.0
_MAX_STATE_ROWS = 100
_MAX_STATE = 64
_MOST_FINGERS = 2
_RATES = {"vel", "velocity", "torq", "torque", "acc", "acceleration", "effort", "force"}
_JOINT, _POSE = ("joint_position", "joint", "q_", "qpos"), ("pose", "position", "orientation", "tcp", "cart")


def guess_action(
    anchor: StreamGuess, clock: ClockGuess, num_rows: int, choices: Choices
) -> tuple[ActionSpec, list[str]]:
    """Guess the action. Returns the action and the reasons."""
    paths = {field.name: f"{anchor.name}/{field.name}" for field in anchor.fields}
    fields = [field for field in anchor.fields if field.numeric]
    commanded = [field for field in fields if field.command]
    if any(not field.words for field in commanded):  # a commanded switch alone is not the whole action of a robot
        named = ", ".join(field.name for field in commanded)
        reason = f"{named}: by their names what was commanded; or kind = 'absolute' of what was reached"
        return ActionSpec(kind="column", of=tuple(paths[field.name] for field in commanded)), [reason]
    of_fields, why = _reached(fields)
    grippers = [f for f in fields if f not in of_fields and _is_gripper(f)]
    if grippers and why == "the joints, as named; 'delta' of them is as plausible":
        why = "the joints and the gripper, as named"
    elif grippers:
        why = f"{why}; and the gripper"
    of_fields = [*of_fields, *grippers]
    return look_ahead(tuple(paths[field.name] for field in of_fields), clock, num_rows, why)


def _reached(fields: list[FieldGuess]) -> tuple[list[FieldGuess], str]:
    """Choose the fields that give the robot's state: joints, else its pose, else the field with most columns."""
    for words, what in ((_JOINT, "the joints"), (_POSE, "the pose")):
        found = [field for field in fields if field.name.startswith(words) or any(w in field.name for w in words[:2])]
        found = [
            field for field in found if not field.optional and "vel" not in field.name and "torq" not in field.name
        ]
        if found:
            chosen = found[:1] if words is _JOINT else found[:2]
            return chosen, f"{what}, as named; 'delta' of them is as plausible"
    always = [field for field in fields if not field.optional] or fields
    return [max(always, key=lambda field: field.num_columns)], "no column is named as a joint or a pose"


def _is_gripper(field: FieldGuess) -> bool:
    """Return True if a field says how far a gripper is open."""
    named = set(field.name.split("_")) & {"gripper", "grip", "hand"}
    usable = not (field.optional or field.constant or field.command)
    return bool(named) and usable and field.num_columns <= _MOST_FINGERS


def look_ahead(of: tuple[str, ...], clock: ClockGuess, num_rows: int, why: str) -> tuple[ActionSpec, list[str]]:
    """Return the action that leads to where ``of`` is a little later, and the reasons."""
    rate = clock.rate_hz or 10.0
    if num_rows < 3:
        return ActionSpec(kind="column", of=of), [why, "too few rows to look ahead"]
    # A whole number of rows, so that a row lies near the time ahead.
    rows = max(1, min(round(_AHEAD_S * rate), num_rows // 3))
    period_s = rows / rate
    tolerance_s = max(period_s / 4, 0.6 / rate)
    said = [why, f"{rows} rows ahead at {rate:.4g} rows a second"]
    return ActionSpec(kind="absolute", of=of, period_s=period_s, tolerance_s=tolerance_s), said


def guess_sample(streams: list[StreamGuess], clock: ClockGuess, action: ActionSpec) -> SampleDefaults:
    """Guess the sample: which fields are state and sensors, and the window sizes.

    The state is every number of the anchor that changes and was not commanded, up to ``_MAX_STATE`` columns. The
    sensors are all numbers of the other streams.
    """
    anchor = streams[0]
    rate = clock.rate_hz or 10.0
    commanded = set(action.of) if action.kind == "column" else set()
    state: list[str] = []
    size = 0
    for field in anchor.fields:
        path = f"{anchor.name}/{field.name}"
        fits = field.numeric and not field.optional and not field.constant and size + field.num_columns <= _MAX_STATE
        if fits and path not in commanded:
            state.append(path)
            size += field.num_columns
    sensors: list[tuple[str, str]] = []
    for stream in streams[1:]:
        names = [field.name for field in stream.fields if field.numeric]
        sensors += [(f"{stream.name}_{name}", f"{stream.name}/{name}") for name in names]
    rates = [stream.rate_hz for stream in streams[1:] if stream.kind not in ("images", "video") and stream.rate_hz]
    stride = round(action.period_s * rate) if action.period_s else 1
    return SampleDefaults(
        state=tuple(state) or action.of,
        sensors=tuple(sensors),
        state_rows=max(1, min(_MAX_STATE_ROWS, round(_STATE_S * rate))),
        sensor_rows=max(1, min(_MAX_STATE_ROWS, round(0.1 * max(rates)))) if rates else 1,
        image_rows=1,
        action_rows=8,
        action_stride=max(1, stride),
    )
