"""Adds up the evidence for what each field of the streams is: what it is used for, and which quantity it holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vlapipe.pipeline.infer.evidence import log_odds, said
from vlapipe.pipeline.infer.guess import FieldGuess, StreamGuess
from vlapipe.pipeline.infer.lexicon import lexicon
from vlapipe.pipeline.infer.roles.field_evidence import (
    by_columns,
    by_likes,
    by_name,
    by_place,
    by_values,
    plain_words,
    sides_of,
)

__all__ = ["MAYBE", "WIDEST", "Role", "roles_of"]

WIDEST = 4096  # numbers in a row of a field
MAYBE = -2.0  # log-odds from which a field may be a command
_MADE_NAME = re.compile(r"c\d+")  # of a column that a header leaves without one
_NAMED = 0.8  # likeness of a name that ends in a phrase
_USES = ("command", "error", "label", "object")
_QUANTITIES = ("gripper", "joint", "pose", "rate")


@dataclass(frozen=True, kw_only=True)
class Role:
    """What a field is. ``use`` is command, error, label, object or measured.

    ``quantity`` is gripper, joint, pose, rate, or empty. ``score`` is by how many log-odds a command is likelier than
    any other use. ``sides`` are the arms that its names say.
    """

    path: str
    stream: StreamGuess
    field: FieldGuess
    use: str
    quantity: str
    score: float
    sides: frozenset[str]
    observed: bool
    flag: bool  # True if there are two values only
    twin: bool  # True if a field like it may be what it was commanded to be, or commanded
    reasons: tuple[str, ...]

    @property
    def nameless(self) -> bool:
        """True if the file names other columns, but none of the field's."""
        named = [column for field in self.stream.fields for column in field.columns if not _MADE_NAME.fullmatch(column)]
        return bool(named) and all(map(_MADE_NAME.fullmatch, self.field.columns))

    @property
    def desired(self) -> bool:
        """True if a command, by its name or by its score, lies beside what was reached."""
        named = lexicon().likeness(self.plain, "roles", "command") >= _NAMED and self.quantity in ("joint", "rate")
        return self.twin and (named or self.score > MAYBE)

    @property
    def plain(self) -> str:
        """Words of the name."""
        return plain_words(self.field)

    @property
    def moves(self) -> bool:
        """True if the field is measured, is no flag, and changes or says in its name what it is."""
        return self.use == "measured" and not self.field.optional and (self.changes or bool(self.quantity))

    @property
    def changes(self) -> bool:
        """True if the values are not all the same."""
        return not self.field.constant and not self.flag


def roles_of(streams: Sequence[StreamGuess]) -> list[Role]:
    """Tell what each field of numbers is. Arrays of more than one dimension a row are no part of it."""
    with_rows = [stream for stream in streams if stream.fields]
    found = []
    for stream in with_rows:
        others = [other for other in with_rows if other is not stream]
        for field in stream.fields:
            if not field.numeric or len(field.shape or ()) > 1 or field.num_columns > WIDEST:
                continue
            evidence = [*by_name(field), *by_place(field, stream, others), *by_columns(field), *by_values(field)]
            evidence += by_likes(field, [other for other in stream.fields if other.numeric])
            uses = {use: log_odds(use, evidence) for use in _USES} | {"measured": 0.0}
            use = max(uses, key=lambda each: uses[each])
            quantities = {quantity: log_odds(quantity, evidence) for quantity in _QUANTITIES}
            quantity = max(quantities, key=lambda each: quantities[each])
            features = {each.feature for each in evidence}
            found.append(
                Role(
                    path=f"{stream.name}/{field.name}",
                    stream=stream,
                    field=field,
                    use=use,
                    quantity=quantity if quantities[quantity] > 0 else "",
                    score=uses.pop("command") - max(uses.values()),
                    sides=sides_of(field, stream.name, stream.files[0]),
                    observed="group_observed" in features,
                    flag="two_values" in features,
                    twin="twin" in features,
                    reasons=said("command", evidence),
                )
            )
    return found
