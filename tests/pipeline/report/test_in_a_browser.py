"""Pages in a real Chromium: nothing is asked of the network, nothing fails, anyone can read and work them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_lab import repeated, reported

pytestmark = pytest.mark.slow


# Each kind of page: of datasets, an episode, an ingest, a difference, a run, runs side by side.
PAGES = [
    *("planted", "planted_episode", "hostile", "columns", "columns_episode", "columns_ingest"),
    *("difference", "of_run", "comparison"),
]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def opened(browser: Any) -> Iterator[Any]:
    """Opens a page; what it asks for and says is kept in ``seen`` and ``said``."""
    pages = []

    def open_page(address: str, **options: Any) -> Any:
        page = browser.new_page(**options)
        page.set_default_timeout(120_000)
        page.seen, page.said = list[str](), list[str]()
        page.on("request", lambda one: page.seen.append(one.url))
        page.on("console", lambda one: page.said.append(one.text))
        page.on("pageerror", lambda one: page.said.append(str(one)))
        page.on("dialog", lambda one: page.said.append(one.message))
        page.goto(address)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", PAGES)
def test_page_opens_without_an_error_a_request_or_a_script_of_others(
    name: str, size: dict[str, int], opened: Any, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue(name).path.as_uri()
    page = opened(address, viewport=size)
    assert [url for url in page.seen if not url.startswith("data:")] == [address]
    assert not page.said
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls down, not sideways"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_serious_fault(name: str, scheme: str, opened: Any, request: pytest.FixtureRequest) -> None:
    axe = pytest.importorskip("axe_playwright_python", reason="needs axe (pip install axe-playwright-python)")
    page = opened(request.getfixturevalue(name).path.as_uri(), viewport=PHONE, color_scheme=scheme)
    page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    faults = [
        (fault["id"], fault["nodes"][0]["html"][:200])
        for fault in page.evaluate("axe.run()")["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
    assert not faults


def test_table_sorts_filters_and_links_by_keyboard(planted: Any, browser: Any) -> None:
    page = browser.new_page()
    page.set_default_timeout(120_000)
    page.goto(planted.path.as_uri())
    head = "#episodes-rows thead th:nth-child(7)"
    page.focus(f"{head} button")
    page.keyboard.press("Enter")
    assert page.get_attribute(head, "aria-sort") == "descending"
    oddest = planted.facts["report"]["odd"][0]
    assert oddest["id"] in page.inner_text("#episodes-rows tbody tr:first-child")
    page.fill("#filter-text", f"{oddest['episode_index']:06d}")
    assert page.inner_text("#episodes-status") == "1 of 8 episodes"
    page.focus("#episodes-rows tbody a")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: url.endswith(f"#episode-{oddest['episode_index']}"))
    page.fill("#filter-text", "no such episode")
    assert page.inner_text("#episodes-status") == "0 of 8 episodes"


@pytest.fixture(scope="module")
def large(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 10,000 episodes with two findings each."""
    out = repeated(tiny_dataset, tmp_path_factory.mktemp("large") / "data", 10_000)
    return reported(out, "large.html").path


def test_page_of_10000_episodes_is_small_and_draws_in_a_frame_wherever_one_jumps(large: Path, opened: Any) -> None:
    assert large.stat().st_size < 15_000_000
    page = opened(large.as_uri(), viewport=DESKTOP)
    assert page.inner_text("#episodes-status") == "10,000 of 10,000 episodes"
    drawn = page.evaluate(WORK)
    assert max(drawn["rows"]) < 100, "only rows in sight are in the document"
    assert all(drawn["seen"]), "the rows at each place are drawn by the frame after the jump"
    assert drawn["places"] == 20_000
    assert not page.said


# Jumps to twenty places of the table, each time waits for two frames, and looks whether the middle has a row there.
WORK = """async () => {
  const region = document.getElementById("episodes-rows");
  region.scrollIntoView();
  const frame = () => new Promise((go) => requestAnimationFrame(go));
  const seen = [], rows = [];
  for (let i = 1; i <= 20; i += 1) {
    region.scrollTop = (region.scrollHeight * i) / 21;
    await frame();
    await frame();
    const box = region.getBoundingClientRect();
    const at = document.elementFromPoint(box.left + 60, box.top + box.height / 2);
    seen.push(Boolean(at && at.closest("tr[aria-rowindex]")));
    rows.push(region.querySelectorAll("tbody tr").length);
  }
  return { seen, rows, places: document.querySelectorAll("details li").length };
}"""
