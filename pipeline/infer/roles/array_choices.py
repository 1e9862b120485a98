"""Chooses state and action among the arrays of a container, by their names: NPZ, HDF5, Zarr and Parquet alike."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from vlapipe.pipeline.infer.choices import Choices
from vlapipe.pipeline.infer.columns.clock import ClockGuess
from vlapipe.pipeline.infer.guess import FieldGuess, StreamGuess
from vlapipe.pipeline.infer.roles.actions import look_ahead
from vlapipe.schemas.schema import ActionSpec

__all__ = ["WIDEST_STATE", "choose_action", "choose_state"]

WIDEST_STATE = 64  # numbers a row

_COMMANDS = re.compile(r"action|command|cmd|ctrl|control|target", re.I)
# The same of a group, whose whole name must say it: observations may lie in controller_info/.
_OF_COMMANDS = re.compile(r"(\w+_)?(actions?|commands?|cmd)|master|leader|targets?", re.I)
_OBSERVED = re.compile(r"obs|observations?|proprio(ception)?|states?", re.I)
_SIMULATED = re.compile(r"states", re.I)  # robomimic's: the whole simulator, beside the observations
_REACHED = re.compile(r"pos|joint|q$|angle|eef|ee_|tcp|gripper|quat|orient|rot", re.I)
_JOINTS = re.compile(r"joint|qpos|(^|[/._])q$", re.I)
_POSES = re.compile(r"eef|(^|[/._])ee_|tcp|pose|cart|(^|[/._])end([/._]|$)|end_?effector|orient|quat", re.I)
_OF_RATES = re.compile(r"vel|effort|torque|force|wrench|acc|current", re.I)
_NO_STATE = re.compile(
    r"(^|[/.])next_|reward|done|terminal|timeout|truncat|success|discount|is_(first|last)|index|(^|[_./])idx|mask|pad"
    r"|label|subtask|term_signal|segment|((^|[/._])(camera|cam|in|ex)trinsic)|cam(era)?_?2|(^|[/._])t(ime(stamp)?)?s?$",
    re.I,
)


def choose_state(anchor: StreamGuess) -> tuple[str, ...]:
    """Return the fields that an observation consists of: those that say so, else all that may belong to it."""
    fields = [array for array in anchor.fields if _is_small(array) and not _is_commanded(array)]
    fields = [array for array in fields if not any(_NO_STATE.search(name) for name in array.columns)]
    observed = [array for array in fields if _is_observed(array)]
    return tuple(f"{anchor.name}/{array.name}" for array in observed or fields)


def choose_action(
    streams: Sequence[StreamGuess], state: Sequence[str], clock: ClockGuess, num_rows: int, choices: Choices
) -> tuple[ActionSpec, list[str]]:
    """Choose the array called action, else what was commanded, else where the robot is a little later."""
    arrays = [(stream.name, array) for stream in streams for array in stream.fields]
    arrays = [each for each in arrays if _is_small(each[1]) and not _NO_STATE.search(each[1].columns[0])]
    exact = [(name, array) for name, array in arrays if _last(array) in ("action", "actions")]
    if exact:
        others = ", ".join(array.columns[0] for _, array in exact[1:])
        return _column(exact[:1]), ["by its name", *([f"{others} would do as well"] if others else [])]
    commanded = [(name, array) for name, array in arrays if _is_commanded(array)]
    if commanded:
        chosen = _robot_moves_by(commanded)
        left = [array.columns[0] for name, array in commanded if (name, array) not in chosen]
        said = [f"{', '.join(array.columns[0] for _, array in chosen)}: by the names what was commanded"]
        return _column(chosen), [*said, *([f"left out: {', '.join(left)}"] if left else [])]
    reached = [path for path in state if _REACHED.search(path) and not _OF_RATES.search(path)]
    why = "where the robot is, by their names" if reached else "the whole state: no name tells where the robot is"
    first = f"{streams[0].name}/{streams[0].fields[0].name}"
    return look_ahead(tuple(reached or state) or (first,), clock, num_rows, why)


def _robot_moves_by(commanded: list[tuple[str, FieldGuess]]) -> list[tuple[str, FieldGuess]]:
    """Leave out speeds beside positions, poses beside joints, and parts beside the array that holds all of them."""
    chosen = [each for each in commanded if not _OF_RATES.search(each[1].columns[0])] or commanded
    if any(_JOINTS.search(array.columns[0]) for _, array in chosen):
        chosen = [each for each in chosen if not _POSES.search(each[1].columns[0]) or _JOINTS.search(_last(each[1]))]
    groups: dict[str, list[tuple[str, FieldGuess]]] = defaultdict(list)
    for each in chosen:
        groups[each[1].columns[0].rpartition("/")[0]].append(each)
    for found in groups.values():
        widths = [_width(array) for _, array in found]
        most = max(widths)
        if len(found) > 2 and sum(widths) == 2 * most:
            parts = [each for each, width in zip(found, widths, strict=True) if width != most]
            chosen = [each for each in chosen if each not in parts]
    return chosen


def _column(chosen: Sequence[tuple[str, FieldGuess]]) -> ActionSpec:
    return ActionSpec(kind="column", of=tuple(f"{name}/{array.name}" for name, array in chosen))


def _is_commanded(array: FieldGuess) -> bool:
    *groups, last = array.columns[0].strip("/").split("/")
    return bool(_COMMANDS.search(last)) or any(_OF_COMMANDS.fullmatch(group) for group in groups)


def _is_observed(array: FieldGuess) -> bool:
    parts = re.split(r"[/.]", array.columns[0].strip("/"))
    return any(_OBSERVED.fullmatch(part) for part in parts) and not (len(parts) == 1 and _SIMULATED.fullmatch(parts[0]))


def _is_small(array: FieldGuess) -> bool:
    return array.numeric and len(array.shape or ()) <= 1 and _width(array) <= WIDEST_STATE


def _width(array: FieldGuess) -> int:
    return array.shape[0] if array.shape else 1


def _last(array: FieldGuess) -> str:
    """Return the last part of a field's name: that of its array, or of its own if it has several."""
    return array.columns[0].rpartition("/")[2].lower() if len(array.columns) == 1 else array.name
