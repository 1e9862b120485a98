"""Makes a page: one HTML file that opens anywhere, asks nothing of the network and runs no script but ours.

Use: write a template under ``templates/`` that extends ``base.html`` and fills its block ``main``, then::

    from vlapipe.pipeline.report.page import render_page, write_page

    html = render_page("run.html", title="Run of Monday", facts=facts, plots={"loss": line_plot(...)})
    write_page(path, html)

Rules of a template. Every value is escaped unless it is ``Markup`` (a plot of ``plots.py``). No ``style`` attribute and
no ``on...`` attribute: the content-security policy of the page allows only the style sheet ``style.css`` and the
scripts that ``render_page`` is asked for (``scripts=("table.js",)``), each by its digest. Data for a script goes into
``<script type="application/json">{{ data | tojson }}</script>``. Numbers are written by the filters ``number``,
``count``, ``bytes``, ``duration``, ``milliseconds`` and ``percent``, which keep the fact's own number in an element
``<data value>``, so that a test can compare a page with its facts; ``None`` becomes a dash. The filters are functions
of this module too, for tables that Python makes. Macros that pages share are in
``macros.html`` (``navigation``, ``facts_list``, ``figure``, ``data_table``, ``severity``). Names that the user chose go
through the filter ``name`` (a ``<bdi>``), so that a name written from right to left does not turn the text around it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vlapipe.pipeline.show import readable_numbers
from vlapipe.schemas.errors import printable
from vlapipe.schemas.extras import need
from vlapipe.schemas.output_file import require_folder_of, write_text

__all__ = [
    "POLICY",
    "count",
    "duration",
    "milliseconds",
    "name_text",
    "number",
    "number_text",
    "percent",
    "render_page",
    "size",
    "write_page",
]

# What a page may load: nothing but its own style sheet, its own scripts and pictures that are in it.
POLICY = (
    "default-src 'none'; style-src {styles}; script-src {scripts}; img-src data:; base-uri 'none'; form-action 'none'"
)
NOTHING = "\u2013"  # a dash where there is no number
# Marks that turn the direction of text, also of what follows, and marks that nobody sees.
_UNSEEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")


def render_page(template: str, *, title: str, scripts: Sequence[str] = (), **values: Any) -> str:
    """Returns the page of a template. ``scripts`` names files of this folder that the page runs, in order."""
    style = _asset("style.css")
    codes = [_asset(name) for name in scripts]
    policy = POLICY.format(styles=_digest(style), scripts=" ".join(map(_digest, codes)) or "'none'")
    trusted = [Markup(text) for text in (style, *codes)]  # noqa: S704 - files of ours
    page: str = (
        _environment()
        .get_template(template)
        .render(policy=policy, style=trusted[0], scripts=trusted[1:], page_title=title, **values)
    )
    return page


def write_page(path: Path, page: str) -> None:
    """Write the page.

    Raises:
        UsageError: the folder is not there, or the file cannot be written.
        StoppedError: the disk is full, for example.
    """
    require_folder_of(path)
    write_text(path, page)


@cache
def _environment() -> Any:
    jinja2 = need("jinja2", "report", "a page")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vlapipe.pipeline.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_final,
    )
    environment.filters |= {
        "bytes": size,
        "count": count,
        "duration": duration,
        "milliseconds": milliseconds,
        "name": name_text,
        "number": number,
        "percent": percent,
        "number_text": number_text,
        "slug": slug,
    }
    return environment


def number_text(value: float | None, digits: int = 4) -> str:
    """Formats a number with so many digits that count: ``0.5871``, ``1,234``."""
    return NOTHING if value is None else readable_numbers.number(value, digits)


def percent_text(share: float) -> str:
    """Formats a share of 1."""
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def milliseconds_text(seconds: float) -> str:
    """Formats a short time in milliseconds."""
    return f"{seconds * 1e3:,.4g} ms"


def _with_value(text: Callable[..., str]) -> Callable[..., Markup]:
    """Returns a filter that writes a number as a person reads it, within ``<data value="...">`` as facts have it."""

    def write(value: float | None, *arguments: Any) -> Markup:
        if value is None:
            return Markup(NOTHING)  # noqa: S704 - ours
        return Markup('<data value="{}">{}</data>').format(json.dumps(value), text(value, *arguments))

    return write


number = _with_value(number_text)
count = _with_value(readable_numbers.counted)
size = _with_value(readable_numbers.format_bytes)
duration = _with_value(readable_numbers.duration)
milliseconds = _with_value(milliseconds_text)
percent = _with_value(percent_text)


def name_text(text: object) -> Markup:
    """Returns a name that the user chose, kept from turning the direction of the text around it."""
    return Markup("<bdi>{}</bdi>").format(_final(str(text)))


def slug(text: object) -> str:
    """Returns an id for a name; equal names have equal ids."""
    return hashlib.sha256(str(text).encode("utf-8", "surrogatepass")).hexdigest()[:10]


def _final(value: Any) -> Any:
    """Makes what cannot be seen or encoded visible; jinja escapes afterwards."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", printable(value))
    return value


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _asset(name: str) -> str:
    """Returns a file of this folder; a style sheet or a script must not end its own element."""
    text = (files("vlapipe.pipeline.report") / "assets" / name).read_text(encoding="utf-8")
    assert "</" not in text, name
    return text
