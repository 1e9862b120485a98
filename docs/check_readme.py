"""Keeps README.md true: runs what its examples of output come from and compares, or with ``--write`` puts them in.

``--write`` puts them into README.ko.md too, whose blocks are the same ones in the same order.

Speeds differ from run to run and are not compared. Losses are the same each time on one kind of processor, which the
README names; on another kind they are not compared either.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
README, KOREAN = ROOT / "README.md", ROOT / "README.ko.md"
DEMO = "`make demo` ends like this:\n"
BROKEN = "## What it says of a broken recording\n"
BROKEN_CODES = ("csv.out_of_range", "image.truncated")
SPEEDS = re.compile(r"[\d,.]+(?= steps/s| samples/s| %)|(?<=held back by ).*|(?<=^try ).*", re.MULTILINE)
SUCCESSES = re.compile(
    r"^demo, seed 1: .*?\n(?=\n)", re.MULTILINE | re.DOTALL
)  # of the policy, so of the processor too
LOSSES = re.compile(r"(?<=loss )[\d.]+( -> [\d.]+)?")


def processor() -> str:
    """The sentence that says on what the losses are those of the README."""
    release, threads, kind = _processor()
    on = f"torch {release}, {threads} threads and a CPU with {' and '.join(kind)}"
    return f"The losses are the same each time with {on}; the speeds are not."


def processor_in_korean() -> str:
    """The same sentence in README.ko.md."""
    release, threads, kind = _processor()
    on = f"torch {release}, 스레드 {threads}개, CPU 명령어 집합 {'·'.join(kind)}"
    return f"손실값은 같은 환경({on})에서는 매번 같습니다. 속도는 매번 다릅니다."


def _processor() -> tuple[str, int, list[str]]:
    kind = [torch.backends.cpu.get_cpu_capability(), *(["AMX"] if torch.cpu._is_amx_tile_supported() else [])]
    return torch.__version__.partition("+")[0], torch.get_num_threads(), kind


def demo_output(folder: Path) -> str:
    """The end of what ``make demo`` prints."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "docs/demo.sh", str(folder / "demo")]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    text = done.stdout.replace(str(folder / "demo"), "demo")
    last = list(re.finditer(r"^train: (\d+) of \1 steps", text, re.MULTILINE))[-1]
    return re.sub(r"^eval: .*\n", "", text[last.start() :], flags=re.MULTILINE)  # progress


def findings_output(folder: Path) -> str:
    """What ingest says of two of the demo's planted faults."""
    recordings = folder / "recordings"
    for arguments in (("demo", recordings, "--defects"), ("ingest", "--dataset", recordings, "--dry-run")):
        command = [sys.executable, "-m", "vlapipe", *map(str, arguments)]
        output = subprocess.run(command, text=True, capture_output=True, check=False).stdout
    lines = (line.removeprefix("error: ") for line in output.splitlines())
    return "\n".join(line for line in lines if line.endswith(tuple(f"[{code}]" for code in BROKEN_CODES))) + "\n"


def block_after(text: str, heading: str) -> tuple[int, int]:
    """Where the code block below ``heading`` begins and ends, without its fences."""
    begin = text.index("```\n", text.index(heading)) + 4
    return begin, text.index("```\n", begin)


def in_korean(english: str) -> str:
    """README.ko.md with the output that the English README shows."""
    text = KOREAN.read_text(encoding="utf-8")
    for heading in (BROKEN, DEMO):
        begin, end = block_after(english, heading)
        place = english[:begin].count("```\n")
        start = [found.end() for found in re.finditer(r"```\n", text)][place - 1]
        text = text[:start] + english[begin:end] + text[text.index("```\n", start) :]
    return re.sub(r"^손실값은 같은 환경.*", processor_in_korean(), text, flags=re.MULTILINE)


def main() -> None:
    """Compare, or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put what was printed into README.md")
    write = parser.parse_args().write
    told = README.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        printed = told
        for heading, output in ((BROKEN, findings_output(Path(folder))), (DEMO, demo_output(Path(folder)))):
            begin, end = block_after(printed, heading)
            printed = printed[:begin] + output + printed[end:]
    printed = re.sub(r"^The losses are the same each time .*", processor(), printed, flags=re.MULTILINE)
    if write:
        README.write_text(printed, encoding="utf-8")
        KOREAN.write_text(in_korean(printed), encoding="utf-8")
        return
    same_processor = processor() in told
    told, printed = ("".join(masked(text, same_processor)) for text in (told, printed))
    if told != printed:
        difference = difflib.unified_diff(told.splitlines(), printed.splitlines(), "README.md", "printed", lineterm="")
        sys.exit("\n".join(["README.md is not what was printed (make readme writes it):", *difference]))
    losses = "" if same_processor else "; the losses are another processor's"
    sys.stdout.write(f"README.md is what was printed{losses}\n")


def masked(text: str, same_processor: bool) -> str:
    """README without what may differ in the demo's block."""
    begin, end = block_after(text, DEMO)
    block = SPEEDS.sub("#", text[begin:end])
    if not same_processor:
        block = SUCCESSES.sub("#\n", re.sub(r"\w+ on cpu", "# on cpu", LOSSES.sub("#", block)))
        text = re.sub(r"^The losses are the same each time .*", "#", text, flags=re.MULTILINE)
    begin, end = block_after(text, DEMO)
    return text[:begin] + block + text[end:]


if __name__ == "__main__":
    main()
