"""Baselines for the loader's images: simplejpeg and memcpy alone on as many threads, and HDF5."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from loader_timing import forever
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

__all__ = ["Jpegs", "decode", "decode_and_resize", "hdf5_jpegs", "hdf5_pixels", "on_threads", "write_hdf5_images"]

HEIGHT, WIDTH = 480, 640
FRAME = (HEIGHT, WIDTH, 3)
BUFFERS = 32  # images that each thread decodes into in turn: 29 MB, as much as a batch
Jpegs = list[NDArray[np.uint8]]
Work = Callable[[NDArray[np.uint8], int], None]  # takes an image's bytes, and the index of the thread's buffer to use


def on_threads(images: Jpegs, make_work: Callable[[], Work], seconds: float, *, threads: int = 2) -> float:
    """Measure images per second of threads that do only this work, in random order, without waiting for each other."""
    counts = [0] * threads
    ready, over = threading.Barrier(threads + 1), threading.Event()

    def work(thread: int) -> None:
        one = make_work()
        order = np.random.default_rng(thread).permutation(len(images)).tolist()
        ready.wait()
        done = 0
        while not over.is_set():
            one(images[order[done % len(order)]], done % BUFFERS)
            done += 1
        counts[thread] = done

    running = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for thread in running:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    time.sleep(seconds)
    over.set()
    for thread in running:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def decode() -> Work:
    """Return a worker that decodes at full size into buffers that are allocated already."""
    buffers = np.ones((BUFFERS, *FRAME), np.uint8)

    def one(jpeg: NDArray[np.uint8], at: int) -> None:
        simplejpeg.decode_jpeg(jpeg.data, colorspace="RGB", buffer=buffers[at])

    return one


def decode_and_resize(size: tuple[int, int]) -> Callable[[], Work]:
    """Return a maker of workers that decode at full size and resize into a batch.

    The resize is torch's antialiased resize of uint8, on pixels in their decoded (channels-last) memory order.
    """

    def make() -> Work:
        image = np.ones(FRAME, np.uint8)
        channels_last = torch.from_numpy(image).permute(2, 0, 1)[None]
        batch = torch.ones((BUFFERS, 3, *size), dtype=torch.uint8)

        def one(jpeg: NDArray[np.uint8], at: int) -> None:
            simplejpeg.decode_jpeg(jpeg.data, colorspace="RGB", buffer=image)
            batch[at] = F.interpolate(channels_last, size=size, mode="bilinear", antialias=True)[0]

        return one

    return make


def write_hdf5_images(path: Path, cameras: list[Jpegs], *, pixels: bool) -> Path:
    """Write each camera's JPEG bytes end to end with offsets, or its decoded frames ``(images, 480, 640, 3)``."""
    if path.exists():
        return path
    unfinished = path.with_suffix(".unfinished")
    with h5py.File(unfinished, "w", libver="latest") as file:
        for i, jpegs in enumerate(cameras):
            if pixels:
                frames = file.create_dataset(f"{i}/pixels", (len(jpegs), *FRAME), np.uint8)
                for k, jpeg in enumerate(jpegs):
                    frames[k] = simplejpeg.decode_jpeg(jpeg.data, colorspace="RGB")
            else:
                file[f"{i}/bytes"] = np.concatenate(jpegs)
                file[f"{i}/offset"] = np.cumsum([0, *map(len, jpegs)])
    unfinished.rename(path)
    return path


class Hdf5Images(Dataset[Any]):
    """Images of two cameras at one row, read from contiguous arrays into ``(2, 480, 640, 3)``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cameras: list[Any] | None = None

    def __getitem__(self, row: int) -> torch.Tensor:
        out = torch.empty((2, *FRAME), dtype=torch.uint8)
        self._read(row, out.numpy())
        return out

    def _read(self, row: int, out: NDArray[np.uint8]) -> None:
        raise NotImplementedError


class Hdf5Jpegs(Hdf5Images):
    """Images stored as JPEG bytes, decoded directly into the output."""

    def _read(self, row: int, out: NDArray[np.uint8]) -> None:
        if self._cameras is None:
            file = h5py.File(self._path)
            self._cameras = [(file[f"{i}/bytes"], file[f"{i}/offset"][:].tolist()) for i in range(2)]
        for camera, (data, offset) in enumerate(self._cameras):
            jpeg = data[offset[row] : offset[row + 1]]
            simplejpeg.decode_jpeg(jpeg.data, colorspace="RGB", buffer=out[camera])


class Hdf5Pixels(Hdf5Images):
    """Images stored as decoded frames, read directly into the output."""

    def _read(self, row: int, out: NDArray[np.uint8]) -> None:
        if self._cameras is None:
            file = h5py.File(self._path)
            self._cameras = [file[f"{i}/pixels"] for i in range(2)]
        for camera, frames in enumerate(self._cameras):
            frames.read_direct(out[camera], np.s_[row])


class InSharedBatch(Dataset[Any]):
    """The same images, a batch at a time, written directly into shared memory: no collate, no copy."""

    def __init__(self, samples: Hdf5Images) -> None:
        self._samples = samples

    def __getitems__(self, rows: list[int]) -> torch.Tensor:
        out = torch.empty((len(rows), 2, *FRAME), dtype=torch.uint8)
        if torch.utils.data.get_worker_info() is not None:
            out.share_memory_()
        for place, row in enumerate(rows):
            self._samples._read(row, out[place].numpy())
        return out


def _same(batch: torch.Tensor) -> torch.Tensor:
    return batch


def _streams(samples: Hdf5Images, num_rows: int, batch_size: int, workers: tuple[int, ...]) -> dict[str, Iterator[Any]]:
    rng = np.random.default_rng(0)
    batches = rng.integers(0, num_rows, (200, batch_size)).tolist()
    ways: dict[str, tuple[Dataset[Any], Any]] = {
        "default collate": (samples, None),
        "into a shared batch": (InSharedBatch(samples), _same),
    }
    found = {}
    for way, (dataset, collate) in ways.items():
        for count in workers:
            more: dict[str, Any] = {"persistent_workers": True} if count else {}
            loader = DataLoader(dataset, batch_sampler=batches, collate_fn=collate, num_workers=count, **more)
            found[f"{way}, {count} workers"] = forever(loader)
    return found


def hdf5_jpegs(path: Path, num_rows: int, batch_size: int) -> dict[str, Iterator[Any]]:
    """Return batches of decoded JPEGs, by way, with two workers."""
    return _streams(Hdf5Jpegs(path), num_rows, batch_size, (2,))


def hdf5_pixels(path: Path, num_rows: int, batch_size: int) -> dict[str, Iterator[Any]]:
    """Return batches of stored frames, by way and number of workers."""
    return _streams(Hdf5Pixels(path), num_rows, batch_size, (0, 2))
