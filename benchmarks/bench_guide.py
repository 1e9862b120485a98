"""Measures each promise of the guide that this project grew from: with it against without it, in the same process.

One JSON line a figure. ``guide_table.py --write`` puts the newest line of each figure into docs/guide-claims.md. What a
machine cannot measure (no GPU, no library) has no line. Ways are measured in turns, and a ratio is their median.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import math
import os
import statistics
import tempfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from bench_train import IMAGE_SIZE, ON_GPU, OVERHEAD_SIZE, PerSample, bare_loop, forever, resized
from train_cases import (
    DEVICE,
    POLICIES,
    Line,
    demo_dataset,
    in_memory,
    medians,
    one_step,
    open_run,
    report,
    settle,
)

import vlapipe
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.images.camera_reader import ImageReader
from vlapipe.train.optim.precision import attention_kernel, autocast
from vlapipe.train.policies.base import blocks_of
from vlapipe.train.run import Run

Step = Callable[[], object]
SMALL = {"dim": 32, "depth": 1, "num_heads": 2, "image_width": 8, "num_word_buckets": 64}


class Settings(argparse.Namespace):
    """``policy`` holds the options of a run; ``turns`` and ``calls`` say how often its step is measured."""

    dataset: Path
    raw: Path
    turns: int
    calls: int
    small: bool

    @property
    def policy(self) -> Line:
        """A policy whose step takes a second or so: of 150 million parameters on a GPU, of 1 million on a CPU."""
        size = resized(IMAGE_SIZE if ON_GPU else OVERHEAD_SIZE)
        if self.small:
            return {"policy_args": SMALL, "batch_size": 4, **size}
        return {"policy_args": POLICIES[150 if ON_GPU else 1], "batch_size": 32 if ON_GPU else 16, **size}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--calls", type=int, default=10 if ON_GPU else 1, help="steps in a turn")
    parser.add_argument("--episodes", type=int, default=24, help="of the demo, which is the data")
    parser.add_argument("--small", action="store_true", help="tiny policies, to see that it runs")
    parser.add_argument("--folder", type=Path, help="keep the data here; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="also append the lines to this file")
    options = parser.parse_args(namespace=Settings())
    with tempfile.TemporaryDirectory(prefix="bench-guide-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        options.dataset = demo_dataset(folder, options.episodes)
        options.raw = folder / f"demo-{options.episodes}"
        for case in options.cases.split(","):
            for line in CASES[case](options):
                report("guide", case, line, options.out)
            gc.collect()


def compared(
    figure: str, unit: str, ours: list[float], baseline: list[float], *, ways: str, scale: float = 1.0
) -> Line:
    """Return a line: the medians with and without, and the median of the turns' ratios; ``ways`` names both."""
    return {
        "figure": figure,
        "ways": ways,
        "unit": unit,
        "ours": scale * statistics.median(ours),
        "baseline": scale * statistics.median(baseline),
        "ratio": statistics.median(a / b for a, b in zip(ours, baseline, strict=True)),
    }


def steps_of(settings: Settings, ours: Step, baseline: Step, *, ways: str, skip: int = 0) -> Line:
    """Compare the time of a step of two runs."""
    medians({"ours": ours, "baseline": baseline}, turns=1, calls=3)
    both = medians({"ours": ours, "baseline": baseline}, turns=settings.turns, calls=settings.calls, skip=skip)
    return compared("time of a step", "ms", both["ours"], both["baseline"], ways=ways, scale=1e3)


def bytes_of_step(run: Run) -> float:
    """Return the bytes of a step beyond the weights: the peak on a GPU; on a CPU, what a pass keeps for backward."""
    if ON_GPU:
        one_step(run)
        settle()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        one_step(run)
        settle()
        return float(torch.cuda.max_memory_allocated() - before)
    weights = {tensor.untyped_storage().data_ptr() for tensor in run.policy.state_dict().values()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: Any) -> Any:
        if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in weights:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes(), tensor  # the tensor, so that its address stays taken
        return tensor

    # Blocks that are recomputed keep their inputs without saving them as tensors of backward.
    hooks = [
        block.register_forward_pre_hook(lambda _, inputs: (keep(inputs[0]), None)[1]) for block in blocks_of(run.policy)
    ]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast(run.precision, DEVICE):
        run.module(next(run.batches))
    for hook in hooks:
        hook.remove()
    return float(sum(size for size, _ in kept.values()))


def memory_of(ours: Run, baseline: Run, *, ways: str) -> Line:
    """Compare the memory of a step of two runs."""
    name = "memory of a step, at most" if ON_GPU else "activations that backward keeps"
    return compared(name, "MB", [bytes_of_step(ours)], [bytes_of_step(baseline)], ways=ways, scale=1e-6)


