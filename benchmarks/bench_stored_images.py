"""Measures cost and loss of storing images small or as pixels. Baseline: stored as recorded, resized in training.

One JSON line a case:

- ``encoding``: one quality and colour resolution of the stored JPEG. The figures are bytes and milliseconds an image;
  PSNR in dB against the pixels of the resized recorded file (which training sees without ``--image-size``); and how
  many times as fast it decodes as the recorded file at full size, which must still be resized.
- ``ingest``: seconds of a whole ingest on one worker, and the seconds more than the baseline for 1000 images.

Best of three, one thread. ``--images DIR`` uses other JPEG files than the demo's for ``encoding``.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from vlapipe.pipeline.demo import make_demo
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.read.images.stored_images import decode_into

REPEATS = 3
ENCODINGS = [(quality, colour) for quality in (85, 90, 95, 98) for colour in ("420", "444")]
WAYS = {  # whether images are resized, and how they are stored
    "as recorded": (False, "jpeg"),
    "small": (True, "jpeg"),
    "small, raw": (True, "raw"),
    "raw": (False, "raw"),
}


def best_seconds(work: Callable[[], Any]) -> tuple[Any, float]:
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - started)
    return result, best


def psnr(images: list[NDArray[np.uint8]], truth: list[NDArray[np.uint8]]) -> float:
    errors = [np.mean((image.astype(np.float64) - true) ** 2) for image, true in zip(images, truth, strict=True)]
    return float(10 * np.log10(255**2 / np.mean(errors)))


def decode(jpeg: Any) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(jpeg, colorspace="RGB")
    return pixels


def decode_all(jpegs: list[NDArray[np.uint8]], size: tuple[int, int]) -> list[NDArray[np.uint8]]:
    images = [np.empty((size[1], size[0], 3), dtype=np.uint8) for _ in jpegs]
    for jpeg, image in zip(jpegs, images, strict=True):
        decode_into(jpeg, image)
    return images


def encodings(jpegs: list[NDArray[np.uint8]], size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    pixels = decode_all(jpegs, size)
    _, full_seconds = best_seconds(lambda: [decode(jpeg.data) for jpeg in jpegs])
    for quality, colour in ENCODINGS:
        options = {"quality": quality, "colorsubsampling": colour}
        small, seconds = best_seconds(lambda o=options: [simplejpeg.encode_jpeg(image, **o) for image in pixels])
        back, read_seconds = best_seconds(lambda s=small: [decode(jpeg) for jpeg in s])
        yield {
            "case": "encoding",
            **options,
            "bytes": sum(map(len, small)) / len(small),
            "encode_ms": seconds / len(jpegs) * 1e3,
            "decode_ms": read_seconds / len(jpegs) * 1e3,
            "psnr_db": psnr(back, pixels),
            "ratio": full_seconds / read_seconds,
        }


def ingests(raw: Path, num_images: int, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    baseline_s = 0.0
    for way, (is_small, storage) in WAYS.items():
        seconds, stored_bytes = float("inf"), 0
        options = {"image_size": size if is_small else None, "image_storage": storage, "workers": 1}
        for _ in range(REPEATS):
            with tempfile.TemporaryDirectory(dir=raw.parent) as out:
                report = ingest(IngestConfig(source=raw, out=Path(out) / "data", **options))
            seconds, stored_bytes = min(seconds, report.elapsed_s), report.stored_bytes
        baseline_s = baseline_s or seconds
        more = (seconds - baseline_s) / num_images * 1e3
        line = {"case": "ingest", "way": way, "seconds": seconds, "more_s_for_1000_images": more}
        yield {**line, "stored_bytes": stored_bytes, "ratio": seconds / baseline_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of JPEG files")
    parser.add_argument("--size", default="224x224", help="WxH")
    parser.add_argument("--episodes", type=int, default=8, help="of the demo")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    size = (width, height)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    where = {"machine": f"{platform.machine()}, Python {platform.python_version()}", "commit": commit.stdout.strip()}
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw"
        make_demo(raw, num_episodes=arguments.episodes)
        ours = sorted(raw.rglob("*.jpg"))
        files = sorted(arguments.images.rglob("*.jpg")) if arguments.images else ours
        jpegs = [np.frombuffer(file.read_bytes(), dtype=np.uint8) for file in files[:: -(-len(files) // 200)]]
        about = {"bench": "stored_images", "size": arguments.size, "recorded_bytes": sum(map(len, jpegs)) / len(jpegs)}
        cases = [encodings(jpegs, size)] + ([] if arguments.images else [ingests(raw, len(ours), size)])
        for lines in cases:
            for line in lines:
                rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in line.items()}
                print(json.dumps({**about, **rounded, **where}), flush=True)


if __name__ == "__main__":
    main()
