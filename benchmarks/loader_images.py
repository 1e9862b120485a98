"""Measures samples of two cameras on two threads: at full size, at a training size, and stored raw."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import bench_ingest
import numpy as np
import simplejpeg
import torch
from loader_data import ROBOT_AND_CAMERAS
from loader_image_peers import (
    Jpegs,
    decode,
    decode_and_resize,
    hdf5_jpegs,
    hdf5_pixels,
    on_threads,
    write_hdf5_images,
)
from loader_timing import Line, Settings, best_of, line, measure, memcpy, nbytes, warm_rate

import vlapipe

__all__ = ["bench_jpegs", "bench_raw", "bench_small"]

EPISODES = 20  # of 1000 rows and 300 images of about 50 kB: 300 MB
RAW_EPISODES = 5  # the same images as 640x480 pixels: 1.4 GB
BATCH = 32
THREADS = 2
PREFETCH = 4
LONGER = 4
SMALL = (224, 224)
CAMERAS = ("front", "side")
SKIP = 8  # batches that were prepared while others were measured


def bench_jpegs(settings: Settings) -> Iterator[Line]:
    """Measure full size, against simplejpeg alone and against HDF5 of JPEG bytes."""
    torch.set_num_threads(1)
    dataset = stored(settings, "jpeg", EPISODES)
    cameras = [jpegs_of(dataset, camera) for camera in CAMERAS]
    path = write_hdf5_images(settings.folder / f"jpegs-{len(cameras[0])}.h5", cameras, pixels=False)
    way, hdf5, tried = fastest(hdf5_jpegs(path, min(map(len, cameras)), BATCH), settings)
    alone = cameras[0] + cameras[1]
    mine, sample_bytes = ours(dataset, settings)
    rates = measure(
        {"ours": mine, "simplejpeg": lambda: on_threads(alone, decode, LONGER * settings.seconds) / 2, "hdf5": hdf5},
        settings.repeat,
    )
    about = {"size": "640x480", "jpeg_bytes": int(np.mean([len(jpeg) for jpeg in alone])), **common(sample_bytes)}
    yield {"against": "simplejpeg alone", **about, **line(rates, "ours", "simplejpeg", 0.95)}
    compared = line(rates, "ours", "hdf5", 1.6)
    yield {"against": "HDF5 of JPEG bytes", **about, **compared, "baseline_way": way, "ways": tried}


def bench_small(settings: Settings) -> Iterator[Line]:
    """Measure 224x224, from full-size and from small stored frames, against decoding at full size and resizing."""
    torch.set_num_threads(1)
    full = stored(settings, "jpeg", EPISODES)
    small = stored(settings, "224", EPISODES, "--image-size", "224x224")
    alone = [jpeg for camera in CAMERAS for jpeg in jpegs_of(full, camera)]
    mine, sample_bytes = ours(full, settings, image_size=SMALL)
    mine_small, _ = ours(small, settings)
    resized = decode_and_resize(SMALL)
    rates = measure(
        {
            "ours": mine,
            "from small": mine_small,
            "decode, resize": lambda: on_threads(alone, resized, LONGER * settings.seconds) / 2,
        },
        settings.repeat,
    )
    about = {"against": "full-size decode, then resize", "size": "224x224", **common(sample_bytes)}
    yield {**about, "stored": "640x480", **line(rates, "ours", "decode, resize", 1.25)}
    full_size = line(rates, "from small", "ours", 5.0)
    against_ours = {"against_ours_from_full_size": full_size["ratio"]}
    yield {**about, "stored": "224x224", **line(rates, "from small", "decode, resize", 5.0), **against_ours}


def bench_raw(settings: Settings) -> Iterator[Line]:
    """Measure full size stored as pixels, against memcpy on as many threads and against HDF5 of frames."""
    torch.set_num_threads(1)
    dataset = stored(settings, "raw", RAW_EPISODES, "--image-storage", "raw")
    jpegs = stored(settings, "jpeg-of-raw", RAW_EPISODES)
    cameras = [jpegs_of(jpegs, camera) for camera in CAMERAS]
    path = write_hdf5_images(settings.folder / f"pixels-{len(cameras[0])}.h5", cameras, pixels=True)
    way, hdf5, tried = fastest(hdf5_pixels(path, min(map(len, cameras)), BATCH), settings)
    mine, sample_bytes = ours(dataset, settings)
    copy = memcpy(settings, threads=THREADS)
    rates = measure(
        {"ours": mine, "memcpy": lambda: copy() / sample_bytes, "hdf5": hdf5},
        settings.repeat,
    )
    about = {"size": "640x480", "stored": "raw", **common(sample_bytes)}
    copied = line(rates, "ours", "memcpy", 0.6)
    yield {"against": f"memcpy on {THREADS} threads", **about, **copied, "bytes_s": copied["ours"] * sample_bytes}
    compared = line(rates, "ours", "hdf5", 2.0)
    yield {"against": "HDF5 of raw frames", **about, **compared, "baseline_way": way, "ways": tried}


def common(sample_bytes: int) -> Line:
    """Return the entries that every line of these cases has."""
    return {"batch_size": BATCH, "threads": THREADS, "sample_bytes": sample_bytes, "unit": "samples/s"}


def ours(dataset: vlapipe.Dataset, settings: Settings, **options: Any) -> tuple[Callable[[], float], int]:
    """Measure samples per second of the loader on two threads of its own. Also returns the bytes of one sample."""
    loader = vlapipe.Loader(
        dataset, batch_size=BATCH, num_workers=THREADS, prefetch_factor=PREFETCH, endless=True, **options
    )
    batches = iter(loader)
    size = nbytes(next(batches)) // BATCH
    return rate_of(batches, settings), size


def rate_of(batches: Iterator[Any], settings: Settings) -> Callable[[], float]:
    """Measure for longer than other cases do: few batches of images come per second, and one must not count much."""
    seconds = LONGER * settings.seconds
    return warm_rate(batches, BATCH, seconds, skip=SKIP)


def fastest(candidates: dict[str, Iterator[Any]], settings: Settings) -> tuple[str, Callable[[], float], Line]:
    """Return the fastest way: its name, its measure, and the rates of all ways."""
    measures = {name: rate_of(batches, settings) for name, batches in candidates.items()}
    best, rates = best_of(measures, 2)
    return best, measures[best], {name: round(rate) for name, rate in rates.items()}


def stored(settings: Settings, name: str, episodes: int, *options: str) -> vlapipe.Dataset:
    """Return the recordings as a dataset made by ``vlapipe ingest`` with these options."""
    count = max(2, round(episodes * settings.scale))
    raw, out = settings.folder / f"recorded-{count}", settings.folder / f"images-{name}-{count}"
    if not out.exists():
        if not raw.exists():
            unfinished = raw.with_suffix(".unfinished")
            bench_ingest.make_episodes(
                unfinished, least=count, rows=100 if settings.tiny else 1000, images=make_jpegs()
            )
            unfinished.rename(raw)
        schema = settings.folder / "cameras.toml"
        schema.write_text(ROBOT_AND_CAMERAS)
        unfinished = out.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        bench_ingest.run([*bench_ingest.command(raw, schema, unfinished, "zarr", 1), *options])
        unfinished.rename(out)
    return vlapipe.open_dataset(out)


def jpegs_of(dataset: vlapipe.Dataset, camera: str) -> Jpegs:
    """Return the bytes of every image, as views of the mapped arrays."""
    found: Jpegs = []
    for shard in range(len(dataset.manifest.shards)):
        arrays = dataset.arrays(shard)
        data, offset = arrays[f"{camera}/bytes"], arrays[f"{camera}/offset"].tolist()
        found += [data[a:b] for a, b in pairwise(offset)]
    return found


@cache
def make_jpegs(count: int = 32) -> list[bytes]:
    """Make 640x480 frames of about 50 kB at quality 90, with detail at every scale, as in real scenes."""
    height, width = 480, 640
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1 / width
    images = []
    for _ in range(count):
        phases = np.exp(2j * np.pi * rng.uniform(size=(2, *frequency.shape)))
        light, colour = np.fft.irfft2(phases / frequency**1.7, s=(height, width))
        light, colour = light / light.std(), colour / colour.std()
        image = np.stack([50 * light + 20 * colour, 50 * light, 50 * light - 20 * colour], axis=-1) + 120
        pixels = np.clip(image, 0, 255).astype(np.uint8)
        images.append(simplejpeg.encode_jpeg(pixels, quality=90, colorsubsampling="420"))
    return images
