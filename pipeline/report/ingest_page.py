"""The page of an ingest's report: what was found, the rejects first. Its numbers are those of the JSON report."""

from __future__ import annotations

import json
from typing import Any

from markupsafe import Markup

from vlapipe.pipeline.ingest import IngestReport
from vlapipe.pipeline.report.page import name_text, number, render_page, size
from vlapipe.schemas.findings import CODES

__all__ = ["ingest_page"]

_MOST_ROWS = 2000


def ingest_page(report: IngestReport, *, dry_run: bool) -> str:
    """Returns the HTML."""
    facts: dict[str, Any] = json.loads(report.to_json())
    rejects = [(reject["episode"], reason) for reject in facts["rejects"] for reason in reject["reasons"]]
    kept = [(finding["episode"], finding) for finding in facts["findings"]]
    return render_page(
        "ingest.html",
        title=f"Ingest report: {facts['dataset'] or facts['schema']}",
        facts=facts,
        dry_run=dry_run,
        summary=[_kind(code, one) for code, one in facts["summary"].items()],
        rejects=[_place(episode, one) for episode, one in rejects[:_MOST_ROWS]],
        kept=[_place(episode, one) for episode, one in kept[:_MOST_ROWS]],
        num_rejects=len(rejects),
        num_kept=len(kept),
        cameras=[_camera(name, one) for name, one in facts["cameras"].items() if one["images"]],
    )


def _kind(code: str, one: dict[str, Any]) -> list[Any]:
    return [
        _severity(one["severity"]),
        code,
        one["meaning"],
        one["cure"],
        number(one["episodes"]),
        number(one["places"]),
        name_text(one["first"]),
    ]


def _place(episode: str | None, one: dict[str, Any]) -> list[Any]:
    about = CODES.get(one["code"])
    return [
        name_text(episode or "the dataset"),
        _severity(one["severity"]),
        one["code"],
        name_text(one["message"]),
        number(one["count"]),
        about.cure if about is not None else "",
    ]


def _camera(name: str, one: dict[str, Any]) -> list[Any]:
    return [name_text(name), number(one["images"]), one["as"], size(one["bytes"])]


def _severity(word: str) -> Markup:
    return Markup('<span class="severity {0}">{0}</span>').format(word)
