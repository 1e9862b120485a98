"""A dataset's page in a real Chromium: nothing is asked of the network, nothing fails, the table works by keyboard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with driver.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.mark.parametrize("name", ["planted", "planted_episode", "hostile"])
def test_page_opens_without_an_error_a_request_or_a_script_of_others(
    name: str, browser: Any, request: pytest.FixtureRequest
) -> None:
    page, seen, said = browser.new_page(), list[str](), list[str]()
    page.set_default_timeout(120_000)
    page.on("request", lambda one: seen.append(one.url))
    page.on("console", lambda one: said.append(one.text))
    page.on("pageerror", lambda one: said.append(str(one)))
    page.on("dialog", lambda one: said.append(one.message))
    address = request.getfixturevalue(name).path.as_uri()
    page.goto(address)
    assert [url for url in seen if not url.startswith("data:")] == [address]
    assert not said
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


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
    assert page.url.endswith(f"#episode-{oddest['episode_index']}")
    page.fill("#filter-text", "no such episode")
    assert page.inner_text("#episodes-status") == "0 of 8 episodes"
