"""Measures how fast HDF5 and Zarr go in, against what h5py and zarr take to read the same arrays alone on two cores.

One JSON line a case. Baseline: two processes that share out the files or groups, and read every array that the schema
takes, and decoding JPEG files (simplejpeg) where the file holds them. Ours: ``ingest_s`` is the whole ingest with
two workers, shards and manifest written; ``check_s`` is the same as a dry run, which reads, checks and hashes, and
writes nothing. Both run in this process, imports left out. ``ratio`` is the baseline's time divided by ``ingest_s``.

Reading pixels that nothing has encoded is copying memory, which no ingest can match, since it also writes. So a second
baseline, ``kept_s``, reads the same arrays in the same way and gives the guarantees of an ingest: each source file is
hashed, the arrays are written to an NPZ under a temporary name, synced, read back, compared and hashed, and renamed.
``ratio_kept`` is its time divided by ``ingest_s``.

Repeats are interleaved and medians compared. Input is in the page cache.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import simplejpeg
import zarr
from machine import machine, rounded

from vlapipe.pipeline.ingest import IngestConfig, ingest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from container_writing import pictures, push_t, write_aloha, write_replay_buffer, write_robomimic

Arrays = list[np.ndarray[Any, Any]]
Job = tuple[str, Any]  # the file, and which part of it


def read_aloha(job: Job, *, decode: bool) -> Arrays:
    with h5py.File(job[0]) as file:
        names = ("observations/qpos", "observations/qvel", "observations/effort", "action")
        arrays = [file[name][:] for name in names]
        for camera in file["observations/images"]:
            rows = file[f"observations/images/{camera}"][:]
            if decode and rows.ndim == 2:
                for row in rows:
                    simplejpeg.decode_jpeg(row)
            arrays.append(rows)
    return arrays


def read_demo(job: Job, *, decode: bool) -> Arrays:
    del decode
    path, demo = job
    with h5py.File(path) as file:
        group = file[f"data/{demo}"]
        names = [
            "obs/robot0_eef_pos",
            "obs/robot0_eef_quat",
            "obs/robot0_gripper_qpos",
            "obs/robot0_joint_pos",
            "actions",
        ]
        names += [f"obs/{name}" for name in group["obs"] if name.endswith("_image")]
        return [group[name][:] for name in names]


def read_rows(job: Job, *, decode: bool) -> Arrays:
    del decode
    path, (start, stop) = job
    group = zarr.open_group(path, mode="r")
    return [np.asarray(group[f"data/{n}"][start:stop]) for n in ("state", "action", "keypoint", "img")]  # type: ignore[index]


Read = Callable[..., Arrays]


def read_alone(work: tuple[Read, Job]) -> int:
    read, job = work
    return len(read(job, decode=True))


def keep(work: tuple[Read, Job, str, int]) -> int:
    """Read, and keep what was read as an ingest does; part ``number`` 0 of a file hashes the file."""
    read, job, folder, number = work
    if number == 0:
        every = [path for path in Path(job[0]).rglob("*") if path.is_file()] or [Path(job[0])]
        for path in every:
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")
    arrays = {f"a{i}": array for i, array in enumerate(read(job, decode=False))}
    named = f"{Path(job[0]).stem}-{number}.npz"
    temporary = Path(folder) / f"{named}.tmp"
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    with np.load(temporary) as stored:
        for name, array in arrays.items():
            assert np.array_equal(stored[name], array)
    with temporary.open("rb") as file:
        hashlib.file_digest(file, "sha256")
    temporary.rename(Path(folder) / named)
    return len(arrays)


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(case: str, schema: str, raw: Path, repeats: int, pool: Any, read: Read, jobs: list[Job]) -> dict[str, Any]:
    out = raw.parent / "out"

    def ours(*, dry_run: bool) -> None:
        shutil.rmtree(out, ignore_errors=True)
        report = ingest(
            IngestConfig(source=raw, schema=schema, out=None if dry_run else out, dry_run=dry_run, workers=2)
        )
        assert not report.rejects, report.rejects[0]

    def kept() -> None:
        shutil.rmtree(raw.parent / "kept", ignore_errors=True)
        (raw.parent / "kept").mkdir()
        numbered = [
            (read, job, str(raw.parent / "kept"), [j[0] for j in jobs[:i]].count(job[0])) for i, job in enumerate(jobs)
        ]
        pool.map(keep, numbered, chunksize=1)

    works = (
        lambda: ours(dry_run=False),
        lambda: ours(dry_run=True),
        lambda: pool.map(read_alone, [(read, job) for job in jobs], chunksize=1),
        kept,
    )
    for work in works:
        work()
    taken = [[seconds(work) for work in works] for _ in range(repeats)]
    ingest_s, check_s, alone_s, kept_s = (statistics.median(each) for each in zip(*taken, strict=True))
    num_bytes = sum(path.stat().st_size for path in raw.rglob("*") if path.is_file())
    return {
        "case": case,
        "raw_bytes": num_bytes,
        "alone_s": alone_s,
        "ingest_s": ingest_s,
        "check_s": check_s,
        "kept_s": kept_s,
        "ratio": alone_s / ingest_s,
        "ratio_check": alone_s / check_s,
        "ratio_kept": kept_s / ingest_s,
        "target": 0.8,
    }


def cases(scratch: Path, size: float, repeats: int, pool: Any) -> Iterator[dict[str, Any]]:
    rows = max(10, round(300 * size))
    for compress in (True, False):
        raw = scratch / f"aloha-{compress}" / "raw"
        files = [
            write_aloha(raw / "task", index=i, rows=rows if compress else rows // 3, compress=compress, size=(480, 640))
            for i in range(4)
        ]
        name = "aloha, JPEG" if compress else "aloha, pixels"
        yield measure(name, "aloha", raw, repeats, pool, read_aloha, [(str(path), None) for path in files])
    for compress in (True, False):
        raw = scratch / f"robomimic-{compress}" / "raw"
        path = write_robomimic(raw / "lift.hdf5", demos=8, compress=compress, rows=rows, size=(84, 84), next_obs=False)
        jobs: list[Job] = [(str(path), f"demo_{i}") for i in range(8)]
        name = "robomimic, gzip" if compress else "robomimic, pixels"
        yield measure(name, "robomimic", raw, repeats, pool, read_demo, jobs)
    ends = tuple(range(rows, 9 * rows, rows))
    data, _ = push_t(ends=ends)
    data["img"] = pictures(np.random.default_rng(0), ends[-1], 96, 96).astype(np.float32)
    raw = scratch / "zarr" / "raw"
    store = write_replay_buffer(raw / "pusht.zarr", data, list(ends))
    jobs_of_rows: list[Job] = [(str(store), (stop - rows, stop)) for stop in ends]
    yield measure("diffusion_policy, Blosc", "diffusion_policy", raw, repeats, pool, read_rows, jobs_of_rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=float, default=1.0, help="share of the full number of rows")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=None, help="where to write; by default a temporary folder")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    pool = multiprocessing.get_context("spawn").Pool(2)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch, pool:
        for line in cases(Path(scratch), options.size, options.repeats, pool):
            shown = {key: rounded(value) for key, value in {**line, **machine()}.items()}
            print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    main()
