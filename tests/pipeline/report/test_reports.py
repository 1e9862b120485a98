"""Pages of datasets, episodes and ingests: planted faults come first, numbers are --json's, names run nothing."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image
from report_lab import DRIFT, FROZEN, GAP, HOSTILE, STUCK, as_file_name, faults_of

from vlapipe.cli import cli

SCHEMA = Path(__file__).resolve().parents[3] / "docs" / "reports.schema.json"
SCHEMA_OF_RUNS = SCHEMA.with_name("runs.schema.json")
VOID = {"meta", "img", "input", "path", "use", "rect", "image", "br"}


class Tags(HTMLParser):
    """All elements of a page with their attributes, the texts of <data>, and the text outside of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.values: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "data":
            self.values.append((str(dict(attrs)["value"]), ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["data"]:
            self.values[-1] = (self.values[-1][0], data)
        if not {"script", "style"} & set(self.open):
            self.text.append(data)


def numbers_of(facts: Any) -> set[float]:
    """Every number in the facts, and how many entries each list and table of them has."""
    if isinstance(facts, dict):
        return {float(len(facts))}.union(*(numbers_of(one) for one in facts.values()))
    if isinstance(facts, list):
        return {float(len(facts))}.union(*(numbers_of(one) for one in facts))
    return {float(facts)} if isinstance(facts, int | float) else set()


def odd(facts: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {one["episode_index"]: one for one in facts["report"]["odd"]}


def test_planted_faults_are_the_oddest_episodes_and_each_says_why(planted: Any) -> None:
    found = odd(planted.facts)
    assert set(list(found)[:4]) == {GAP, FROZEN, STUCK, DRIFT}
    kinds = {index: {reason["kind"] for reason in one["reasons"]} for index, one in found.items()}
    assert "gap" in kinds[GAP]
    assert "frozen" in kinds[FROZEN]
    assert "stuck" in kinds[STUCK]
    assert "rate" in kinds[DRIFT]


def test_each_planted_fault_is_visible_in_a_trace_beside_a_typical_one(planted: Any) -> None:
    found = odd(planted.facts)

    def trace(index: int, kind: str) -> dict[str, Any]:
        return next(one for one in found[index]["traces"] if one["kind"] == kind)

    gap = trace(GAP, "clock")
    assert max(gap["y"]) > 500 > 20 > max(gap["typical_y"])  # 0.6 s are missing
    (first, last), *_ = gap["spans"]
    assert last - first == pytest.approx(0.61, abs=0.02)
    drift = trace(DRIFT, "clock")
    assert drift["y"][-1] == pytest.approx(0.02 * 2400, rel=0.1)  # 2 % of 2.4 s, in ms
    frozen = trace(FROZEN, "camera")
    still = [
        y for y, x in zip(frozen["y"], frozen["x"], strict=True) if frozen["spans"][0][0] < x <= frozen["spans"][0][1]
    ]
    assert len(still) == 19
    assert max(still) == 0 < min(y for y in frozen["typical_y"] if y is not None)
    stuck = trace(STUCK, "field")
    assert stuck["label"] == "forces"
    inside = [y for y, x in zip(stuck["y"], stuck["x"], strict=True) if stuck["spans"][0][0] < x < stuck["spans"][0][1]]
    assert len(set(inside)) == 1 < len(inside)


# Each kind of page; all but the first two have hostile names only.
PAGES = [
    *("planted", "planted_episode", "hostile", "columns", "columns_episode", "columns_ingest"),
    *("difference", "of_run", "comparison"),
]


@pytest.mark.parametrize("name", PAGES)
def test_each_number_of_the_page_is_one_of_json(name: str, request: pytest.FixtureRequest) -> None:
    report = request.getfixturevalue(name)
    known = numbers_of(report.facts)
    values = Tags(report.html).values
    assert len(values) > 10
    assert not [value for value in values if json.loads(value[0]) not in known]
    for value, text in values:  # and is shown as that number
        if re.fullmatch(r"-?[\d,]+", text) and float(value).is_integer():
            assert int(text.replace(",", "")) == int(float(value))


def test_table_of_episodes_has_the_rows_of_json(planted: Any) -> None:
    table = json.loads(re.search(r'id="episodes-data">(.*?)</script>', planted.html, re.DOTALL)[1])  # type: ignore[index]
    listed = planted.facts["listed"]
    shown = [(row[0], row[1], row[4], row[5], row[6]) for row in table["rows"]]
    keys = ("episode_index", "id", "num_frames", "seconds", "oddness")
    assert shown == [tuple(row[key] for key in keys) for row in listed]


@pytest.mark.parametrize("name", PAGES)
def test_page_asks_for_nothing_and_allows_nothing(name: str, request: pytest.FixtureRequest) -> None:
    page = Tags(request.getfixturevalue(name).html)
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for key, value in attributes.items():
            assert key != "style", "the policy forbids it"
            assert not key.startswith("on")
            if key in ("src", "href", "xlink:href"):
                assert re.match(r"#|data:image/(jpeg|png);base64,[A-Za-z0-9+/=\s]*$", value or ""), (tag, value)


def test_hostile_names_make_no_tag_and_no_script(hostile: Any) -> None:
    page = Tags(hostile.html)
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "episodes-data"}, {}]
    assert hostile.html.count("<script") == 2, "not even in a comment or in data"
    known = {tag for tag, _ in page.elements}
    assert not known & {"b", "iframe", "textarea"}
    assert sum(tag == "style" for tag, _ in page.elements) == sum(tag == "title" for tag, _ in page.elements) - sum(
        tag == "svg" for tag, _ in page.elements
    )
    text = "".join(page.text)
    for i, name in enumerate(HOSTILE):
        shown = name.replace("\u202e", "\\u202e").replace("\u2066", "\\u2066")
        assert i % 2 or shown in text, "the instruction is there to read"
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", hostile.html), "marks that turn the text are spelled out"
    assert "49" not in {value for value, _ in page.values}, "a template in a name is text"


@pytest.mark.parametrize("name", PAGES[3:])
def test_hostile_names_of_episodes_files_and_columns_are_text(name: str, request: pytest.FixtureRequest) -> None:
    report = request.getfixturevalue(name)
    page = Tags(report.html)
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert scripts == ([{"type": "application/json", "id": "episodes-data"}, {}] if name == "columns" else [])
    assert report.html.count("<script") == len(scripts), "not even in a comment or in data"
    assert not {tag for tag, _ in page.elements} & {"b", "iframe", "textarea", "base"} - ({"b"} & RUN_TAGS[name])
    assert sum(tag == "style" for tag, _ in page.elements) == 1
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", report.html), "marks that turn the text are spelled out"
    text = "".join(page.text)
    for hostile in HOSTILE if name != "columns_episode" else [HOSTILE[6]]:
        shown = hostile.replace("\u202e", "\\u202e").replace("\u2066", "\\u2066")
        assert shown in text or as_file_name(shown) in text
    if name in ("columns", "columns_ingest"):
        assert "robot " + as_file_name(HOSTILE[1]) in text, "the file of a reject"


RUN_TAGS = {name: {"b"} if name == "of_run" else set() for name in PAGES}  # its yardsticks are bold


def test_headings_images_and_controls_have_names_for_those_who_do_not_see(planted: Any) -> None:
    page = Tags(planted.html)
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    labels = {a["for"] for tag, a in page.elements if tag == "label"}
    for tag, attributes in page.elements:
        if tag == "img":
            assert attributes["alt"]
        if tag in ("input", "select"):
            assert attributes["id"] in labels
        if tag == "svg":
            assert attributes["role"] == "img"
            assert set((attributes["aria-labelledby"] or "").split()) <= set(ids)
        if tag == "a":
            assert (attributes["href"] or "")[1:] in ids


def test_episode_page_has_all_streams_on_one_axis_and_a_picture(planted_episode: Any) -> None:
    report = planted_episode.facts["report"]
    assert {panel["label"] for panel in report["panels"]} >= {"robot/joint_position", "sensor/force", "action"}
    (gap,) = report["gaps"]["robot"]
    assert gap[1] - gap[0] == pytest.approx(0.61, abs=0.02)
    assert [len(film["frames"]) for film in report["films"]] == [8]
    with Image.open(planted_episode.data.parent / "episode.png") as picture:
        assert picture.size[0] == 2000
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 50


def test_facts_are_as_the_schema_in_the_docs_says(planted: Any, planted_episode: Any) -> None:
    schema = json.loads(SCHEMA.read_text())
    faults = [*faults_of(planted.facts, schema["$defs"]["dataset"], schema)]
    faults += faults_of(planted_episode.facts, schema["$defs"]["episode"], schema)
    assert not faults
    broken = {**planted.facts, "episodes": "8"}
    assert faults_of(broken, schema["$defs"]["dataset"], schema) == ["episodes: '8' is no integer"]


@pytest.mark.parametrize(
    ("name", "kind"), [("of_run", "run"), ("comparison", "comparison"), ("difference", "difference")]
)
def test_facts_of_runs_and_differences_are_as_their_schema_says(
    name: str, kind: str, request: pytest.FixtureRequest
) -> None:
    schema = json.loads(SCHEMA_OF_RUNS.read_text())
    facts = request.getfixturevalue(name).facts
    assert not faults_of(facts, schema["$defs"][kind], schema)
    first = next(iter(facts))
    assert faults_of({**facts, first: 0.5, "more": 1}, schema["$defs"][kind], schema) == [
        f"{first}: 0.5 is no {schema['$defs'][kind]['properties'][first]['type']}",
        ".more: not in the schema",
    ]


def test_json_without_html_is_what_it_was_and_reads_no_shard(planted: Any, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["inspect", str(planted.data), "--json"])
    plain = json.loads(done.stdout)
    assert "report" not in plain
    assert {**planted.facts, "listed": None, "report": None} == {**plain, "listed": None, "report": None}


def test_inspect_loads_no_reader_of_recordings_and_no_pandas(planted: Any) -> None:
    code = (
        "import sys; from vlapipe.cli import cli; cli(['inspect', sys.argv[1]], standalone_mode=False); "
        "unwanted = ('vlapipe.pipeline.ingest', 'vlapipe.pipeline.read', 'pandas.'); "
        "print([name for name in sys.modules if name.startswith(unwanted)])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(planted.data)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_ingest_report_as_a_page_has_every_reject_with_code_place_and_cure(hostile: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    arguments = ["ingest", "--dataset", str(hostile.data.parent / "raw"), "--dry-run", "--workers", "1"]
    done = CliRunner().invoke(cli, [*arguments, "--report", str(path)])
    assert done.exit_code == 1
    page = Tags(path.read_text(encoding="utf-8"))
    text = "".join(page.text)
    assert text.count("csv.not_a_number") >= 10
    assert "correct the cell, or the column's dtype in the schema" in text
    assert [a["id"] for tag, a in page.elements if tag == "h2"] == ["overview", "rejects", "kinds", "kept"]
    assert "<img src=x onerror=alert(0)>" in text
    assert not [tag for tag, _ in page.elements if tag in ("img", "script")]


def test_without_the_extra_one_line_says_what_to_install(planted: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = CliRunner().invoke(cli, ["inspect", str(planted.data), "--html", str(tmp_path / "x.html")])
    assert "needs matplotlib, which is not installed" in str(done.exception)
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "rerun", None)
    done = CliRunner().invoke(cli, ["inspect", str(planted.data), "--episode", "0", "--rerun"])
    assert "--rerun needs rerun, which is not installed" in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--png", "x.png"], "--png shows one episode"),
        (["--rerun"], "--rerun shows one episode"),
        (["--html", "nowhere/x.html"], "no folder nowhere"),
    ],
)
def test_option_that_does_not_fit_is_refused_in_one_line(arguments: list[str], said: str, planted: Any) -> None:
    done = CliRunner().invoke(cli, ["inspect", str(planted.data), *arguments])
    assert said in str(done.exception)


def test_nothing_is_unpacked_into_a_cache(planted: Any) -> None:
    cached = list((planted.data / ".cache").rglob("*.npy")) if (planted.data / ".cache").exists() else []
    assert not cached
    assert not math.isnan(planted.facts["report"]["odd"][0]["oddness"])
