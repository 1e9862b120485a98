"""Records each choice of a guess, so that other whole guesses can be made by choosing otherwise at one place.

A guess is made by plain code that calls ``pick`` wherever several answers are possible. The first run takes the
likeliest answer each time. A later run is given ``take``, and takes another answer at the places that it names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

__all__ = ["Choice", "Choices", "Option", "Question", "asked_once"]

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Option(Generic[Value]):
    """One possible answer.

    ``score`` is in log-odds. ``says`` is the answer in words, and ``line`` the line of a schema that says it.
    ``reasons`` are printed if the answer is taken.
    """

    value: Value
    score: float
    says: str
    line: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A place where several answers are possible: the answers, the likeliest first, and which was taken."""

    about: str
    options: tuple[Option[Any], ...]
    taken: int

    def lost_by(self, other: int) -> float:
        """Returns by how many log-odds the evidence alone puts an answer behind the likeliest."""
        return self.options[0].score - self.options[other].score


@dataclass(frozen=True)
class Question:
    """Something that only a person can say: two answers or more, each with the line of a schema that says it.

    ``about`` says what is asked. The guess took the first answer.
    """

    about: str
    taken: str
    line: str
    other: str
    other_line: str
    more: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """Returns the question on one line."""
        others = [(self.other, self.other_line), *self.more]
        return f"{self.about}: {self.taken} ({self.line}), " + ", ".join(f"or {o} ({line})" for o, line in others) + "?"


def asked_once(questions: Iterable[Question]) -> list[Question]:
    """Returns one question for all that ask about the same and took the same; its answers differ in their lines."""
    found: dict[tuple[str, str], Question] = {}
    for question in questions:
        first = found.setdefault((question.about, question.line), question)
        if question.other_line not in (first.other_line, *(line for _, line in first.more)):
            more = (*first.more, (question.other, question.other_line))
            found[question.about, question.line] = replace(first, more=more)
    return list(found.values())


@dataclass
class Choices:
    """The choices of one run. ``take`` maps what a choice is about to the number of the answer to take.

    ``apart`` maps the streams that are left out, because they were recorded at other times, to their first file.
    """

    take: Mapping[str, int] = field(default_factory=dict)
    apart: Mapping[str, str] = field(default_factory=dict)
    made: list[Choice] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)

    def pick(self, about: str, options: Sequence[Option[Value]]) -> Option[Value]:
        """Returns the likeliest of at least one option, or the one that this run takes instead."""
        ordered = tuple(sorted(options, key=lambda option: -option.score))
        taken = min(self.take.get(about, 0), len(ordered) - 1)
        self.made.append(Choice(about=about, options=ordered, taken=taken))
        return ordered[taken]

    def ask(self, about: str, taken: str, line: str, other: str, other_line: str) -> None:
        """Ask a question whatever the evidence says, because a wrong answer would train the wrong thing."""
        self.questions.append(Question(about, taken, line, other, other_line))
