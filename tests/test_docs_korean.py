"""The Korean README and quickstart say what the English ones say: same headings, code, names, links and figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "docs/quickstart.md"]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def korean(page: str) -> Path:
    return ROOT / page.replace(".md", ".ko.md")


def sections(path: Path) -> list[tuple[str, str]]:
    """Level of each heading, and the text below it without its code."""
    text = FENCED.sub("", path.read_text(encoding="utf-8"))
    parts = re.split(r"^(#+) (.*)\n", text, flags=re.MULTILINE)[1:]
    return [
        (level, f"{title}\n{body}") for level, title, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    ]


def code_of(path: Path) -> list[tuple[str, str]]:
    """Language and code of each block, without comments, which are in the page's own language."""
    found = FENCED.findall(path.read_text(encoding="utf-8"))
    return [(language, re.sub(r"\s+# .*$", "", code, flags=re.MULTILINE)) for language, code in found]


def names(text: str) -> list[str]:
    return sorted(re.findall(r"`[^`]+`", text))


def links(text: str) -> list[str]:
    return sorted(target.replace(".ko.md", ".md") for target in re.findall(r"\]\(([^)]+)\)", text))


def figures(text: str) -> list[str]:
    words = re.sub(r"`[^`]+`|\]\([^)]+\)", " ", text)
    return sorted(re.findall(r"\d+(?:[.,]\d+)*", words))


@pytest.mark.parametrize("page", PAGES)
def test_korean_page_has_the_code_of_the_english_one_in_its_order(page: str) -> None:
    wanted = code_of(ROOT / page)
    assert len(wanted) > 5
    assert code_of(korean(page)) == wanted


@pytest.mark.parametrize("page", PAGES)
def test_each_section_has_the_names_links_figures_and_rows_of_the_english_one(page: str) -> None:
    english, translated = sections(ROOT / page), sections(korean(page))
    assert [level for level, _ in translated] == [level for level, _ in english]
    for (_, told), (_, text) in zip(translated, english, strict=True):
        for facts in (names, figures):
            assert facts(told) == facts(text), text.partition("\n")[0]
        assert [each for each in links(told) if each != page] == [each for each in links(text) if each != page]
        for mark in ("|", "- "):
            assert len(re.findall(f"^{re.escape(mark)}", told, re.MULTILINE)) == len(
                re.findall(f"^{re.escape(mark)}", text, re.MULTILINE)
            ), text.partition("\n")[0]


@pytest.mark.parametrize("page", PAGES)
def test_page_is_korean_and_each_leads_to_the_other(page: str) -> None:
    told = "".join(text for _, text in sections(korean(page)))
    assert len(re.findall(r"[가-힣]", told)) > 400
    assert f"]({korean(page).name})" in (ROOT / page).read_text(encoding="utf-8")
    assert f"]({Path(page).name})" in korean(page).read_text(encoding="utf-8")