@contextlib.contextmanager
def two_runs(settings: Settings, ours: Line, baseline: Line) -> Iterator[tuple[Run, Run]]:
    """Yield two runs that have batches in memory."""
    with (
        open_run(settings.dataset, num_workers=0, **(settings.policy | ours)) as first,
        open_run(settings.dataset, num_workers=0, **(settings.policy | baseline)) as second,
    ):
        in_memory(first)
        in_memory(second)
        yield first, second


def within(context: Callable[[], contextlib.AbstractContextManager[object]], run: Run) -> Step:
    """Return a step of ``run`` under a setting that holds for the whole process."""

    def step() -> None:
        with context():
            one_step(run)

    return step


def bytes_after(way: Step) -> float:
    """Return the memory that Python and NumPy hold after ``way``; files that are mapped are not counted."""
    tracemalloc.start()
    way()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return float(held)


def raw_episodes(settings: Settings) -> list[Path]:
    return sorted(path.parent for path in settings.raw.rglob("robot_states.csv"))


def read_raw(episode: Path) -> list[Any]:
    """Read an episode's states and sensors into memory, as a dataset class without shards does at its start."""
    return [pd.read_csv(episode / "robot_states.csv"), *dict(np.load(next(episode.glob("sensor_data*.npz")))).values()]


def bench_start(settings: Settings) -> Iterator[Line]:
    """Until the first batch can be asked for: the manifest, or every episode into memory."""
    held: list[Any] = []

    def baseline() -> None:
        held[:] = [read_raw(episode) for episode in raw_episodes(settings)]

    def ours() -> None:
        held[:] = [vlapipe.Loader(vlapipe.open_dataset(settings.dataset), batch_size=16, num_workers=0)]

    took = medians({"ours": ours, "baseline": baseline}, turns=settings.turns)
    ways = "opening the dataset against reading all states and sensors first"
    yield compared("time to start", "ms", took["ours"], took["baseline"], ways=ways, scale=1e3)
    memory = {}
    for way in (ours, baseline):
        held.clear()
        gc.collect()
        memory[way] = bytes_after(way)
    yield compared("memory after it", "MB", [memory[ours]], [memory[baseline]], ways=ways, scale=1e-6)


