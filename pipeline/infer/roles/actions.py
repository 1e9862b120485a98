"""Chooses the action: all of what was commanded, otherwise where all that moves together is 0.1 s later."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

from vlapipe.pipeline.infer.choices import Choices, Option
from vlapipe.pipeline.infer.columns.clock import ClockGuess
from vlapipe.pipeline.infer.lexicon import lexicon, words_in
from vlapipe.pipeline.infer.roles.field_evidence import are_alike
from vlapipe.pipeline.infer.roles.roles import MAYBE, Role
from vlapipe.schemas.schema import ActionSpec

__all__ = ["choose_action"]

_StateOf = Callable[[ActionSpec], Sequence[Role]]
_SAID = {"joint": "joints", "pose": "pose"}
_AHEAD_S = 0.1
_LIKELIER = 2.0  # log-odds
_SURELY = 6.0  # and from which no other answer is considered
_MOST = 0.5  # share of what moves, below which the command is not the action


def choose_action(
    roles: Sequence[Role],
    clock: ClockGuess,
    num_rows: int,
    choices: Choices,
    state_of: _StateOf,
) -> tuple[ActionSpec, list[str]]:
    """Choose the action among the fields of all streams. Returns the action and the reasons.

    ``state_of`` returns the state beside an action. If the answers to a question differ in it, their lines say it too.
    """
    moved = [role for role in roles if not role.field.constant or role.quantity == "gripper"]
    commanded = [role for role in moved if role.score > 0] or [role for role in moved if role.score > MAYBE]
    chosen = _robot_moves_by(commanded)
    moves, why = _moves_together(roles, choices if not chosen else None, state_of)
    ahead, reasons = _look_ahead(moves or chosen or roles[:1], clock, num_rows, why)
    column, said = ActionSpec(kind="column", of=_paths(chosen)), _why(commanded, chosen)
    if not chosen:
        return ahead, reasons
    if not moves:
        return column, said
    score, (lacks, share) = min(role.score for role in chosen), _lacks(chosen, moves)
    ours, later = (f"{', '.join(role.field.name for role in each)}" for each in (chosen, moves))
    lines = _lines(column, ahead, state_of)
    options = [Option(value=column, score=score, says=f"{ours} as commanded", line=lines[0], reasons=tuple(said))]
    if score < _SURELY or share < _MOST:
        worth = 0.0 if share >= _MOST else score + _SURELY
        says = f"where {later} is {ahead.period_s:.2g} s later"
        options.append(Option(value=ahead, score=worth, says=says, line=lines[1], reasons=tuple(reasons)))
    taken = choices.pick("action", options)
    left = [role for role in commanded if role not in chosen and _moves_otherwise(role, chosen)]
    left += [role for role in roles if role not in commanded and _is_called_like(role, chosen)]
    if taken.value is column and left:
        whole = ActionSpec(kind="column", of=_paths([*chosen, *left]))
        names = ", ".join(role.field.name for role in left)
        line, other_line = _lines(column, whole, state_of)
        choices.ask("action", f"{taken.says} without {names}", line, "all of it", other_line)
    elif lacks:
        line, other_line = lines if taken.value is column else reversed(lines)
        choices.ask("action", f"{taken.says}, though {lacks}", line, "another", other_line)
    return taken.value, list(taken.reasons)


def _lines(action: ActionSpec, other: ActionSpec, state_of: _StateOf) -> list[str]:
    """Return the lines of a schema that say two actions, and the state beside each if the two differ in it."""
    lines = [f'kind = "{each.kind}", of = {json.dumps(each.of)}' for each in (action, other)]
    states = [_paths(state_of(each)) for each in (action, other)]
    if states[0] != states[1]:
        lines = [f"{line}, state = {json.dumps(state)}" for line, state in zip(lines, states, strict=True)]
    return lines


def _why(commanded: Sequence[Role], chosen: Sequence[Role]) -> list[str]:
    left = [role.field.name for role in commanded if role not in chosen]
    said = [reason for role in chosen for reason in role.reasons[:1]]
    return [*dict.fromkeys(said), *([f"left out: {', '.join(left)}"] if left else [])]


def _robot_moves_by(commanded: Sequence[Role]) -> list[Role]:
    """Leave out speeds beside positions, poses beside joints, and parts beside an action that is called so."""
    named = [role for role in commanded if role.plain.split()[-1:] in (["action"], ["actions"])]
    if all(role.quantity == "gripper" for role in named):
        named = []
    chosen = named or [role for role in commanded if role.quantity != "rate"] or list(commanded)
    if any(role.quantity == "joint" for role in chosen):
        chosen = [role for role in chosen if role.quantity != "pose" or _is_lone_axis(role)]
    if len({role.sides for role in named}) < len(named) and not any(role.field.labels for role in named):
        chosen = named[:1]
    chosen = [role for role in chosen if not any(_told_better(role, other) for other in chosen)]
    return [role for role in chosen if not any(_holds(whole, role) for whole in chosen if whole is not role)]


def _told_better(role: Role, other: Role) -> bool:
    """Return True if another field of the same columns is the likelier command, such as cmd.q_d beside state.q_d."""
    same = role.quantity == other.quantity and role.field.num_columns > 1 and are_alike(role.field, other.field)
    return same and other.score - role.score > _LIKELIER


def _holds(whole: Role, part: Role) -> bool:
    """Return True if the columns of a field are among those of a wider one, such as one vector of all commands."""
    rows, ours = whole.field.head, part.field.head
    if rows is None or ours is None or len(rows) != len(ours) or rows.shape[1] <= ours.shape[1]:
        return False
    return all(any(np.array_equal(column, each, equal_nan=True) for each in rows.T) for column in ours.T)


def _is_lone_axis(role: Role) -> bool:
    """Return True if a command of one axis, such as a lift, is beside what that axis reached."""
    return role.twin and role.field.num_columns == 1


def _moves_otherwise(role: Role, chosen: Sequence[Role]) -> bool:
    """Return True if a command that is left out is no other account of what the chosen ones say."""
    if role.quantity == "rate":  # speeds and forces beside positions
        told = [each for each in chosen if each.quantity in ("joint", "pose") and each.field.num_columns > 1]
        return not told and not any(are_alike(role.field, each.field) for each in chosen)
    return role.quantity == "pose" and role.field.num_columns == 1  # a lone axis, such as a lift


def _is_called_like(role: Role, chosen: Sequence[Role]) -> bool:
    """Return True if a field whose name says nothing begins with the same word as each command, such as rc_rudder."""
    first = {(each.stream.name, *words_in(each.field.name)[:1]) for each in chosen if "_" in each.field.name}
    ours = (role.stream.name, *words_in(role.field.name)[:1])
    if lexicon().likeness(role.field.name, "roles", "measured"):
        return False
    return len(first) == 1 and ours in first and role.quantity == "" and role.moves and not role.observed


def _moves_together(roles: Sequence[Role], choices: Choices | None, state_of: _StateOf) -> tuple[list[Role], str]:
    """Return all that moves together: joints and grippers, else poses, else what changes, and the reason."""
    moving = [role for role in roles if role.moves]
    grippers = [role for role in moving if role.quantity == "gripper"]
    anchor = [role for role in moving if role.stream is roles[0].stream]
    for quantity, among in (("joint", moving), ("pose", anchor), ("pose", moving)):
        found = [role for role in among if role.quantity == quantity]
        if found:
            both = [role for role in moving if role in found or role in grippers]
            _ask_of_what_lies_among(both, anchor, choices, state_of)
            return both, f"the {_SAID[quantity]}{' and the gripper' if grippers else ''}, as named"
    changing = [role for role in anchor if role.changes]
    unrated = [role for role in changing if role.quantity != "rate"]
    others = unrated or changing or anchor or [role for role in roles if role.stream is roles[0].stream]
    if choices is not None and others:
        widest = max(others, key=lambda role: role.field.num_columns)
        line, other = (f"of = {json.dumps(_paths(each))}" for each in (others, [widest]))
        if all(role.quantity == "rate" for role in others):
            about = "action: only speeds, forces or signals of sensors are in the recording"
            choices.ask(about, "where they are later", line, "another", "of = [...]")
        elif len(others) > 1 and not all(role.quantity for role in others):
            choices.ask("action: no name says what the robot moves", "all that changes", line, "less of it", other)
    return [*others, *(role for role in grippers if role not in others)], "no name says what the robot moves"


def _ask_of_what_lies_among(
    moves: Sequence[Role], anchor: Sequence[Role], choices: Choices | None, state_of: _StateOf
) -> None:
    """Ask about fields without a telling name among those that move or more than those, and those without any name."""
    where = [i for i, role in enumerate(anchor) if role in moves]
    among = [role for role in anchor[min(where) : max(where)] if not role.quantity] if where else []
    among += [role for role in anchor if role not in [*among, *moves] and (role.nameless or _outnumbers(role, moves))]
    if choices is not None and among:
        names = ", ".join(role.field.name for role in among)
        without, whole = (ActionSpec(kind="absolute", of=_paths(each)) for each in (moves, [*moves, *among]))
        line, other = _lines(without, whole, state_of)
        choices.ask(f"action: {names} stands among what moves", "no part of it", line, "a part of it", other)


def _outnumbers(role: Role, moves: Sequence[Role]) -> bool:
    """Return True if a field of numbered columns without a telling name has more of them than lone columns move."""
    is_numbered = all(label.isdecimal() for label in role.field.labels) and role.field.num_columns > len(moves)
    return is_numbered and not role.quantity and all(each.field.num_columns == 1 for each in moves)


def _lacks(chosen: Sequence[Role], moves: Sequence[Role]) -> tuple[str, float]:
    """Say which part of what moves was not commanded, and return the share that was."""
    ours, all_sides = (frozenset().union(*(role.sides for role in each)) for each in (chosen, moves))
    if ours and all_sides - ours:
        return f"the {' and '.join(sorted(all_sides - ours))} arm moves too", len(ours) / len(all_sides) / 2
    commanded, measured = (_num_of(each, "joint") for each in (chosen, moves))
    grippers, held = (_num_of(each, "gripper") for each in (chosen, moves))
    if measured and not commanded and grippers and not any(role.quantity == "" for role in chosen):
        return "all joints move", 0.0
    lone = [role for role in chosen if role.quantity == "" and not any(role.field.labels)]
    if not commanded and len(lone) == len(chosen) == 1 and lone[0].field.num_columns == 1 < measured:
        commanded = 1  # one command of many joints, whatever its name says
    if 0 < commanded < measured + (0 if grippers else -held):
        return f"{measured} joints move and {commanded} are commanded", commanded / measured
    named = any(role.quantity in ("joint", "pose") for role in chosen) and commanded <= measured
    if held and not grippers and named:
        return "the gripper is not commanded", 1.0
    return "", 1.0


def _num_of(roles: Sequence[Role], quantity: str) -> int:
    """Count the values of a quantity. Fields with the same columns, such as two filters of one sensor, count once."""
    found = [role for role in roles if role.quantity == quantity]
    named = {
        (role.sides, role.field.labels if any(role.field.labels) else (role.path,)): role.field.num_columns
        for role in found
    }
    return sum(named.values())


def _paths(roles: Sequence[Role]) -> tuple[str, ...]:
    return tuple(role.path for role in roles)


def _look_ahead(moves: Sequence[Role], clock: ClockGuess, num_rows: int, why: str) -> tuple[ActionSpec, list[str]]:
    """Return the action that leads to where the robot is a little later, and the reasons."""
    rate = clock.rate_hz or 10.0
    if num_rows < 3:
        return ActionSpec(kind="column", of=_paths(moves)), [why, "too few rows to look ahead"]
    # A whole number of rows, so that a row lies near the time ahead.
    rows = max(1, min(round(_AHEAD_S * rate), num_rows // 3))
    period_s = rows / rate
    said = [why, f"{rows} rows ahead at {rate:.4g} rows a second; 'delta' is as plausible"]
    action = ActionSpec(kind="absolute", of=_paths(moves), period_s=period_s, tolerance_s=max(period_s / 4, 0.6 / rate))
    return action, said
