"""Places of findings: kept with the dataset, the same for any workers, and shown on the pages with code and cure."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from report_lab import GAP, hostile_dataset, reported

import vlapipe
from vlapipe.cli import cli
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.schemas.errors import DamageError
from vlapipe.schemas.findings import CODES


def places_of(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [place for kind in facts["report"]["findings"] for place in kind["places"]]


def test_page_lists_each_finding_of_kept_episodes_with_code_place_and_cure(planted: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    arguments = ["ingest", "--dataset", str(planted.data.parent / "raw"), "--dry-run", "--report", str(path)]
    assert CliRunner().invoke(cli, [*arguments, "--workers", "1"]).exit_code == 0
    found = json.loads(path.read_text())["findings"]
    assert {"clock.rate", "clock.jitter", "image.frozen"} <= {one["code"] for one in found}
    shown = [(place["file"], place["line"], place["column"], place["count"]) for place in places_of(planted.facts)]
    assert sorted(map(str, shown)) == sorted(str((f["file"], f["line"], f["column"], f["count"])) for f in found)
    text = unescape(re.sub(r"<[^>]+>", "", planted.html))
    for one in found:
        cure = CODES[one["code"]].cure
        said = one["message"].removesuffix(f" ({cure}) [{one['code']}]")
        assert said != one["message"]
        assert said in text
        assert f": {cure}." in text


def test_page_lists_each_reason_of_rejects_by_its_place(hostile: Any) -> None:
    rejects = hostile.facts["rejects"]["episodes"]
    assert len(rejects) == 10
    shown = [(place["episode"], place["line"]) for place in places_of(hostile.facts) if not place["is_kept"]]
    expected = [(reject["episode"], reason["line"]) for reject in rejects for reason in reject["reasons"]]
    assert sorted(shown, key=str) == sorted(expected, key=str)
    assert hostile.html.count('<span class="bad">set aside</span>') == len(expected)
    cure = unescape(CODES["csv.not_a_number"].cure)
    assert unescape(hostile.html).count(f"<td>{cure}</td>") == 11, "in the table of kinds, and of each episode"


def test_episode_page_has_the_findings_of_its_episode(planted: Any, planted_episode: Any) -> None:
    own = [place["said"] for place in places_of(planted.facts) if f"_{GAP:06d}" in (place["episode"] or "")]
    assert own
    assert sorted(one["said"] for one in planted_episode.facts["report"]["findings"]) == sorted(own)
    assert "Findings of the ingest" in planted_episode.html


def test_findings_are_the_same_bytes_for_any_workers(planted: Any, tmp_path: Path) -> None:
    tables = []
    for workers in (1, 2):
        out = tmp_path / f"data-{workers}"
        source = planted.data.parent / "raw"
        ingest(IngestConfig(source=source, out=out, workers=workers, shard_bytes=2_000_000))
        assert len(list(out.glob("shards/*"))) > 1
        (table,) = out.glob("findings-*.parquet")
        tables.append((table.name, table.read_bytes()))
    assert tables[0] == tables[1]


def test_altered_findings_are_found_and_named(planted: Any, tmp_path: Path) -> None:
    copied = tmp_path / "data"
    ingest(IngestConfig(source=planted.data.parent / "raw", out=copied, workers=1))
    (table,) = copied.glob("findings-*.parquet")
    table.write_bytes(table.read_bytes()[:-1] + b"x")
    done = CliRunner().invoke(cli, ["verify", str(copied), "--quick"])
    assert done.exit_code == 1
    assert f"altered: {table.name}" in done.output
    done = CliRunner().invoke(cli, ["inspect", str(copied), "--html", str(tmp_path / "x.html")])
    assert isinstance(done.exception, DamageError)
    assert table.name in str(done.exception)


def test_dataset_without_findings_has_no_table(tiny_dataset: Path, planted: Any) -> None:
    assert vlapipe.open_dataset(planted.data).manifest.findings is not None
    assert (vlapipe.open_dataset(tiny_dataset).manifest.findings is None) == (
        not vlapipe.open_dataset(tiny_dataset).manifest.totals["findings"]
    )


def test_dataset_of_an_older_vlapipe_says_that_it_has_no_places(tmp_path: Path) -> None:
    data = hostile_dataset(tmp_path)
    manifest = json.loads((data / "manifest.json").read_text())
    assert manifest["totals"]["findings"]
    (data / manifest["findings"]["file"]).unlink()
    del manifest["findings"], manifest["sha256"]
    (data / "manifest.json").chmod(0o644)
    (data / "manifest.json").write_text(json.dumps(manifest))
    report = reported(data, "old.html")
    assert "An older vlapipe made this dataset" in report.html
    assert not [place for place in places_of(report.facts) if place["is_kept"]]
