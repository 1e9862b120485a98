"""Gathers the findings of a dataset or of one episode for a page: each kind with its cure, and each place.

Places of kept episodes come from the table of findings, places of rejects from ``rejects.jsonl``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.findings import CODES, SEVERITIES, Finding

__all__ = ["dataset_findings", "episode_findings"]


def dataset_findings(
    dataset: Dataset, counts: Mapping[str, int], rejects: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns each kind of finding, the gravest first: what it means, its cure, and each place.

    Args:
        dataset: has the table of findings.
        counts: findings of kept episodes by code. An older dataset has these and no places.
        rejects: the lines of ``rejects.jsonl``; they come before kept episodes.
    """
    by_code: dict[str, dict[str, Any]] = {}

    def entry(code: str, severity: str) -> dict[str, Any]:
        counted = {"kept": counts.get(code, 0), "rejected": 0, "places": []}
        found = by_code.setdefault(code, _kind(code, severity) | counted)
        found["severity"] = min(found["severity"], severity, key=SEVERITIES.index)
        return found

    for reject in rejects:
        for reason in reject["reasons"]:
            of_code = entry(reason["code"], reason["severity"])
            of_code["rejected"] += 1
            of_code["places"].append({"episode": reject["episode"], "is_kept": False, **_place(reason)})
    for episode, finding in _kept(dataset):
        place = {"episode": episode, "is_kept": True, **_place(finding)}
        entry(finding["code"], finding["severity"])["places"].append(place)
    for code in counts.keys() - by_code.keys():
        entry(code, CODES[code].severity if code in CODES else "note")
    return sorted(by_code.values(), key=lambda kind: (SEVERITIES.index(kind["severity"]), kind["code"]))


def episode_findings(dataset: Dataset, index: int) -> list[dict[str, Any]]:
    """Returns what ingest found in one episode, the gravest first."""
    found = [one for one in _rows(dataset) if one["episode_index"] == index]
    found.sort(key=lambda one: SEVERITIES.index(one["severity"]))
    return [{**_kind(one["code"], one["severity"]), **_place(one)} for one in found]


def _kind(code: str, severity: str) -> dict[str, Any]:
    about = CODES.get(code)
    meaning, cure = ("", "") if about is None else (about.meaning, about.cure)
    return {"code": code, "severity": severity, "meaning": meaning, "cure": cure}


def _place(finding: Mapping[str, Any]) -> dict[str, Any]:
    return {**{key: finding.get(key) for key in ("file", "line", "column", "count")}, "said": Finding.of(finding).said}


def _rows(dataset: Dataset) -> list[dict[str, Any]]:
    return dataset.manifest.read_findings(dataset.path)


def _kept(dataset: Dataset) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Yields the id of the episode, ``None`` for the dataset as a whole, and the finding."""
    rows = _rows(dataset)
    ids = dataset.column("id") if rows else ()
    for row in rows:
        index = row["episode_index"]
        yield None if index is None else str(ids[index]), row
