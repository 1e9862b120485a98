"""Adds up evidence for a guess.

A detector is a pure function of a column, a name, a block of text or a set of files. It returns evidence and knows of
no other detector and of no role. ``weights.toml`` has for each role the log-odds that each feature adds. To change what
a feature is worth is to change that table.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["Evidence", "log_odds", "said", "weights"]

_PRIOR = "prior"


@dataclass(frozen=True)
class Evidence:
    """One thing that a detector saw.

    ``feature`` is a name in ``weights.toml``. ``strength`` is between 0 (nothing of it) and 1 (as clear as it can be).
    ``sentence`` is printed as a reason if the guess is taken; it may be empty.
    """

    feature: str
    strength: float = 1.0
    sentence: str = ""


@cache
def weights() -> Mapping[str, Mapping[str, float]]:
    """Returns the table of weights in log-odds (natural logarithm) by role and feature."""
    return tomllib.loads(files(__package__).joinpath("weights.toml").read_text(encoding="utf-8"))


def log_odds(role: str, evidence: Iterable[Evidence]) -> float:
    """Returns the log-odds that something has a role. Features of which the role's table says nothing add nothing."""
    table = weights()[role]
    return table.get(_PRIOR, 0.0) + sum(table.get(each.feature, 0.0) * each.strength for each in evidence)


def said(role: str, evidence: Iterable[Evidence]) -> tuple[str, ...]:
    """Returns the sentences of the evidence for a role, the strongest first. Evidence against it is left out."""
    table = weights()[role]
    shares = [(table.get(each.feature, 0.0) * each.strength, each.sentence) for each in evidence if each.sentence]
    ordered = sorted((share for share in shares if share[0] > 0), key=lambda share: -share[0])
    return tuple(dict.fromkeys(sentence for _, sentence in ordered))
