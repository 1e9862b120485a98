"""Chooses what a sample consists of: the state of one row, the sensors and the action."""

from __future__ import annotations

import json
from collections.abc import Sequence

from vlapipe.pipeline.infer.choices import Choices
from vlapipe.pipeline.infer.columns.clock import ClockGuess
from vlapipe.pipeline.infer.guess import StreamGuess
from vlapipe.pipeline.infer.lexicon import lexicon
from vlapipe.pipeline.infer.roles.actions import choose_action
from vlapipe.pipeline.infer.roles.roles import Role, roles_of
from vlapipe.schemas.schema import ActionSpec, SampleDefaults

__all__ = ["choose_sample"]

_WIDEST_STATE = 64  # numbers of fields that no name calls an observation
_MOST_SENSOR_ROWS = 100
_BODY = ("joint", "gripper", "pose")


def choose_sample(
    streams: Sequence[StreamGuess], clock: ClockGuess, num_rows: int, choices: Choices
) -> tuple[ActionSpec, list[str], SampleDefaults]:
    """Choose action and sample among the fields of all streams, of which the first is the anchor.

    Returns the action, the reasons for it, and the sample.
    """
    roles = roles_of(streams)
    action, reasons = choose_action(roles, clock, num_rows, choices, lambda action: _state(roles, action, streams[0]))
    commanded = action.kind == "column"
    free = _free(roles, action)
    state = _state(roles, action, streams[0])
    if not state:
        state = [role for role in roles if role.path in action.of]
        if commanded and not any(stream.kind in ("images", "video") for stream in streams):
            line = f"state = {json.dumps([role.path for role in state])}"
            choices.ask("state: only commands are in the recording", "the commands", line, "another", "state = [...]")
    _ask_of_words(streams, choices)
    in_state = {role.path for role in state}
    left = [role for role in free if role.path not in in_state and role.stream.time.rows_of is None]
    left = [role for role in left if role.stream is not streams[0] or _is_wide(role)]
    rates = [stream.rate_hz for stream in streams[1:] if stream.fields and stream.rate_hz]
    return (
        action,
        reasons,
        SampleDefaults(
            state=tuple(role.path for role in state),
            sensors=tuple((_sensor_name(role, streams[0]), role.path) for role in left),
            sensor_rows=max(1, min(_MOST_SENSOR_ROWS, round(0.1 * max(rates)))) if rates else 1,
            action_rows=8,
            action_stride=max(1, round(action.period_s * (clock.rate_hz or 10.0))),
        ),
    )


def _ask_of_words(streams: Sequence[StreamGuess], choices: Choices) -> None:
    """Ask what the words of a gripper, or of a success, stand for: they are no pair that the lexicon knows."""
    for stream in streams:
        for name, reason in stream.drop:
            line = reason[reason.find("words = ") : reason.rfind("}") + 1]
            lists = (("roles", "gripper"), ("texts", "outcome"))
            if "words = " in reason and any(lexicon().likeness(name, *each) for each in lists):
                about, taken = f"{stream.name}: {name!r}, in words", f"drop = [{json.dumps(name)}]"
                choices.ask(about, "left out", taken, "a number for each word", line)


def _sensor_name(role: Role, anchor: StreamGuess) -> str:
    return role.field.name if role.stream is anchor else f"{role.stream.name}_{role.field.name}"


def _free(roles: Sequence[Role], action: ActionSpec) -> list[Role]:
    """Return what was measured, and goals and objects, without what was commanded or may have been.

    Fields without any name, which are asked about, belong to the state if they are part of what the action looks ahead.
    """
    is_column = action.kind == "column"
    found = [role for role in roles if role.use in ("measured", "object") and not role.desired]
    found = [role for role in found if not (is_column and role.path in action.of)]
    return [role for role in found if is_column or role.path in action.of or not role.nameless]


def _is_wide(role: Role) -> bool:
    return role.field.num_columns > _WIDEST_STATE


def _state(roles: Sequence[Role], action: ActionSpec, anchor: StreamGuess) -> list[Role]:
    """Return what moves with the arm, and goals and objects: all of the anchor, and the arms of other streams.

    Another stream that holds what reaches a command, such as the place of a drone, holds an arm too.

    If names say what was observed, other fields belong to the state only if their names say what they are.
    """
    free = _free(roles, action)
    ours = [role for role in free if role.stream is anchor and not role.field.optional]
    commanded = [role for role in roles if action.kind == "column" and role.path in action.of]
    goals = {role.field.num_columns for role in commanded if role.quantity == "pose"} - {1}
    others = [role for role in free if role.stream is not anchor]
    places = {role.stream.name for role in others if role.quantity == "pose" and role.field.num_columns in goals}
    arms = places | {role.stream.name for role in others if role.quantity in ("joint", "gripper")}
    held = {(name, quantity) for name in arms for quantity in ("joint", "gripper", "rate")}
    held |= {(name, "pose") for name in places}
    ours += [role for role in others if (role.stream.name, role.quantity) in held]
    ours += [role for role in free if role.stream is not anchor and role.use == "object" and role not in ours]
    ours = [role for role in ours if not role.field.constant or role.quantity in _BODY or role.use == "object"]
    if any(role.observed for role in ours):
        return [role for role in ours if role.observed or role.quantity or role.use == "object"]
    return [role for role in ours if not _is_wide(role)]
