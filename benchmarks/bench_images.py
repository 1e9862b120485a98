"""Measures decoders of PNG, depth and JPEG, and how near the loader and ingest come to a decoder alone.

One JSON line a case, images of 640x480:

- ``decoder``: images a second of each library that is installed, into memory that was used before where it can.
  The seconds are the thread's own, so that other work on the machine counts little. ``ratio`` is against Pillow.
- ``load``: images a second of the loader at the recorded size, and of the decoder alone on the same files and threads.
- ``ingest``: images a second of a whole ingest on two workers, and of reading and decoding the files on two threads.

The two sides of a ratio take turns, and each has its best turn.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from machine import machine, rounded
from numpy.typing import NDArray
from PIL import Image

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.format.image_decode import decode_depth, decode_rgb

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from image_lab import SCHEMA, write

HEIGHT, WIDTH = 480, 640
THREADS = 2
LOAD_TARGET, INGEST_TARGET = 0.9, 0.8


def picture(number: int) -> NDArray[np.uint8]:
    """A scene with the noise of a camera."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [127 + 100 * np.sin((x + 5 * number) / 37 + i) * np.cos(y / 53 - i) for i in range(3)]
    return (np.stack(planes, -1) + rng.normal(0, 2, (HEIGHT, WIDTH, 3))).clip(0, 255).astype(np.uint8)


def depth(number: int) -> NDArray[np.uint16]:
    """Millimetres with the noise and the holes of a sensor."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    values = 1000 + 500 * np.sin((x + 5 * number) / 80) * np.cos(y / 60) + rng.normal(0, 1.5, (HEIGHT, WIDTH))
    values[rng.random((HEIGHT, WIDTH)) < 0.05] = 0
    return values.astype(np.uint16)


def png(pixels: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=6)
    return file.getvalue()


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    data: bytes = simplejpeg.encode_jpeg(pixels, quality=95, colorsubsampling="420")
    return data


KINDS: dict[str, tuple[Callable[[int], bytes], str, str]] = {
    "png": (lambda i: png(picture(i)), "png", ""),
    "depth": (lambda i: png(depth(i)), "png", 'unit = "mm"'),
    "jpeg": (lambda i: jpeg(picture(i)), "jpg", ""),
}


def decoders(kind: str) -> dict[str, Callable[[bytes], Any]]:
    """Each library's way to decode a kind of file to RGB or to depth."""
    shape = (HEIGHT, WIDTH) if kind == "depth" else (HEIGHT, WIDTH, 3)
    out = np.empty(shape, dtype=np.uint16 if kind == "depth" else np.uint8)
    found: dict[str, Callable[[bytes], Any]] = {"pillow": lambda file: np.asarray(Image.open(io.BytesIO(file)))}
    if kind == "jpeg":
        found["simplejpeg"] = lambda file: simplejpeg.decode_jpeg(file, buffer=out)
    try:
        import cv2

        cv2.setNumThreads(1)
        how = cv2.IMREAD_UNCHANGED if kind == "depth" else cv2.IMREAD_COLOR_RGB
        found["opencv"] = lambda file: cv2.imdecode(np.frombuffer(file, dtype=np.uint8), how)
    except ImportError:
        pass
    try:
        import imagecodecs

        decode = imagecodecs.jpeg8_decode if kind == "jpeg" else imagecodecs.png_decode
        found["imagecodecs"] = lambda file: decode(file, out=out)
    except ImportError:
        pass
    return found


def best_rates(
    works: dict[str, Callable[[], int]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Images a second of each work, which returns how many images it was. The works take turns."""
    best = dict.fromkeys(works, 0.0)
    for _ in range(repeats):
        for name, work in works.items():
            began = clock()
            count = work()
            best[name] = max(best[name], count / (clock() - began))
    return best


def decoder_lines(kind: str, files: list[bytes], repeats: int) -> Iterator[dict[str, Any]]:
    works = {name: lambda d=decode: len([d(file) for file in files]) for name, decode in decoders(kind).items()}
    rates = best_rates(works, repeats, time.thread_time)
    for name, rate in rates.items():
        yield {"case": "decoder", "kind": kind, "decoder": name, "images_per_s": rate, "ratio": rate / rates["pillow"]}


def decode_alone(kind: str, files: list[Any]) -> int:
    """Decode with the decoder that training uses, on two threads that use their memory again."""

    def decode(part: list[Any]) -> None:
        colours = np.empty((HEIGHT, WIDTH, 3), dtype=np.uint8)
        deep = np.empty((HEIGHT, WIDTH), dtype=np.uint16)
        for file in part:
            data = file.read_bytes() if isinstance(file, Path) else file
            if kind == "depth":
                decode_depth(data, lambda *_: deep)
            else:
                decode_rgb(data, (HEIGHT, WIDTH), lambda *_: colours)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(decode, [files[i::THREADS] for i in range(THREADS)]))
    return len(files)


def whole_lines(kind: str, scratch: Path, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    make, suffix, _ = KINDS[kind]
    root = write(scratch / kind, make, suffix=suffix, episodes=arguments.episodes, num=arguments.images)
    files = sorted(root.glob("*/cam/*"))
    schema = scratch / f"{kind}.toml"
    schema.write_text(SCHEMA.format(camera=KINDS[kind][2]))
    number = 0

    def ingested() -> int:
        nonlocal number
        number += 1
        options: dict[str, Any] = {"source": scratch / kind, "schema": str(schema), "workers": THREADS}
        report = ingest(IngestConfig(out=scratch / f"{kind}-{number}", **options))
        assert not report.rejects
        return len(files)

    rates = best_rates({"ingest": ingested, "read and decode": lambda: decode_alone(kind, [*files])}, arguments.repeat)
    ratio = rates["ingest"] / rates["read and decode"]
    yield {
        "case": "ingest",
        "kind": kind,
        "images_per_s": rates["ingest"],
        "alone_per_s": rates["read and decode"],
        "ratio": ratio,
        "target": INGEST_TARGET,
    }
    loader = vlapipe.Loader(vlapipe.open_dataset(scratch / f"{kind}-1"), batch_size=8, num_workers=THREADS)
    bytes_of = [file.read_bytes() for file in files]

    def loaded() -> int:
        return sum(len(batch["index"]) for batch in loader)

    rates = best_rates({"load": loaded, "decode": lambda: decode_alone(kind, bytes_of)}, arguments.repeat)
    yield {
        "case": "load",
        "kind": kind,
        "images_per_s": rates["load"],
        "alone_per_s": rates["decode"],
        "ratio": rates["load"] / rates["decode"],
        "target": LOAD_TARGET,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--images", type=int, default=60, help="of an episode")
    parser.add_argument("--repeat", type=int, default=7)
    arguments = parser.parse_args()
    about = {"bench": "images", **machine()}
    with tempfile.TemporaryDirectory() as scratch:
        for kind, (make, _, _) in KINDS.items():
            files = [make(i) for i in range(min(20, arguments.images))]
            for lines in (decoder_lines(kind, files, arguments.repeat), whole_lines(kind, Path(scratch), arguments)):
                for line in lines:
                    print(json.dumps({**about, **{key: rounded(value) for key, value in line.items()}}), flush=True)


if __name__ == "__main__":
    main()