def bench_prefetch(settings: Settings) -> Iterator[Line]:
    """Steps of a real run with images, by the number of batches that are prepared ahead."""
    small = {"batch_size": 4, "policy_args": SMALL}
    of_policy = settings.policy | resized(IMAGE_SIZE) | ({} if ON_GPU or settings.small else small)
    with contextlib.ExitStack() as stack:
        runs = {
            name: stack.enter_context(open_run(settings.dataset, **of_policy, **options))
            for name, options in (
                ("0", {"num_workers": 0}),
                ("4", {"prefetch_factor": 4}),
                ("6", {"prefetch_factor": 6}),
            )
        }
        steps: dict[str, Step] = {name: partial(one_step, run) for name, run in runs.items()}
        calls = 4 if settings.small else 20
        medians(steps, turns=1, calls=calls)  # the loader finds out how many threads it takes
        took = medians(steps, turns=max(2, settings.turns // 2), calls=calls, skip=8)
    for name, against in (("4", "0"), ("6", "0"), ("6", "4")):
        ways = f"{name} batches ahead against {against}"
        yield compared("time of a step", "ms", took[name], took[against], ways=ways, scale=1e3)


def bench_pinned(settings: Settings) -> Iterator[Line]:
    """Copies of a batch of images to the GPU."""
    if not ON_GPU:
        return
    pageable = torch.randint(0, 255, (32, 2, 3, *IMAGE_SIZE), dtype=torch.uint8)
    pinned = pageable.pin_memory()
    took = medians(
        {"ours": lambda: pinned.to(DEVICE, non_blocking=True), "baseline": lambda: pageable.to(DEVICE)},
        turns=settings.turns,
        calls=50,
    )
    ways = "pinned memory against pageable"
    yield compared("time of a copy of 64 images", "ms", took["ours"], took["baseline"], ways=ways, scale=1e3)


def bench_cudnn(settings: Settings) -> Iterator[Line]:
    """Convolutions at a fixed size."""
    if not ON_GPU:
        return
    with two_runs(settings, {}, {}) as (ours, baseline):
        yield steps_of(
            settings,
            within(lambda: torch.backends.cudnn.flags(benchmark=True), ours),
            within(lambda: torch.backends.cudnn.flags(benchmark=False), baseline),
            ways="cuDNN autotuning against its first choice",
        )


def bench_bf16(settings: Settings) -> Iterator[Line]:
    """Precision. On a CPU the size of the policy decides: small layers cost more to convert than they gain."""
    sizes = () if ON_GPU or settings.small else (1, 20)
    named = {f", {millions} million parameters": {"policy_args": POLICIES[millions]} for millions in sizes} or {"": {}}
    for name, policy in named.items():
        with two_runs(settings, policy | {"precision": "bf16"}, policy | {"precision": "fp32"}) as (ours, baseline):
            ways = f"bf16 against fp32{name}"
            yield steps_of(settings, partial(one_step, ours), partial(one_step, baseline), ways=ways)
            yield memory_of(ours, baseline, ways=ways)


def bench_csv(settings: Settings) -> Iterator[Line]:
    """The robot's states: from CSV, and from the dataset."""
    files = [episode / "robot_states.csv" for episode in raw_episodes(settings)]
    dataset = vlapipe.open_dataset(settings.dataset)
    names = ("robot/joint_position", "robot/tcp_pose", "robot/timestamp")

    def ours() -> None:
        for i in range(len(files)):
            episode = dataset.episode(i)
            for name in names:
                np.array(episode[name])

    def baseline() -> None:
        for file in files:
            pd.read_csv(file).to_numpy()

    took = medians({"ours": ours, "baseline": baseline}, turns=settings.turns)
    ways = "shards against CSV, read by pandas"
    yield compared("time to load robot_states", "ms", took["ours"], took["baseline"], ways=ways, scale=1e3)
    stored = sum(
        member.compress_size
        for shard in (settings.dataset / "shards").iterdir()
        for member in zipfile.ZipFile(shard).infolist()
        if member.filename.startswith("robot/")
    )
    written = sum(file.stat().st_size for file in files)
    yield compared(
        "size of robot_states", "MB", [float(stored)], [float(written)], ways="shards against CSV", scale=1e-6
    )


def bench_compile(settings: Settings) -> Iterator[Line]:
    """torch.compile, after its first steps."""
    for mode in ("default", "max-autotune") if ON_GPU else ("default",):
        try:
            with two_runs(settings, {"compile": mode}, {}) as (ours, baseline):
                began = time.perf_counter()
                one_step(ours)
                settle()
                first_s = time.perf_counter() - began
                ways = f"--compile {mode} against without"
                line = steps_of(settings, partial(one_step, ours), partial(one_step, baseline), ways=ways)
                yield {**line, "first_step_s": first_s}
        except UsageError as error:
            print(error)  # no compiler on this machine


def bench_checkpointing(settings: Settings) -> Iterator[Line]:
    """Activations that are computed again in backward."""
    with two_runs(settings, {"gradient_checkpointing": True}, {}) as (ours, baseline):
        ways = "--gradient-checkpointing against without"
        yield memory_of(ours, baseline, ways=ways)
        yield steps_of(settings, partial(one_step, ours), partial(one_step, baseline), ways=ways)


def bench_attention(settings: Settings) -> Iterator[Line]:
    """Attention kernels: a layer of 16 heads alone, and the whole step."""
    bf16 = {"precision": "bf16"} if ON_GPU else {}
    with two_runs(settings, bf16, bf16) as (ours, baseline):
        kernel = partial(attention_kernel, precision=ours.precision, device=DEVICE)
        flash, plain = (within(partial(kernel, kind), run) for kind, run in (("flash", ours), ("math", baseline)))
        yield steps_of(settings, flash, plain, ways="flash against math attention")
    num_tokens = 64 if settings.small else 1024
    q, k, v = (torch.randn(8 if ON_GPU else 1, 16, num_tokens, 64, device=DEVICE, requires_grad=True) for _ in range(3))
    if ON_GPU:
        q, k, v = (x.detach().bfloat16().requires_grad_() for x in (q, k, v))

    def attend(kind: str) -> None:
        with attention_kernel(kind, precision="bf16" if ON_GPU else "fp32", device=DEVICE):
            torch.nn.functional.scaled_dot_product_attention(q, k, v).sum().backward()

    took = medians(
        {"ours": partial(attend, "flash"), "baseline": partial(attend, "math")},
        turns=settings.turns,
        calls=settings.calls,
    )
    ways = "flash against math attention"
    yield compared(
        f"time of a layer of {num_tokens} tokens", "ms", took["ours"], took["baseline"], ways=ways, scale=1e3
    )


def bench_jpeg(settings: Settings) -> Iterator[Line]:
    """JPEG decoding to the training size: by this machine's threads, by one, and by the GPU if a library is at hand."""
    files = sorted(settings.raw.rglob("*.jpg"))[:64]
    jpegs = [np.fromfile(file, dtype=np.uint8) for file in files]
    num_threads = os.cpu_count() or 1
    parts = [jpegs[i::num_threads] for i in range(num_threads)]
    readers = [ImageReader(IMAGE_SIZE) for _ in parts]
    outs = [np.empty((len(part), *IMAGE_SIZE, 3), dtype=np.uint8) for part in parts]
    out = np.empty((len(jpegs), *IMAGE_SIZE, 3), dtype=np.uint8)
    with ThreadPoolExecutor(num_threads) as pool:
        ways: dict[str, Step] = {
            "threads": lambda: list(
                pool.map(lambda job: job[0].read(job[1], job[2]), zip(readers, parts, outs, strict=True))
            ),
            "one": lambda: readers[0].read(jpegs, out),
        }
        if on_gpu := gpu_decoder(jpegs):
            ways["gpu"] = on_gpu
        took = {
            name: [each / len(jpegs) for each in times] for name, times in medians(ways, turns=settings.turns).items()
        }
    figure = "time of an image, 640x480 to 224x224"
    compare = partial(compared, figure, "us", scale=1e6)
    yield compare(took["threads"], took["one"], ways=f"{num_threads} threads against one")
    if on_gpu:
        yield compare(took["gpu"], took["threads"], ways=f"the GPU (nvImageCodec) against {num_threads} threads")


def gpu_decoder(jpegs: list[Any]) -> Step | None:
    """Return a function that decodes on the GPU and resizes there; None without a GPU or without the library."""
    if not ON_GPU:
        return None
    try:
        from nvidia import nvimgcodec  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    decoder, data = nvimgcodec.Decoder(), [jpeg.tobytes() for jpeg in jpegs]

    def decode() -> None:
        for image in decoder.decode(data):
            pixels = torch.as_tensor(image, device=DEVICE).permute(2, 0, 1)[None].float()
            torch.nn.functional.interpolate(pixels, size=IMAGE_SIZE, mode="bilinear", antialias=True)

    return decode


def bench_accumulation(settings: Settings) -> Iterator[Line]:
    """The same samples of a step in one pass or in four."""
    batch_size = settings.policy["batch_size"]
    four = {"batch_size": batch_size // 4, "grad_accum": 4}
    with two_runs(settings, four, {}) as (ours, baseline):
        ways = f"{batch_size // 4} samples x 4 passes against {batch_size} x 1"
        yield memory_of(ours, baseline, ways=ways)
        yield steps_of(settings, partial(one_step, ours), partial(one_step, baseline), ways=ways)


def bench_all(settings: Settings) -> Iterator[Line]:
    """All of it at once, against a loop that has none of it and reads the same frames one by one."""
    of_policy = settings.policy | resized(IMAGE_SIZE)
    frames = PerSample(vlapipe.torch_dataset(vlapipe.open_dataset(settings.dataset), image_size=IMAGE_SIZE))
    loader: Any = torch.utils.data.DataLoader(frames, batch_size=of_policy["batch_size"], shuffle=True, drop_last=True)
    with (
        open_run(settings.dataset, **of_policy) as ours,
        open_run(settings.dataset, num_workers=0, **(of_policy | {"precision": "fp32"})) as plain,
    ):
        bare = bare_loop(plain, forever(loader), of_policy["policy_args"])

        def baseline() -> None:
            kernel = attention_kernel("math", precision="fp32", device=DEVICE)
            with kernel, torch.backends.cudnn.flags(benchmark=False):
                bare()

        yield steps_of(settings, partial(one_step, ours), baseline, ways="all of them against none", skip=4)


def bench_batch(settings: Settings) -> Iterator[Line]:
    """What a sample takes: in a batch as the loader makes it, and in a step of the policy."""
    from vlapipe.train.data.batch_layout import sample_bytes

    size = settings.policy["batch_size"]
    with two_runs(settings, {}, {"batch_size": size // 2}) as (whole, half):
        in_batch = float(sample_bytes(whole.loader.spec))
        in_step = (bytes_of_step(whole) - bytes_of_step(half)) / (size - size // 2)
    yield {"figure": "bytes of a sample in a batch", "unit": "MB", "ours": in_batch / 1e6}
    yield {"figure": "bytes of a sample in a step", "unit": "MB", "ours": in_step / 1e6}
    if ON_GPU and in_step > 0:
        free_bytes = torch.cuda.mem_get_info()[0]
        fits = 2 ** math.floor(math.log2(max(1.0, 0.9 * free_bytes / in_step)))
        yield {"figure": "samples that fit into this GPU, at most", "unit": "", "ours": float(fits)}


CASES: dict[str, Callable[[Settings], Iterator[Line]]] = {
    "start": bench_start,
    "prefetch": bench_prefetch,
    "pinned": bench_pinned,
    "cudnn": bench_cudnn,
    "bf16": bench_bf16,
    "csv": bench_csv,
    "compile": bench_compile,
    "checkpointing": bench_checkpointing,
    "attention": bench_attention,
    "jpeg": bench_jpeg,
    "accumulation": bench_accumulation,
    "all": bench_all,
    "batch": bench_batch,
}


if __name__ == "__main__":
    main()
