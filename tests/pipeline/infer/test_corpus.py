"""``schema infer`` on the corpus: it is right where no question is needed, and never wrong in silence."""

from __future__ import annotations

import pytest
from corpus import Case, cases, judge


def tried() -> list[object]:
    """The cases; in the fast suite the faults that were found, what is like them, and a third of the dialects."""
    found = []
    for i, case in enumerate(cases()):
        fast = case.name.startswith(("fault-", "like-")) or i % 3 == 0
        marks = [] if fast else [pytest.mark.slow]
        found.append(pytest.param(case, id=f"{case.half}-{case.name}", marks=marks))
    return found


@pytest.mark.parametrize("case", tried())
def test_recording_is_inferred_or_asked_about(case: Case) -> None:
    verdict = judge(case)
    said = "\n".join([*map(str, verdict.confusions), *verdict.asked, verdict.toml])
    assert verdict.answer != "wrong", said
    assert case.facts["answer"] in (verdict.answer, "either"), said
    if verdict.answer == "asked" and "asks" in case.facts:
        assert any(text in line for text in case.facts["asks"] for line in verdict.asked), said
