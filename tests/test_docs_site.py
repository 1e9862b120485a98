"""The docs as a site: it builds without a warning, no link leads nowhere, and nothing is loaded from elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

for package in ("sphinx", "furo", "myst_parser"):
    pytest.importorskip(package, reason="needs the extra docs")

ROOT = Path(__file__).resolve().parents[1]
LOADING = {"src", "srcset", "poster", "data", "background"}  # attributes of which a browser asks for the address


def make_site(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = ["make", "site", f"BIN={Path(sys.executable).parent}", f"SITE={site}"]
    return subprocess.run(command, cwd=root, env=os.environ, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = make_site(ROOT, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


class Page(HTMLParser):
    """What a page loads, where it leads, and the places in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.places: set[str] = set()
        self.language = ""
        self.unreachable: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if (tag == "pre" and "tabindex" not in values) or (
            values.get("role") == "heading" and "aria-level" not in values
        ):
            self.unreachable.append(str(self.getpos()))
        self.language = values.get("lang", "") if tag == "html" else self.language
        self.places |= {values["id"]} if "id" in values else set()
        self.loads += [value for name, value in values.items() if name in LOADING]
        self.loads += re.findall(r"url\(['\"]?([^'\")]+)", values.get("style", ""))
        if "href" in values:
            (self.leads if tag == "a" else self.loads).append(values["href"])
        if values.get("http-equiv", "").lower() == "refresh":
            self.loads.append(values["content"].partition("url=")[2])


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_page_of_the_repository_is_in_the_site_and_in_its_search(site: Path, pages: dict[Path, Page]) -> None:
    written = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    names = {str(path.relative_to(ROOT).with_suffix("")) for path in written}
    assert {str(path.relative_to(site).with_suffix("")) for path in pages} >= names
    index = json.loads((site / "searchindex.js").read_text().removeprefix("Search.setIndex(").removesuffix(")"))
    assert set(index["docnames"]) == names
    assert "docs/raw-data" in {index["docnames"][number] for number in index["terms"]["quaternion"]}


def test_no_page_or_style_loads_anything_that_is_not_in_the_site(site: Path, pages: dict[Path, Page]) -> None:
    loaded = [(path, address) for path, page in pages.items() for address in page.loads]
    styles = sorted(site.rglob("*.css"))
    for path in styles:
        text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        loaded += [(path, found) for found in re.findall(r"url\(\s*['\"]?([^'\")]+)", text)]
        loaded += [(path, found) for found in re.findall(r"@import\s+['\"]([^'\"]+)", text)]
    assert len(loaded) > 100
    assert styles
    for path, address in loaded:
        if address.startswith(("data:", "#")):
            continue
        parts = urlsplit(address)
        assert not parts.scheme, f"{path}: {address}"
        assert not parts.netloc, f"{path}: {address}"
        assert (path.parent / unquote(parts.path)).is_file(), f"{path}: {address}"


def test_every_link_within_the_site_has_its_page_and_place(site: Path, pages: dict[Path, Page]) -> None:
    count = 0
    for path, page in pages.items():
        for address in page.leads:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path}: {address}"
            if parts.fragment and target.suffix == ".html":
                assert unquote(parts.fragment) in pages[target].places, f"{path}: {address}"
            count += 1
    assert count > 1000


def test_every_picture_is_shown_and_korean_pages_say_their_language(site: Path, pages: dict[Path, Page]) -> None:
    shown = {Path(address).name for page in pages.values() for address in page.loads}
    assert {path.name for path in (ROOT / "docs" / "pictures").iterdir()} <= shown
    assert {str(path.relative_to(site)): page.language for path, page in pages.items() if ".ko." in path.name} == {
        "README.ko.html": "ko",
        "docs/quickstart.ko.html": "ko",
    }
    assert pages[site / "README.html"].language == "en"


def test_code_is_reached_by_keyboard_and_every_heading_has_its_level(pages: dict[Path, Page]) -> None:
    assert {path: page.unreachable for path, page in pages.items() if page.unreachable} == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("addition", "told"),
    [
        ("\n[nowhere](no-such-page.md)\n", "no-such-page"),
        ("\n[nowhere](raw-data.md#no-such-place)\n", "no-such-place"),
        (None, "isn't included in any toctree"),
    ],
)
def test_link_without_target_and_page_without_a_place_in_the_tree_stop_the_build(
    addition: str | None, told: str, tmp_path: Path
) -> None:
    for name in ("Makefile", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for page in ROOT.glob("*.md"):
        shutil.copy(page, tmp_path)
    for folder in ("docs", "examples", "pipeline/infer"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    if addition is None:
        (tmp_path / "docs" / "lost.md").write_text("# Lost\n")
    else:
        with (tmp_path / "docs" / "concepts.md").open("a") as page:
            page.write(addition)
    done = make_site(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert told in done.stderr


def opened(browser: Any, address: str, **options: Any) -> tuple[Any, list[str]]:
    """A page of the browser, and what it asked of the network and complained of."""
    page, wrong = browser.new_page(**options), list[str]()
    page.set_default_timeout(120_000)
    page.on("request", lambda one: None if one.url.startswith(("file:", "data:")) else wrong.append(one.url))
    page.on("requestfailed", lambda one: wrong.append(one.url))
    page.on("console", lambda one: wrong.append(one.text))
    page.on("pageerror", lambda one: wrong.append(str(one)))
    page.goto(address)
    return page, wrong


@pytest.mark.slow
def test_site_opens_from_its_folder_and_is_searched_without_a_network(site: Path, browser: Any) -> None:
    page, wrong = opened(browser, (site / "index.html").as_uri())
    page.wait_for_url("**/README.html")
    for words, wanted in (("gripper closed", "docs/schema-keys.html"), ("데이터셋", "README.ko.html")):
        page.fill(".sidebar-search", words)
        page.keyboard.press("Enter")
        page.wait_for_selector("#search-results .search-summary:has-text('found')", timeout=60_000)
        links = page.eval_on_selector_all("#search-results li a", "all => all.map(one => one.getAttribute('href'))")
        assert any(wanted in link for link in links), links
    page.click(f"#search-results li a[href*='{wanted}']")
    assert "한국어" in page.inner_text("article")
    assert not wrong


@pytest.mark.slow
def test_every_page_opens_without_complaint_and_fits_a_phone(site: Path, pages: dict[Path, Page], browser: Any) -> None:
    page, wrong = opened(browser, (site / "README.html").as_uri(), viewport={"width": 390, "height": 844})
    for path in pages:
        if path.name != "index.html":  # it leads to README.html at once
            page.goto(path.as_uri())
            assert not wrong, path
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
