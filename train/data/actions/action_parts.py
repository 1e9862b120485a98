"""Finds the parts of an action in a schema: columns that are treated alike, and where the state says their origin.

Shape letters: B batch, H action horizon, N columns of a part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.schema import Schema
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.schemas.units import conversion_factor
from vlapipe.train.data.actions.field_columns import Columns, columns_of_path

__all__ = ["Origin", "Part", "parts_of"]

Ranges = tuple[Sequence[float], Sequence[float]]
_SLACK = 1e-5  # relative: float32 values of a full turn may span a little more than the turn


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The columns of the state that a part starts from, and the factor from their units to those of the action."""

    columns: Columns
    first: int
    factor: tuple[float, ...] = ()

    def read(self, state: Tensor) -> Tensor:
        """Returns the numbers ``(B, 1, N)`` in the action's units, or the rotations ``(B, 1, 4)``, of rows of state."""
        read = self.columns.read(self._values(state), None)
        return read if self.columns.is_rotation else read * read.new_tensor(self.factor)

    def angles(self, state: Tensor, like: Columns) -> Tensor:
        """Returns the Euler angles ``(B, 1, 3)`` in the units and the convention of ``like``."""
        if self.columns.convention != like.convention:
            return like.write(self.read(state), None)
        values = self._values(state)
        return values * values.new_tensor(self.columns.to_rad) / values.new_tensor(like.to_rad)

    def _values(self, state: Tensor) -> Tensor:
        return state[:, None, self.first : self.first + self.columns.num_columns].double()


@dataclass(frozen=True, kw_only=True)
class Part:
    """Neighbouring columns of the recorded action. Without ``origin``, they stay absolute.

    ``lowest`` and ``highest``: of the recordings, one entry per column; none if they are unknown.
    """

    columns: Columns
    origin: Origin | None = None
    lowest: tuple[float, ...] = ()
    highest: tuple[float, ...] = ()

    def as_recorded(self, values: Tensor, near: Tensor) -> Tensor:
        """Returns the same angles ``(B, H, N)``, each with the number of turns that the recordings have.

        If the recordings of a column span at most one turn, the angle lies in that turn: from minus half a turn to half
        a turn, or from 0 to a turn, or else around their middle. Otherwise it is the one nearest to ``near``.
        """
        return self._turned(values, near, values.new_tensor(self.columns.period))

    def angles_as_recorded(self, angles: Tensor, near: Tensor | None) -> Tensor:
        """Returns the Euler angles ``(B, H, 3)`` that the recordings have for the rotations of ``to_euler``'s angles.

        Two triples, and any number of turns, are the same rotation. The second triple is taken only if the recordings
        have such ones, and if it is the one nearer to ``near`` ``(B, 1, 3)``, or to the middle of the recordings.
        """
        turn = 2 * math.pi / angles.new_tensor(self.columns.to_rad)
        near = torch.zeros_like(angles) if near is None else near.expand_as(angles)
        first = self._turned(angles, near, turn)
        if not self._is_folded():
            return first
        second = self._turned(self._folded(angles, turn / 2), near, turn)
        low, high = angles.new_tensor(self.lowest), angles.new_tensor(self.highest)
        outside = [(low - each).clamp_min(0).sum(-1) + (each - high).clamp_min(0).sum(-1) for each in (first, second)]
        away = [((each - near) / turn).abs().sum(-1) for each in (first, second)]
        is_second = torch.where((outside[0] - outside[1]).abs() > 1e-4, outside[1] < outside[0], away[1] < away[0])
        return torch.where(is_second.unsqueeze(-1), second, first)

    def _turned(self, angles: Tensor, near: Tensor, period: Tensor) -> Tensor:
        centre = near.expand_as(angles)
        if self.lowest:
            lowest, highest = angles.new_tensor(self.lowest), angles.new_tensor(self.highest)
            # The turn that recorders use, if the recordings fit in it: other recordings may have more of it than these.
            half, slack = period / 2, period * _SLACK
            middle = (lowest + highest) / 2
            middle = torch.where((lowest >= -slack) & (highest <= period + slack), half, middle)
            middle = torch.where((lowest >= -half - slack) & (highest <= half + slack), 0.0, middle)
            centre = torch.where(highest - lowest <= period * (1 + _SLACK), middle, centre)
        return wrapped(angles - centre, period) + centre

    @property
    def _is_proper(self) -> bool:
        return self.columns.convention[0] == self.columns.convention[2]

    def _is_folded(self) -> bool:
        """Whether the second angle of the recordings leaves the interval of ``to_euler``."""
        if not self.lowest:
            return False
        quarter = math.pi / 2 / self.columns.to_rad[1]
        first, last = (0.0, 2 * quarter) if self._is_proper else (-quarter, quarter)
        slack = 1e-4 * quarter
        return self.lowest[1] < first - slack or self.highest[1] > last + slack

    def _folded(self, angles: Tensor, half: Tensor) -> Tensor:
        """Returns the other three angles ``(B, H, 3)`` of the same rotations; ``half`` is half a turn."""
        first, second, third = angles.unbind(-1)
        second = -second if self._is_proper else half[1] - second
        return torch.stack([first + half[0], second, third + half[2]], dim=-1)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Part:
        """Returns the part from ``dataclasses.asdict`` of it, also after it went through JSON."""

        def columns(entry: Mapping[str, Any]) -> Columns:
            values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in entry.items()}
            return Columns(**values)

        origin = values["origin"]
        return cls(
            columns=columns(values["columns"]),
            origin=None
            if origin is None
            else Origin(
                columns=columns(origin["columns"]),
                first=origin["first"],
                factor=tuple(origin["factor"]),
            ),
            lowest=tuple(values["lowest"]),
            highest=tuple(values["highest"]),
        )


