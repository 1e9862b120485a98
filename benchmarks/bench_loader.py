"""Measures how fast the loader is, each figure against a baseline measured in the same run; one JSON line a figure.

=== ============================================= ================================================================
 a  state windows and actions, one thread         DataLoader over arrays in memory: 6x; memcpy: 60 %
 b  the same                                      HDF5: 10x
 c  with a sensor's windows                       the original's ``np.load`` a sample: 500x; memcpy: 70 %
 d  two 640x480 JPEG cameras, two threads           simplejpeg alone: 95 %; HDF5 of JPEG bytes: 1.6x
 e  the same at 224x224                           full-size decode, then resize: 1.25x; stored at 224: 5x
 f  the same stored raw                           memcpy: 60 %; HDF5 of frames: 2x
 g  opening a million episodes, with the loader    1 s; 300 MB
 h  private memory, 0, 2, 8 workers, 1x, 10x data  each other: flat within 10 %
 i  first batch, cold                              unpacking everything first: 10x sooner
 j  resume in the middle of a billion frames       10 ms
 k  rows: the fast way                            the plain way: 1.2x for states
 l  samples chosen when training                  three tables: 90 % of one; first batch: 5 s
=== ============================================= ================================================================

The run makes its own data; ``--folder`` keeps the data for the next run. Pages are warm unless a line says cold. Our
loader and the baseline are measured in turns; ``ratio`` is the median of the turns' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from loader_chosen import bench_chosen
from loader_images import bench_jpegs, bench_raw, bench_small
from loader_rows import bench_rows
from loader_start import bench_first_batch, bench_memory, bench_opening, bench_resume
from loader_timing import Line, Settings
from loader_windows import bench_hdf5, bench_sensor, bench_state
from machine import machine, rounded

CASES: dict[str, Callable[[Settings], Iterator[Line]]] = {
    "a": bench_state,
    "b": bench_hdf5,
    "c": bench_sensor,
    "d": bench_jpegs,
    "e": bench_small,
    "f": bench_raw,
    "g": bench_opening,
    "h": bench_memory,
    "i": bench_first_batch,
    "j": bench_resume,
    "k": bench_rows,
    "l": bench_chosen,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", default=",".join(CASES), help="which, with commas between")
    parser.add_argument("--repeat", type=int, default=5, help="turns")
    parser.add_argument("--seconds", type=float, default=0.5, help="of one measurement")
    parser.add_argument("--scale", type=float, default=1.0, help="how much data, as a share of the full size")
    parser.add_argument("--folder", type=Path, help="keep the data here; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="also append the lines to this file")
    options = parser.parse_args()
    cases = options.cases.split(",")
    if unknown := [case for case in cases if case not in CASES]:
        parser.error(f"--cases: expected some of {','.join(CASES)}, found {','.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="bench-loader-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        settings = Settings(folder=folder, scale=options.scale, repeat=options.repeat, seconds=options.seconds)
        made_on = machine()
        for case in cases:
            load = {"load_before": round(os.getloadavg()[0], 1)}  # how busy the cores are with other work
            for result in CASES[case](settings):
                line = {key: rounded(value) for key, value in result.items()}
                text = json.dumps({"bench": "loader", "case": case, **line, **load, **made_on})
                print(text, flush=True)
                if options.out:
                    with options.out.open("a") as file:
                        file.write(text + "\n")


if __name__ == "__main__":
    main()
