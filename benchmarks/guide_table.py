"""Writes the table of docs/guide-claims.md: what the guide said, and bench_guide.py's newest figures for each claim.

Prints the page; ``--write`` replaces the table in the page.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "guide.jsonl"
PAGE = ROOT / "docs" / "guide-claims.md"
BEGIN, END = "<!-- table: python benchmarks/guide_table.py --write -->", "<!-- end of the table -->"
NOT_YET = "not yet measured"
ONLY_ON_GPU = {"pinned", "cudnn"}

# Case of bench_guide.py, what is promised, how it is switched, what the guide said.
CLAIMS = (
    ("start", "Dataset start", "always", "start 30-50 % shorter, less memory"),
    ("prefetch", "Batches prepared ahead", "`--prefetch-factor`, `--num-workers`", "4 to 6; throughput +10-15 %"),
    ("pinned", "Pinned memory", "always on a GPU", "in the figure above"),
    ("cudnn", "cuDNN autotuning", "on unless `--deterministic`", "+20-30 % at fixed sizes"),
    ("bf16", "bf16 by autocast", "`--precision`", "memory -25-40 %, speed +15-25 %"),
    ("csv", "CSV to shards", "`vlapipe ingest`", "loads 10-100 times faster, 50-80 % smaller"),
    ("compile", "torch.compile", "`--compile`", "+10-20 %, slow first iteration"),
    ("checkpointing", "Gradient checkpointing", "`--gradient-checkpointing`", "less memory, a little slower"),
    ("attention", "Flash attention", "`--attention`", "named as next"),
    ("jpeg", "JPEG decoding", "`--num-workers`", "nothing"),
    ("accumulation", "Accumulation", "`--grad-accum`", "effective batch = batch x accumulation x GPUs"),
    ("all", "All of them", "the defaults", "whole throughput +40-60 %"),
)


def read_results(path: Path = RESULTS) -> list[dict[str, Any]]:
    """Read the lines of bench_guide.py; the newest line of each figure on each kind of device."""
    newest: dict[tuple[str, ...], dict[str, Any]] = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        line = json.loads(text)
        key = (line["case"], line["figure"], line.get("ways", ""), line["device"])
        newest.pop(key, None)
        newest[key] = line
    return list(newest.values())


def figure(line: dict[str, Any]) -> str:
    """Return a line's figure as a sentence."""
    ours, baseline, ratio = (line[key] for key in ("ours", "baseline", "ratio"))
    change = f"{100 * (ratio - 1):+.0f} %" if 0.1 < ratio < 10 else f"{max(ratio, 1 / ratio):,.0f} times "
    change += "" if change.endswith("%") else ("less" if ratio < 1 else "more")
    text = f"{line['ways']}: {line['figure']} {ours:,} against {baseline:,} {line['unit']} (**{change}**)"
    return text + (f"; first step {line['first_step_s']:,} s" if "first_step_s" in line else "")


def where(line: dict[str, Any]) -> str:
    """Return where a line was measured."""
    return f"{line.get('gpu', line['machine'])}, {line['commit']}"


def table(lines: list[dict[str, Any]]) -> str:
    """Return the table of claims, and that of bytes a sample."""
    rows = ["| promise | switched by | the guide said | on a CPU | on a GPU |", "|---|---|---|---|---|"]
    for case, title, switch, said in CLAIMS:
        cells = [title, switch, said]
        for device in ("cpu", "cuda"):
            found = [line for line in lines if (line["case"], line["device"]) == (case, device)]
            missing = "needs a GPU" if device == "cpu" and case in ONLY_ON_GPU else NOT_YET
            cells.append("<br>".join(map(figure, found)) + f" ({where(found[-1])})" if found else missing)
        rows.append(f"| {' | '.join(cells)} |")
    rows += ["", "| a sample of the benchmark's policy | on a CPU | on a GPU |", "|---|--:|--:|"]
    for name in (
        "bytes of a sample in a batch",
        "bytes of a sample in a step",
        "samples that fit into this GPU, at most",
    ):
        cells = [name]
        for device in ("cpu", "cuda"):
            found = [line for line in lines if (line["figure"], line["device"]) == (name, device)]
            missing = "" if device == "cpu" and "GPU" in name else NOT_YET
            cells.append(f"{found[-1]['ours']:,} {found[-1]['unit']}".strip() if found else missing)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def with_table(page: str, lines: list[dict[str, Any]]) -> str:
    """Return the page with the table of ``lines``."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(lines)}\n\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="replace the table in docs/guide-claims.md")
    options = parser.parse_args()
    page = with_table(PAGE.read_text(encoding="utf-8"), read_results())
    if options.write:
        PAGE.write_text(page, encoding="utf-8")
    else:
        print(page)


if __name__ == "__main__":
    main()
