"""A lab with one camera whose images a test makes: folders of files, a table of robot states, and a schema."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest

SCHEMA = """
name = "lab"
[episodes]
folders = ["episode_*"]
[split]
val = 0
[streams.robot]
kind = "csv"
files = ["robot.csv"]
[streams.robot.time]
column = ["t"]
[streams.robot.fields.q]
columns = ["q"]
[streams.camera]
kind = "images"
files = ["cam/*"]
{camera}
[action]
kind = "next"
of = ["robot/q"]
[sample]
action_rows = 2
"""
HEIGHT, WIDTH = 24, 32


def picture(number: int) -> NDArray[np.uint8]:
    """A smooth picture in three colours."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [120 + 80 * np.sin((x + 7 * number) / (5 + i)) * np.cos(y / (4 + i)) + 30 * i - 30 for i in range(3)]
    return np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)


def depth(number: int) -> NDArray[np.uint16]:
    """Millimetres of a slope with holes."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    millimetres = (400 + 100 * number + 3 * x + 500 * y).astype(np.uint16)
    millimetres[::5, ::7] = 0
    return millimetres


def encoded(pixels: NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def write(root: Path, image: Callable[[int], bytes], *, suffix: str = "png", episodes: int = 2, num: int = 6) -> Path:
    """Write episodes of ``num`` images each; ``image(i)`` is image ``i`` of all of them."""
    for e in range(episodes):
        folder = root / f"episode_{e}"
        (folder / "cam").mkdir(parents=True)
        rows = [f"{100 * (e + 1) + i / 10},{np.sin(i / 3 + e)}" for i in range(num)]
        (folder / "robot.csv").write_text("\n".join(["t,q", *rows, ""]))
        for i in range(num):
            (folder / "cam" / f"{100 * (e + 1) + i / 10:.6f}.{suffix}").write_bytes(image(e * num + i))
    return root


def run(raw: Path, out: Path | None, camera: str = "", **options: Any) -> IngestReport:
    schema = raw.parent / f"{raw.name}.toml"
    schema.write_text(SCHEMA.format(camera=camera))
    return ingest(IngestConfig(source=raw, out=out, schema=str(schema), workers=1, **options))


def codes(report: IngestReport) -> dict[str, tuple[str, str]]:
    """File and text of the first finding of each code, of rejects and of kept episodes."""
    found: dict[str, tuple[str, str]] = {}
    reasons = [reason for reject in report.rejects for reason in reject["reasons"]]
    for finding in [*reasons, *report.findings]:
        found.setdefault(finding["code"], (finding["file"], finding["message"]))
    return found
