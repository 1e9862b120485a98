"""Turns a matplotlib figure into a small SVG element for a page.

The element has no ``style`` attribute (the page's content-security policy forbids them), no fonts and no colours of its
own: each colour of ``THEME`` becomes a class, so that the page's style sheet decides it, in light and in dark.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from markupsafe import Markup, escape

from vlapipe.schemas.errors import printable
from vlapipe.schemas.extras import need

__all__ = ["LIGHT", "NUM_COLOURS", "THEME", "drawing", "figure_of", "plain", "svg_of"]

NUM_COLOURS = 8
# Colours that figures use, each a stand-in for a variable of the page's style sheet. No two are alike.
THEME = {
    "ink": "#010203",
    "faint": "#010204",
    "grid": "#010205",
    "alarm": "#010206",
    "paper": "#010207",
    **{f"c{number}": f"#0103{number:02x}" for number in range(NUM_COLOURS)},
}
# The same names with the colours of the style sheet in light, for pictures that stand alone.
LIGHT = {
    "ink": "#1b1f24",
    "faint": "#5b6470",
    "grid": "#e6e9ed",
    "alarm": "#b3261e",
    "paper": "#ffffff",
    **dict(
        zip(
            (f"c{number}" for number in range(NUM_COLOURS)),
            ("#1f6fb4", "#c2570c", "#2b8a3e", "#a3308f", "#7a5c00", "#0b7d85", "#b4304a", "#5f54c4"),
            strict=True,
        )
    ),
}
_CLASS_OF = {colour: name for name, colour in THEME.items()}
_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+\.\d{2,}")
_KEPT = ("opacity", "fill-opacity", "stroke-opacity", "stroke-width", "stroke-dasharray", "stroke-linecap")


def plain(text: str) -> str:
    """Returns a name as a plot may show it: one line without control characters."""
    return re.sub(r"[\x00-\x1f]", " ", printable(text))


def figure_of(width: float, height: float) -> Any:
    """Returns an empty figure of so many CSS pixels."""
    figure = need("matplotlib.figure", "report", "a page with plots").Figure(figsize=(width / 72, height / 72), dpi=72)
    figure.patch.set_visible(False)
    return figure


@contextmanager
def drawing() -> Iterator[None]:
    """Sets how text and lines are drawn: names are not formulas, and no point of a line is dropped."""
    matplotlib = need("matplotlib", "report", "a page with plots")
    settings = {
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "vlapipe",
        "path.simplify": False,
        "font.size": 11,
        "axes.unicode_minus": False,
        "axes.formatter.useoffset": False,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the browser has the fonts
        yield


def svg_of(figure: Any, title: str, description: str) -> Markup:
    """Returns the figure as an ``<svg>`` element with a title and a description, which screen readers say."""
    buffer = io.StringIO()
    with drawing():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    root = ET.fromstring(buffer.getvalue())  # noqa: S314 - our own text
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    used = {_target(node) for node in root.iter()} - {None}
    digest = hashlib.sha256((buffer.getvalue() + title + description).encode()).hexdigest()[:10]
    ids = f"p{digest}"
    body = "".join(_written(child, used, ids) for child in root)
    return Markup(  # noqa: S704 - every text in it is escaped
        f'<svg class="plot" viewBox="{root.get("viewBox")}" role="img" aria-labelledby="t{digest} d{digest}">'
        f'<title id="t{digest}">{escape(plain(title))}</title>'
        f'<desc id="d{digest}">{escape(plain(description))}</desc>{body}</svg>'
    )


def _target(node: ET.Element) -> str | None:
    """Returns the id of the element that an element refers to."""
    if node.get(_HREF, "").startswith("#"):
        return node.get(_HREF, "")[1:]
    clip = re.fullmatch(r"url\(#(.*)\)", node.get("clip-path", ""))
    return clip[1] if clip else None


def _written(node: ET.Element, used: set[str | None], ids: str) -> str:
    """Returns the element as text: no ids but those that are used, numbers with one digit, colours as classes."""
    tag = node.tag.removeprefix(_SVG)
    attributes: dict[str, str] = {}
    for name, value in node.attrib.items():
        if name == "id":
            if value in used:
                attributes["id"] = ids + value
        elif name == _HREF:
            attributes["href"] = f"#{ids}{value[1:]}" if value.startswith("#") else value
        elif name == "clip-path":
            attributes[name] = value.replace("url(#", f"url(#{ids}")
        elif name != "style" and not value.startswith("rotate(-0 "):
            attributes[name] = _NUMBER.sub(_rounded, value)
    attributes |= _of_style(node.get("style", ""))
    body = "".join(_written(child, used, ids) for child in node)
    text = str(escape((node.text or "").strip()))
    if tag in ("g", "defs") and not attributes:
        return body
    if tag in ("g", "defs") and not body:
        return ""
    said = "".join(f' {name}="{escape(" ".join(value.split()))}"' for name, value in attributes.items())
    return f"<{tag}{said}>{text}{body}</{tag}>" if text or body else f"<{tag}{said}/>"


def _of_style(style: str) -> dict[str, str]:
    """Returns the attributes that say what a style said."""
    rules = dict(rule.split(":", 1) for rule in style.split(";") if ":" in rule)
    found = {name.strip(): value.strip() for name, value in rules.items()}
    attributes = {name: _NUMBER.sub(_rounded, found[name]) for name in _KEPT if name in found}
    if "text-anchor" in found:
        attributes["text-anchor"] = found["text-anchor"]
    classes = []
    for name, letter in (("fill", "f"), ("stroke", "s")):
        value = found.get(name)
        if value is None:
            continue
        if value in _CLASS_OF:
            classes.append(f"{letter}-{_CLASS_OF[value]}")
        else:
            attributes[name] = value
    if classes:
        attributes["class"] = " ".join(classes)
    return attributes


def _rounded(match: re.Match[str]) -> str:
    return f"{float(match[0]):.1f}".removesuffix(".0")
