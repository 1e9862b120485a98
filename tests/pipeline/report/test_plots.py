"""Plots are small elements without styles, scripts or colours of their own, and labels are text, never formulas."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="plots need the extra 'report'")
pytest.importorskip("jinja2", reason="pages need the extra 'report'")

from vlapipe.pipeline.report.plots import Bins, Curve, Span, bar_plot, density_plot, histogram, line_plot, scatter_plot

HOSTILE = ["</svg><script>alert(1)</script>", "$\\frac{", "a\x00b\x1b", "\u202egnp", "名前", '" onload="x']


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - our own text


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in parsed(svg).iter("text")]


def test_line_plot_is_one_small_element_with_title_and_description() -> None:
    t = np.arange(400) / 100
    svg = line_plot(
        [Curve(f"joint_{i}", t, np.sin(t + i)) for i in range(6)],
        title="Joints",
        description="Six joints over 4 s",
        x_label="time, s",
        spans=[Span(1.0, 1.5, "gap"), Span(3.0, 3.0)],
    )
    root = parsed(svg)
    assert root.get("role") == "img"
    assert [root.find("title").text, root.find("desc").text] == ["Joints", "Six joints over 4 s"]  # type: ignore[union-attr]
    assert len(svg) < 50_000
    assert "style=" not in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg.replace("url(#", "")), "a colour that the page does not decide"
    assert {"joint_0", "joint_5", "time, s"} <= set(texts(svg))


@pytest.mark.parametrize("label", HOSTILE)
def test_label_is_text_whatever_it_holds(label: str) -> None:
    x = [0.0, 1.0, np.nan]
    for svg in (
        line_plot([Curve(label, x, x), Curve("b", x, x)], title=label, description=label, x_label=label, y_label=label),
        scatter_plot([Curve(label, x, x), Curve("b", x, x)], title=label, description=label),
        histogram([Bins(label, [0, 1, 2], [3, 4]), Bins("b", [0, 1], [1])], title=label, description=label),
        bar_plot([label, "b"], [1, 2], title=label, description=label),
    ):
        tags = {node.tag for node in parsed(svg).iter()}
        assert tags <= {"svg", "title", "desc", "g", "path", "text", "use", "defs", "clipPath", "rect"}
        assert "onload" not in {name for node in parsed(svg).iter() for name in node.attrib}


def test_ids_of_two_plots_on_a_page_differ_and_equal_plots_are_equal() -> None:
    def plot(end: float) -> str:
        return str(line_plot([Curve("a", [0, end], [0, 1])], title="a", description="b"))

    ids = [set(re.findall(r' id="([^"]+)"', plot(end))) for end in (1.0, 2.0)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert plot(1.0) == plot(1.0)


def test_plots_of_nothing_and_of_one_value_are_drawn() -> None:
    assert "<svg" in line_plot([], title="t", description="d")
    assert "<svg" in line_plot([Curve("a", [], [])], title="t", description="d")
    assert "<svg" in histogram([Bins("a", [5, 5], [3])], title="t", description="d")
    assert "<svg" in density_plot(np.zeros((2, 2)), [0, 1, 2], [0, 1, 2], title="t", description="d")
    assert "<svg" in bar_plot([], [], title="t", description="d")
