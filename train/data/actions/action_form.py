"""Expresses recorded actions in the form that a policy is trained on, and back: relative, delta, other rotations.

Every form is exact: ``decode`` gives back what ``encode`` was given, within float32. Several numbers may mean the same:
an angle and the angle a turn further, a quaternion and its negative. ``decode`` then gives the one that the recordings
have, if that is known. Shape letters: B batch, H action horizon, A action size as trained, R action size as recorded,
D state size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.schema import ActionKind, Rotation, Schema
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.data.actions.action_parts import Part, Ranges, parts_of, wrapped
from vlapipe.train.data.actions.field_columns import ROTATIONS
from vlapipe.train.data.actions.rotations import compose, inverse, of_quaternion, shorter

__all__ = ["KINDS", "ActionForm"]

_Name = TypeVar("_Name", bound=str)
KINDS: tuple[ActionKind, ...] = get_args(ActionKind)


@dataclass(frozen=True, kw_only=True)
class ActionForm:
    """How the actions that a policy predicts follow from the recorded ones.

    ``absolute``: as recorded. ``relative``: minus the frame's own state. ``delta``: minus the action before; the first
    minus the frame's own state. Angles with a period wrap. Rotations compose: ``R_rel = R_state^-1 R_action``.
    Appended numbers stay as they are.
    """

    kind: ActionKind
    rotation: Rotation | None  # how rotations are written; None: as recorded
    parts: tuple[Part, ...]
    origin_may_lack: bool = True  # whether a part starts from another stream than the anchor, with no value at times

    @classmethod
    def of(
        cls,
        schema: Schema,
        *,
        kind: str = "absolute",
        rotation: str | None = None,
        relative_to: Sequence[str] = (),
        ranges: Ranges | None = None,
    ) -> ActionForm | None:
        """Returns the form of a schema's actions; None if they stay as recorded.

        Args:
            schema: with the chosen ``action`` and ``sample``.
            kind: ``absolute``, ``relative`` or ``delta``.
            rotation: ``quaternion``, ``6d``, ``axis_angle`` or ``sin_cos``; None keeps what was recorded.
            relative_to: for each field of ``action.of``, the field of the state that it starts from; an empty name
                leaves the field absolute. By default, each starts from the field of its own name.
            ranges: lowest and highest value of each column of the recorded action; ``decode`` gives angles within them.

        Raises:
            UsageError: the recorded actions cannot have this form, or the state lacks a field.
        """
        kind = _choice("action_form", kind, KINDS)
        rotation = None if rotation is None else _choice("rotation", rotation, ROTATIONS)
        if kind == "absolute" and rotation is None:
            return None
        if schema.action.kind == "delta":
            problem = "the recorded actions are changes already (kind = 'delta' in [action])"
            raise UsageError(f"action_form: {problem}", "choose [action] kind = 'absolute' or 'next' when training")
        count = len(schema.action.of)
        if relative_to and len(relative_to) != count:
            cure = f"one field of the state for each of {', '.join(schema.action.of)}; '' leaves it absolute"
            raise UsageError(f"relative_to: expected {count} names, found {len(relative_to)}", cure)
        moves = kind != "absolute"
        parts = parts_of(schema, relative_to or schema.action.of, ranges, moves=moves)
        if moves and not any(part.origin for part in parts):
            raise UsageError(f"action_form: nothing is {kind}: relative_to is empty", "name a field of the state")
        if rotation is not None and not any(part.columns.is_changed_by(rotation) for part in parts):
            _require_use(rotation, parts)
            if not moves:
                return None  # they are written like this already
        bases = [base for base in relative_to or schema.action.of if base]
        may_lack = moves and not all(schema.is_on_anchor(base) for base in bases)
        return cls(kind=kind, rotation=rotation, parts=parts, origin_may_lack=may_lack)

    @property
    def size(self) -> int:
        """A, the number of columns of an action as trained."""
        return sum(part.columns.width(self.rotation) for part in self.parts)

    @property
    def recorded_size(self) -> int:
        """R, the number of columns of an action as recorded."""
        return sum(part.columns.num_columns for part in self.parts)

    @property
    def needs_state(self) -> bool:
        """Whether an action says nothing without the frame's own state."""
        return any(self._moves(part) for part in self.parts)

    def encode(self, actions: Tensor, state: Tensor, is_pad: Tensor | None = None) -> Tensor:
        """Returns actions as trained, ``(B, H, A)`` float32, of recorded actions ``(B, H, R)``.

        ``state`` ``(B, D)`` is the frame's own row. ``is_pad`` ``(B, H)`` marks actions that the episode does not have:
        they become zeros, and ``delta`` passes over them.
        """
        before = _before(is_pad) if is_pad is not None and self.kind == "delta" else None
        out, first = list[Tensor](), 0
        for part in self.parts:
            recorded = actions[..., first : first + part.columns.num_columns]
            first += part.columns.num_columns
            out.append(recorded.float() if self._keeps(part) else self._encode(part, recorded, state, before))
        encoded = torch.cat(out, dim=-1)
        return encoded if is_pad is None else encoded.masked_fill(is_pad.unsqueeze(-1), 0.0)

    def decode(self, actions: Tensor, state: Tensor) -> Tensor:
        """Returns recorded actions ``(B, H, R)`` float32 of actions as trained ``(B, H, A)``: undoes ``encode``."""
        out, first = list[Tensor](), 0
        for part in self.parts:
            width = part.columns.width(self.rotation)
            trained = actions[..., first : first + width]
            first += width
            out.append(trained.float() if self._keeps(part) else self._decode(part, trained, state))
        return torch.cat(out, dim=-1)

    def to_json(self) -> dict[str, Any]:
        """Returns the form as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ActionForm:
        """Returns the form from the result of ``to_json``, also after it went through JSON."""
        parts = tuple(Part.from_json(part) for part in values["parts"])
        may_lack = values.get("origin_may_lack", True)
        return cls(kind=values["kind"], rotation=values["rotation"], parts=parts, origin_may_lack=may_lack)

    def _moves(self, part: Part) -> bool:
        """Whether the part is said by its change, and not by its value."""
        return self.kind != "absolute" and part.origin is not None

    def _keeps(self, part: Part) -> bool:
        """Whether the part is trained bit for bit as it was recorded."""
        return not self._moves(part) and not part.columns.is_changed_by(self.rotation)

    def _encode(self, part: Part, recorded: Tensor, state: Tensor, before: Tensor | None) -> Tensor:
        values = part.columns.read(recorded.double(), None)
        if self._moves(part):
            assert part.origin is not None
            base = part.origin.read(state)
            if self.kind == "delta":
                known = torch.cat([base, values], dim=1)
                base = known[:, :-1] if before is None else known.take_along_dim(before.unsqueeze(-1), dim=1)
            if part.columns.is_rotation:
                values = shorter(compose(inverse(base).expand_as(values), values))
            else:
                values = wrapped(values - base, values.new_tensor(part.columns.period))
        return part.columns.write(values, self.rotation).float()

    def _decode(self, part: Part, trained: Tensor, state: Tensor) -> Tensor:
        columns, moves = part.columns, self._moves(part)
        values = columns.read(trained.double(), self.rotation)
        origin = None if part.origin is None else part.origin.read(state)
        if moves:
            assert origin is not None
            values = _moved(origin, values, is_rotation=columns.is_rotation, is_chain=self.kind == "delta")
        if columns.kind == "numbers":
            return part.as_recorded(values, values if moves or origin is None else origin).float()
        if columns.kind == "euler":
            near = None if part.origin is None else part.origin.angles(state, columns)
            return part.angles_as_recorded(columns.write(values, None), near).float()
        if origin is not None and not moves:  # a quaternion with the sign of the state's; a moved one has it already
            values = torch.where((values * origin).sum(-1, keepdim=True) < 0, -values, values)
        return columns.write(values, None).float()


def _moved(origin: Tensor, changes: Tensor, *, is_rotation: bool, is_chain: bool) -> Tensor:
    """Returns ``origin`` ``(B, 1, N)`` moved by each change ``(B, H, N)``, or by all changes so far if ``is_chain``."""
    if not is_rotation:
        return origin + (changes.cumsum(1) if is_chain else changes)
    changes = shorter(changes)
    if not is_chain:
        return compose(origin.expand_as(changes), changes)
    places, now = list[Tensor](), origin[:, 0]
    for change in changes.unbind(1):
        now = of_quaternion(compose(now, change))
        places.append(now)
    return torch.stack(places, dim=1)


def _before(is_pad: Tensor) -> Tensor:
    """Returns for each action the number of the last one before it that is no padding, from 1; 0 if there is none."""
    numbers = torch.arange(1, is_pad.shape[1] + 1, device=is_pad.device).masked_fill(is_pad, 0)
    last = numbers.cummax(dim=1).values
    return torch.cat([torch.zeros_like(last[:, :1]), last[:, :-1]], dim=1)


def _choice(what: str, found: str, known: tuple[_Name, ...]) -> _Name:
    for name in known:
        if name == found:
            return name
    raise UsageError(f"{what}: {found!r} is unknown", did_you_mean(str(found), known))


def _require_use(rotation: Rotation, parts: Sequence[Part]) -> None:
    """Refuse a rotation that no column of the action could have."""
    if rotation == "sin_cos":
        cure = "say period = 360 (or 6.283185) in the field's schema, or leave rotation out"
        raise UsageError("rotation = 'sin_cos': no column of the action is an angle that repeats", cure)
    if not any(part.columns.is_rotation for part in parts):
        cure = "say quaternion = 'xyzw' or euler = 'XYZ' in the field's schema, or leave rotation out"
        raise UsageError(f"rotation = {rotation!r}: no field of the action is a rotation", cure)
