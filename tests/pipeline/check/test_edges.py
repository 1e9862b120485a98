"""How streams relate to the anchor in time: they begin late, end early, do not overlap, or run at another rate."""

from __future__ import annotations

from typing import Any

import numpy as np
from streams_under_test import START_S, rows_of, stream_of, ticks

from vlapipe.pipeline.check.edges import check_drift, check_edges
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import CheckSpec


def edges(clock: Any, **checks: Any) -> list[Finding]:
    findings = Findings()
    check_edges(rows_of(ticks(1000)), {"other": rows_of(clock, "ep/o.csv")}, CheckSpec(**checks), findings)
    return list(findings)


def drift(clocks: dict[str, Any], rates: dict[str, float], **values: Any) -> list[Finding]:
    findings = Findings()
    streams: Any = {name: rows_of(clock, f"{name}.csv") for name, clock in clocks.items()}
    specs: Any = {name: stream_of(rate_hz=rates.get(name), **values) for name in clocks}
    check_drift(streams, specs, "robot", CheckSpec(), findings)
    return list(findings)


def test_stream_within_the_edges_has_no_finding() -> None:
    assert edges(ticks(900) + 0.5) == []


def test_stream_that_begins_late_and_ends_early_has_both_findings() -> None:
    first, second = edges(ticks(600) + 2)
    assert (first.code, first.file, first.found) == ("clock.starts_late", "ep/o.csv", "2 s after it")
    assert (second.code, second.found) == ("clock.ends_early", "2 s before it")


def test_stream_that_begins_a_little_before_and_ends_a_little_after_is_fine() -> None:
    assert edges(ticks(1180) - 0.9) == []


def test_stream_that_goes_on_long_after_the_anchor_is_told_and_one_that_began_long_before_is_noted() -> None:
    first, second = edges(ticks(3000) - 9)
    assert (first.code, first.severity, first.found) == ("clock.starts_early", "note", "9 s before it")
    assert (second.code, second.severity) == ("clock.ends_late", "warning")
    assert second.found.startswith("11 s after it")


def test_stream_may_run_on_for_a_tenth_of_a_long_recording_and_for_the_schemas_edge() -> None:
    findings = Findings()
    check_edges(rows_of(ticks(10_000)), {"other": rows_of(ticks(10_900))}, CheckSpec(), findings)
    assert list(findings) == []
    assert edges(ticks(3000) - 9, edge_s=12) == []


def test_edge_is_the_schemas() -> None:
    assert edges(ticks(600) + 2, edge_s=3) == []


def test_stream_elsewhere_is_an_error_and_neither_late_nor_early() -> None:
    [finding] = edges(ticks(100) + 3600)
    assert (finding.code, finding.severity) == ("clock.no_overlap", "error")


def test_clocks_are_compared_across_dtypes() -> None:
    assert edges(((ticks(900) + 0.5) * 1e9).astype(np.int64)) == []


def test_clocks_whose_paces_differ_drift() -> None:
    clocks = {"robot": ticks(1000), "camera": ticks(300, rate_hz=30 * 1.03)}
    [finding] = drift(clocks, {"robot": 100, "camera": 30})
    assert (finding.code, finding.file, finding.found) == ("clock.drift", "camera.csv", "1.0300 of it")


def test_paces_that_differ_within_the_limit_do_not() -> None:
    assert drift({"robot": ticks(1000), "camera": ticks(300, rate_hz=30.2)}, {"robot": 100, "camera": 30}) == []


def test_no_drift_is_told_of_gaps_short_or_jittering_recordings_and_undeclared_rates() -> None:
    rates = {"robot": 100.0, "camera": 30.0}
    lost = np.delete(ticks(300, rate_hz=30), range(100, 110))
    assert drift({"robot": ticks(1000), "camera": lost}, rates) == []
    assert drift({"robot": ticks(200), "camera": ticks(60, rate_hz=31)}, rates) == []
    assert drift({"robot": ticks(1000), "camera": ticks(300, rate_hz=31)}, {"robot": 100}) == []
    uneven = np.sort(START_S + np.random.default_rng(0).uniform(0, 3.5, 102))
    assert drift({"robot": ticks(1000), "camera": uneven}, rates, max_gap_s=1) == []


def test_rate_that_is_wrong_altogether_is_no_drift() -> None:
    assert drift({"robot": ticks(1000), "camera": ticks(300, rate_hz=50)}, {"robot": 100, "camera": 30}) == []