def wrapped(changes: Tensor, period: Tensor) -> Tensor:
    """Returns changes of angles within plus or minus half a period. A column with period 0 does not repeat."""
    turns = torch.where(period > 0, changes / period.clamp_min(1e-300), 0.0)
    return changes - period * turns.round()


def parts_of(schema: Schema, relative_to: Sequence[str], ranges: Ranges | None, *, moves: bool) -> tuple[Part, ...]:
    """Returns the parts of an action in order. ``relative_to`` has one name per field of ``action.of``.

    Raises:
        UsageError: with ``moves``, a field that the action starts from is missing in the state, or differs in kind.
    """
    lowest, highest = ranges or ((), ())
    parts, first = list[Part](), 0
    for path, base in zip(schema.action.of, relative_to, strict=True):
        columns = columns_of_path(schema, path)
        origins = _origins(schema, path, base, columns, must=moves)
        for of, origin in zip(columns, origins, strict=True):
            stop = first + of.num_columns
            known = tuple(float(v) for v in lowest[first:stop]), tuple(float(v) for v in highest[first:stop])
            parts.append(Part(columns=of, origin=origin, lowest=known[0], highest=known[1]))
            first = stop
    if count := len(schema.action.append):
        parts.append(Part(columns=Columns(kind="numbers", num_columns=count, period=(0.0,) * count)))
    return tuple(parts)


def _origins(schema: Schema, path: str, base: str, columns: list[Columns], *, must: bool) -> list[Origin] | list[None]:
    """Returns the origin of each part of field ``path``; without ``must``, None for a part that has none."""
    nothing: list[None] = [None] * len(columns)
    if not base:
        return nothing
    state = schema.sample.state
    if base not in state:
        if not must:
            return nothing
        cure = f"{did_you_mean(base, state)}; add it to the state, or name another one in relative_to"
        raise UsageError(f"action_form: {path} starts from {base!r}, which is not in the state", cure)
    first = sum(c.num_columns for name in state[: state.index(base)] for c in columns_of_path(schema, name))
    others, origins = columns_of_path(schema, base), list[Origin]()
    problem = ""
    if [_shape(c) for c in others] != [_shape(c) for c in columns]:
        problem = f"{path} is {_described(columns)}, {base} is {_described(others)}"
    else:
        for of, other in zip(columns, others, strict=True):
            try:
                factor = () if of.is_rotation else _factors(other, of)
            except ValueError as error:
                problem = f"the units of {path} and {base} differ: {error}"
                break
            origins.append(Origin(columns=other, first=first, factor=factor))
            first += other.num_columns
    if not problem:
        return origins
    if must:
        raise UsageError(f"action_form: {problem}", "name a state field of the same kind in relative_to")
    return nothing


def _factors(of: Columns, to: Columns) -> tuple[float, ...]:
    """Returns the factor from each unit of ``of`` to that of ``to``; 1 if one of the two is not declared."""
    if not of.unit or not to.unit:
        return (1.0,) * of.num_columns
    return tuple(conversion_factor(a, b) for a, b in zip(of.unit, to.unit, strict=True))


def _shape(columns: Columns) -> tuple[bool, int]:
    return columns.is_rotation, 0 if columns.is_rotation else columns.num_columns


def _described(columns: list[Columns]) -> str:
    return " + ".join("a rotation" if c.is_rotation else f"{c.num_columns} numbers" for c in columns)
