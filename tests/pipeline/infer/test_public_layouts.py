"""``schema infer`` on layouts of public robot datasets: no line is to be written, or what is asked says which one."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus import judge_folder
from public_layouts import LAYOUTS, Layout

RATE = "how many rows a second"


TRIED = [
    pytest.param(layout, id=layout.name, marks=[] if i % 2 == 0 else [pytest.mark.slow])
    for i, layout in enumerate(LAYOUTS)
]


@pytest.mark.parametrize("layout", TRIED)
def test_public_dataset_is_inferred(layout: Layout, tmp_path: Path) -> None:
    layout.write(tmp_path)
    verdict = judge_folder(tmp_path, layout.facts, answered=[RATE])
    said = "\n".join([*map(str, verdict.confusions), *verdict.asked, verdict.toml])
    assert verdict.answer != "wrong", said
    asked = "right" if verdict.answer == "right" else "rate" if all(RATE in line for line in verdict.asked) else "told"
    assert asked in layout.answer.split("|"), said
    if asked == "told":
        assert any(text in line for text in layout.facts.get("asks", [""]) for line in verdict.asked), said


def test_most_need_no_line() -> None:
    assert len(LAYOUTS) >= 40
    assert sum("told" not in layout.answer for layout in LAYOUTS) >= 36
