"""The docs as a site, by Sphinx: ``make site``. The pages are the repository's own Markdown files, where they lie.

``SECTIONS`` is the tree beside each page. A page that no section names is a warning, which stops ``make site``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = {
    "Start": ["docs/quickstart", "docs/concepts", "vlapipe, 한국어 <README.ko>", "빠른 시작 <docs/quickstart.ko>"],
    "Recipes": [f"docs/recipes/{name}" for name in ("csv", "aloha", "lerobot", "many-gpus", "cluster", "robot")],
    "Data": [
        "docs/raw-data",
        "docs/formats",
        "docs/reports",
        "docs/generations",
        "docs/verify",
        "docs/stores",
        "docs/export",
    ],
    "Training": ["docs/training", "docs/policies", "docs/other-trainers", "docs/runs", "docs/evaluation", "docs/robot"],
    "Reference": ["docs/schema-keys", "docs/options", "docs/errors", "docs/shard-format"],
    "Inside": [
        *("docs/architecture", "docs/decisions/README", "docs/performance", "docs/guide-claims"),
        *("CONTRIBUTING", "CHANGELOG"),
    ],
}

project = "vlapipe"
html_title = "vlapipe"
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/*/*.md"]
exclude_patterns = [folder.name for folder in ROOT.iterdir() if folder.is_dir() and folder.name != "docs"]
myst_heading_anchors = 4
highlight_language = "text"  # of blocks that name no language
html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
pygments_dark_style = "monokai"
html_copy_source = False
html_show_copyright = False
# A page that is opened as a file may not fetch others, which is how Sphinx would fill its summaries of results.
html_show_search_summary = False


def tree(pages: list[str], *options: str) -> str:
    """Returns a table of contents as MyST writes it."""
    return "\n".join(["", "", "```{toctree}", *options, "", *pages, "```", ""])


def add_trees(_app: Any, page: str, source: list[str]) -> None:
    """Puts the tree into the first page, and the list of the decisions into theirs."""
    if page == root_doc:
        source[0] += "".join(tree(pages, ":hidden:", f":caption: {caption}") for caption, pages in SECTIONS.items())
    if page == "docs/decisions/README":
        records = sorted(path.stem for path in (ROOT / "docs" / "decisions").glob("0*.md"))
        source[0] += tree(records, ":maxdepth: 1")


def for_everyone(_app: Any, page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """Says which pages are Korean and of what level a caption is; wide code scrolls by keyboard too."""
    if page.endswith(".ko"):
        context["language"] = "ko"
    context["body"] = context.get("body", "").replace("<pre>", '<pre tabindex="0">')
    headings = ('role="heading"', 'role="heading" aria-level="2"')
    context["furo_navigation_tree"] = context["furo_navigation_tree"].replace(*headings)


def write_index(app: Any, error: Exception | None) -> None:
    """Opens the first page for who opens the folder."""
    if error is not None:
        return
    first = f"{root_doc}.html"
    lines = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>vlapipe</title>',
        f'<meta http-equiv="refresh" content="0; url={first}"><a href="{first}">vlapipe</a></html>',
    ]
    (Path(app.outdir) / "index.html").write_text("\n".join(lines) + "\n", encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Registers the above with Sphinx."""
    app.connect("source-read", add_trees)
    app.connect("html-page-context", for_everyone, priority=900)  # after the theme has made its tree
    app.connect("build-finished", write_index)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
