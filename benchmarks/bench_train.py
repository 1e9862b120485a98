"""Measures what the trainer costs beside the policy, each figure against a baseline measured in the same process.

=========== ================================================================ =======================================
 overhead    a step of the trainer, batches in memory                         a bare ten-line loop: at most 1 % more
 data        share of the time that a real run with images waits for data     at most 1 %
 loader      samples a second of that run                                     a per-sample DataLoader on the same data
 busy        share of the time that a GPU computes in that run                at least 98 %
=========== ================================================================ =======================================

One JSON line a case. The trainer and its baseline make steps in turns, and a ratio is the median of the turns' ratios.
``busy`` needs a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from train_cases import (
    DEVICE,
    POLICIES,
    Line,
    demo_dataset,
    in_memory,
    medians,
    one_step,
    open_run,
    ratio,
    report,
    settle,
)

import vlapipe
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.data.device_copy import to_device
from vlapipe.train.optim.precision import autocast
from vlapipe.train.policies.regression import RegressionPolicy
from vlapipe.train.run import Run

ON_GPU = DEVICE.type == "cuda"
BATCH_SIZES = {1: 256, 20: 128, 150: 64} if ON_GPU else {1: 32, 20: 8}
OVERHEAD_SIZE = (96, 128)  # of images on a CPU, where the policy's own work is slow
IMAGE_SIZE = (224, 224)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", default="overhead,data,loader,busy")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--steps", type=int, default=40, help="steps of a real run")
    parser.add_argument("--episodes", type=int, default=24, help="of the demo, which is the data")
    parser.add_argument("--threads", type=int, help="of torch on a CPU; default: as torch chooses")
    parser.add_argument("--small", action="store_true", help="tiny policies, to see that it runs")
    parser.add_argument("--folder", type=Path, help="keep the data here; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="also append the lines to this file")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="bench-train-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        dataset = demo_dataset(folder, options.episodes)
        for case in options.cases.split(","):
            for line in CASES[case](dataset, options):
                report("train", case, line, options.out)


def sizes(options: argparse.Namespace) -> Iterator[tuple[Line, Line]]:
    """Yield what a line says about the policy, and the options of its run."""
    if options.small:
        args = {"dim": 32, "depth": 1, "num_heads": 2, "image_width": 8, "num_word_buckets": 64}
        yield {"parameters_M": 0, "batch_size": 2}, {"policy_args": args, "batch_size": 2}
        return
    for millions, batch_size in BATCH_SIZES.items():
        about = {"parameters_M": millions, "batch_size": batch_size}
        yield about, {"policy_args": POLICIES[millions], "batch_size": batch_size}


def resized(size: tuple[int, int]) -> Line:
    return {"image_resize_height": size[0], "image_resize_width": size[1]}


def bench_overhead(dataset: Path, options: argparse.Namespace) -> Iterator[Line]:
    """Compare steps on batches in memory."""
    size = IMAGE_SIZE if ON_GPU else OVERHEAD_SIZE
    for about, of_policy in sizes(options):
        with open_run(dataset, num_workers=0, **resized(size), **of_policy) as run:
            bare = bare_loop(run, in_memory(run), of_policy["policy_args"])
            ways: dict[str, Callable[[], object]] = {"ours": lambda run=run: one_step(run), "bare": bare}  # type: ignore[misc]
            calls = 20 if ON_GPU else 1
            medians(ways, turns=1, calls=3)
            took = medians(ways, turns=options.turns, calls=calls)
            common = {"precision": run.precision, "threads": torch.get_num_threads(), "images": f"{size[1]}x{size[0]}"}
        yield {
            **about,
            **common,
            "against": "a bare loop of ten lines",
            "ours_ms": 1e3 * statistics.median(took["ours"]),
            "baseline_ms": 1e3 * statistics.median(took["bare"]),
            "ratio": ratio(took, "ours", "bare"),
            "ratio_of_thread_time": ratio(took, "ours cpu", "bare cpu"),
            "more_us": 1e6 * statistics.median(a - b for a, b in zip(took["ours"], took["bare"], strict=True)),
            "target": 1.01,
        }


def bare_loop(run: Run, batches: Iterator[Batch], policy_args: Line) -> Callable[[], None]:
    """Return one step of a loop as one writes it by hand: same policy, optimizer, precision, clipping."""
    torch.manual_seed(run.config.seed)
    policy = RegressionPolicy(run.loader.spec, **policy_args).to(DEVICE)
    parameters = list(policy.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.01, fused=True)

    def step() -> None:
        batch = to_device(next(batches), DEVICE)
        with autocast(run.precision, DEVICE):
            loss = policy.loss(batch).mean
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def bench_data(dataset: Path, options: argparse.Namespace) -> Iterator[Line]:
    """Measure how long a run with images waits for its batches."""
    for about, of_policy in sizes(options):
        with open_run(dataset, **resized(IMAGE_SIZE), **of_policy) as run:
            for _ in range(max(2, options.steps // 4)):  # the loader finds out how many threads it takes
                one_step(run)
            waits, walls = [], []
            for _ in range(options.steps):
                took = medians({"step": lambda run=run: one_step(run)}, turns=1)  # type: ignore[misc]
                walls.append(took["step"][0])
                waits.append(run.log.newest.get("time/data_wait_ms", 0.0) / 1e3)
            yield {
                **about,
                "images": f"{IMAGE_SIZE[1]}x{IMAGE_SIZE[0]}",
                "step_ms": 1e3 * statistics.median(walls),
                "data_wait_ms": 1e3 * statistics.median(waits),
                "share": sum(waits) / sum(walls),
                "target": 0.01,
            }


class PerSample(torch.utils.data.Dataset[Any]):
    """Sample by sample, as most training scripts read."""

    def __init__(self, frames: Any) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, i: int) -> Any:
        return self.frames[i]


def bench_loader(dataset: Path, options: argparse.Namespace) -> Iterator[Line]:
    """Compare a run with a bare loop that a DataLoader feeds sample by sample."""
    num_workers = torch.get_num_threads() if not ON_GPU else 8
    for about, of_policy in sizes(options):
        frames = PerSample(vlapipe.torch_dataset(vlapipe.open_dataset(dataset), image_size=IMAGE_SIZE))
        loader = torch.utils.data.DataLoader(
            frames,
            batch_size=of_policy["batch_size"],
            shuffle=True,
            drop_last=True,
            num_workers=num_workers,
            persistent_workers=True,
            pin_memory=ON_GPU,
        )
        with open_run(dataset, **resized(IMAGE_SIZE), **of_policy) as run:
            ways: dict[str, Callable[[], object]] = {
                "ours": lambda run=run: one_step(run),  # type: ignore[misc]
                "theirs": bare_loop(run, forever(loader), of_policy["policy_args"]),
            }
            calls, skip = max(1, options.steps // 4), 2 if options.small else 8
            took = medians(ways, turns=max(1, options.turns // 5), calls=calls, skip=skip)
        yield {
            **about,
            "against": f"DataLoader of {num_workers} processes, sample by sample",
            "images": f"{IMAGE_SIZE[1]}x{IMAGE_SIZE[0]}",
            "ours_samples_s": of_policy["batch_size"] / statistics.median(took["ours"]),
            "baseline_samples_s": of_policy["batch_size"] / statistics.median(took["theirs"]),
            "ratio": ratio(took, "theirs", "ours"),
        }


def forever(loader: torch.utils.data.DataLoader[Any]) -> Iterator[Batch]:
    while True:
        yield from loader


def bench_busy(dataset: Path, options: argparse.Namespace) -> Iterator[Line]:
    """Measure the share of the time in which the GPU runs a kernel, by torch's profiler."""
    if not ON_GPU:
        return
    for about, of_policy in sizes(options):
        with open_run(dataset, **resized(IMAGE_SIZE), **of_policy) as run:
            for _ in range(options.steps):
                one_step(run)
            settle()
            with profile(activities=[ProfilerActivity.CUDA]) as profiled:
                for _ in range(10):
                    one_step(run)
                settle()
        spans = sorted(
            (event.time_range.start, event.time_range.end)
            for event in profiled.events()
            if event.device_type == torch.autograd.DeviceType.CUDA
        )
        busy, reached = 0.0, spans[0][0]
        for begin, end in spans:
            busy += max(0.0, end - max(begin, reached))
            reached = max(reached, end)
        yield {**about, "share": busy / (reached - spans[0][0]), "target": 0.98}


CASES = {"overhead": bench_overhead, "data": bench_data, "loader": bench_loader, "busy": bench_busy}


if __name__ == "__main__":
    main()
