"""Measures how often ``schema infer`` is right, and how fast it answers.

One JSON line a case:

- ``corpus``: small recordings of many robots and tools with the facts that a right schema states (``tests/corpus.py``),
  a line for the half to which weights may be fitted and one for the half that is kept out of it. ``right`` needed
  nothing by hand. ``asked`` ended with a question or a refusal. ``wrong`` exited with 0 and states something false.
  ``accuracy`` is the share of recordings that are right, or asked about where a question is due.
- ``public``: layouts of public datasets, rebuilt small. ``rate``: only the rate is asked for, which nothing states.
- ``confusion``: a line for each fact that is stated wrongly, and for each recording that is asked about needlessly, or
  not asked about where a question is due.
- ``files``: the seconds of an answer for many image files of several episodes. The baseline lists and stats the files.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine, rounded

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from corpus import Case, Verdict, cases, judge, judge_folder
from factories import make_jpeg
from public_layouts import LAYOUTS

from vlapipe.pipeline.infer.infer import infer_schema

RATE = "how many rows a second"
Line = dict[str, Any]


def confusions(half: str, name: str, expected: str, found: str, verdict: Verdict) -> Iterator[Line]:
    """Yield a line for each fact that is stated wrongly, or for an answer of another kind than is due."""
    about = {"case": "confusion", "half": half, "recording": name}
    for wrong in verdict.confusions:
        yield about | {"fact": wrong.fact, "expected": str(wrong.expected), "found": str(wrong.found)}
    if not verdict.confusions and found not in expected.split("|") and expected != "either":
        yield about | {"fact": "answer", "expected": expected, "found": " // ".join(verdict.asked) or found}


def corpus(half: str, chosen: list[Case]) -> Iterator[Line]:
    verdicts = [(case, judge(case)) for case in chosen]
    counts = Counter(verdict.answer for _, verdict in verdicts)
    due = sum(v.answer != "wrong" and case.facts["answer"] in (v.answer, "either") for case, v in verdicts)
    kinds = {answer: counts[answer] for answer in ("right", "asked", "wrong")}
    yield {"case": "corpus", "half": half, "recordings": len(chosen), **kinds, "accuracy": due / len(chosen)}
    for case, verdict in verdicts:
        yield from confusions(half, case.name, case.facts["answer"], verdict.answer, verdict)


def public(num: int | None) -> Iterator[Line]:
    counts: Counter[str] = Counter()
    said: list[Line] = []
    for layout in LAYOUTS[:num]:
        with tempfile.TemporaryDirectory() as place:
            layout.write(Path(place))
            verdict = judge_folder(Path(place), layout.facts, answered=[RATE])
        only_rate = verdict.answer == "asked" and all(RATE in line for line in verdict.asked)
        found = "rate" if only_rate else {"asked": "told"}.get(verdict.answer, verdict.answer)
        counts[found] += 1
        said += confusions("public", layout.name, layout.answer, found, verdict)
    yield {
        "case": "public",
        "layouts": sum(counts.values()),
        **{key: counts[key] for key in ("right", "rate", "told", "wrong")},
    }
    yield from said


def files(episodes: int, images: int, repeats: int) -> Iterator[Line]:
    picture = make_jpeg(0)
    with tempfile.TemporaryDirectory() as place:
        for episode in range(episodes):
            stamps = 1_700_000_000 + 100 * episode + np.arange(images) / 30
            folder = Path(place) / f"episode_{episode:03d}"
            (folder / "images" / "front").mkdir(parents=True)
            rows = [f"{stamp:.6f},{np.sin(stamp):.6f},{np.cos(stamp):.6f}\n" for stamp in stamps]
            (folder / "robot.csv").write_text("timestamp,joint_1,joint_2\n" + "".join(rows))
            for stamp in stamps:
                (folder / "images" / "front" / f"{stamp:.6f}.jpg").write_bytes(picture)
        listing, ours = [], []
        for _ in range(repeats):
            begun = time.perf_counter()
            num_bytes = sum(path.stat().st_size for path in Path(place).rglob("*.*"))
            listing.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            inferred = infer_schema(Path(place))
            ours.append(time.perf_counter() - begun)
    assert not inferred.faults, inferred.faults
    line = {
        "case": "files",
        "files": episodes * (images + 1),
        "mb": num_bytes / 1e6,
        "baseline": min(listing),
        "ours": min(ours),
    }
    yield line | {"first_s": ours[0], "ratio": min(listing) / min(ours), "target_s": 5.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a few of each, to try the benchmark itself")
    parser.add_argument("--out", type=Path, help="the file that takes the lines instead of those of an earlier run")
    options = parser.parse_args()
    few = 3 if options.small else None
    load = {"load_before": round(os.getloadavg()[0], 1)}
    every = [
        *corpus("fit", cases("fit")[:few]),
        *corpus("kept", cases("kept")[:few]),
        *public(few),
        *files(3 if options.small else 50, 20 if options.small else 1000, 3),
    ]
    about = {"bench": "infer"}
    text = "".join(
        json.dumps(
            about | {key: rounded(value) for key, value in (line | load | machine()).items()}, ensure_ascii=False
        )
        + "\n"
        for line in every
    )
    sys.stdout.write(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
