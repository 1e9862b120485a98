"""Reads batches of windows from a dataset in an exactly resumable order; threads prepare them ahead.

Shape letters: B batch, T rows of a window, H action horizon, A action size, D state size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
import torch

from vlapipe.pipeline.shards.actions import ACTION_VALUE, action_size
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import DamageError, UsageError
from vlapipe.train.arguments import parse_image_size, parse_whole_number, refuse_unknown_split, require_memory
from vlapipe.train.frames import BatchPlan, FrameIndex
from vlapipe.train.gather import Gatherer
from vlapipe.train.images import decode_images
from vlapipe.train.order import frames_at
from vlapipe.train.spec import Moments, SampleSpec
from vlapipe.train.window import Window

__all__ = ["Batch", "Loader"]

Batch = dict[str, Any]
_STATE_VERSION = 1


class Loader:
    """Batches of training samples, each a dict of tensors.

    ``observation.state`` (B, T, D) float32; ``observation.images.<view>`` (B, T, 3, height, width) uint8;
    ``observation.sensors.<name>`` (B, T, ...) float32; ``action`` (B, H, A) float32 in the schema's units. Each has a
    bool ``..._is_pad`` of its first two dimensions (``action_is_pad`` for actions), true for rows that the episode
    does not have. ``task`` is a list of B instructions; ``episode_index``, ``frame_index`` (the anchor row) and
    ``index`` (the frame among the split's) are (B,) int64.

    The order is one global sequence for any number of ranks: step ``k`` covers positions ``k * B * world_size`` on,
    and each rank takes its B of them.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        window: Window | None = None,
        batch_size: int = 64,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 2,
        prefetch_factor: int = 6,
        shuffle: bool = True,
        split: str | None = "train",
        image_size: tuple[int, int] | None = None,
        endless: bool = False,
        pin_memory: bool = False,
    ) -> None:
        """Prepare to read; no batch is read yet.

        Args:
            dataset: from ``open_dataset``.
            window: rows of each stream; what it leaves open is the schema's default.
            batch_size: B, of this rank.
            seed: of the order.
            rank: this process among ``world_size``.
            world_size: number of processes that share the sequence.
            num_workers: threads that prepare batches; 0 prepares each when it is asked for.
            prefetch_factor: batches kept ready ahead, in all.
            shuffle: in an order of its own each epoch, or as recorded.
            split: ``"train"``, ``"val"``, or ``None`` for every episode.
            image_size: (height, width) to resize to; ``None`` keeps the recorded size, which must then be one.
            endless: go on through epoch after epoch with batches of full size, instead of ending after one.
            pin_memory: put batches into page-locked memory, for asynchronous copies to a GPU.

        Raises:
            UsageError: an argument cannot be used with this dataset.
        """
        refuse_unknown_split("Loader split", split, dataset)
        image_size = parse_image_size("Loader image_size", image_size)
        self.dataset = dataset
        self.window = (window or Window()).resolve(dataset.schema.sample)
        self.batch_size = parse_whole_number("Loader batch_size", batch_size, least=1)
        self._seed = parse_whole_number("Loader seed", seed, least=0)
        self._shuffle, self._endless = shuffle, endless
        self._world_size = parse_whole_number("Loader world_size", world_size, least=1)
        self._rank = parse_whole_number("Loader rank", rank, least=0)
        if self._rank >= self._world_size:
            raise UsageError(f"Loader rank: expected 0 to {self._world_size - 1}, found {rank}")
        self._num_workers = parse_whole_number("Loader num_workers", num_workers, least=0)
        self._prefetch_factor = parse_whole_number("Loader prefetch_factor", prefetch_factor, least=1)
        self._pin_memory = pin_memory
        self._frames = FrameIndex(dataset, split, replace(dataset.schema.sample, **vars(self.window)))
        self._gatherer = Gatherer(dataset)
        self._image_size = _image_sizes(dataset, image_size)
        self._instructions = dataset.episodes.column("instruction")
        self._position = 0  # global samples handed out so far, over all epochs and ranks
        self.spec = _sample_spec(dataset, self.window, self._image_size)
        require_memory("Loader", self.spec, self.batch_size)

    @property
    def num_frames(self) -> int:
        """Frames of the split whose windows cross no gap; 0 if it has no episode."""
        return self._frames.num_frames

    @property
    def num_left_out(self) -> int:
        """Frames of the split that are not drawn, because a window would cross a gap longer than ``max_gap_s``."""
        return self._frames.num_left_out

    def __len__(self) -> int:
        """Batches an epoch, on this rank."""
        full, rest = divmod(self.num_frames, self.batch_size * self._world_size)
        return full + (self._rank < rest)

    def __iter__(self) -> Iterator[Batch]:
        """Batches from where the loader stands: to the end of the epoch, or for ever if ``endless``.

        Without ``endless`` the epoch's last batch may be short, and some ranks may have none.
        """
        if not self.num_frames:
            return
        with ThreadPoolExecutor(max(1, self._num_workers), thread_name_prefix="vlapipe-loader") as threads:
            ahead: deque[tuple[int, Future[Batch] | BatchPlan | None]] = deque()
            steps = self._steps(self._position)
            try:
                while True:
                    while len(ahead) < (self._prefetch_factor if self._num_workers else 1):
                        step = next(steps, None)
                        if step is None:
                            break
                        end, plan = step
                        if plan is None or not self._num_workers:
                            ahead.append((end, plan))
                        else:
                            ahead.append((end, threads.submit(self._make_batch, plan)))
                    if not ahead:
                        return
                    end, work = ahead.popleft()
                    if work is None:  # this rank has no share of the step, but stands where the others do after it
                        self._position = end
                        continue
                    batch = work.result() if isinstance(work, Future) else self._make_batch(work)
                    self._position = end
                    yield batch
            finally:
                for _, work in ahead:
                    if isinstance(work, Future):
                        work.cancel()

    def _steps(self, position: int) -> Iterator[tuple[int, BatchPlan | None]]:
        """Each step's end position and this rank's frames in it, if it has any, from a global position on."""
        per_step = self.batch_size * self._world_size
        epoch_end = (position // self.num_frames + 1) * self.num_frames
        while self._endless or position < epoch_end:
            end = position + per_step if self._endless else min(position + per_step, epoch_end)
            # A short last step is shared as evenly as it goes.
            share, rest = divmod(end - position, self._world_size)
            first = position + self._rank * share + min(self._rank, rest)
            count = share + (self._rank < rest)
            plan = None
            if count:
                frames = frames_at(first, count, self.num_frames, seed=self._seed, shuffle=self._shuffle)
                plan = self._frames.plan(frames)
            yield end, plan
            position = end

    def _make_batch(self, plan: BatchPlan) -> Batch:
        try:
            return self._read_batch(plan)
        except (DamageError, MemoryError):
            raise
        except Exception as error:
            episodes = sorted({self.dataset.episodes.column("id")[int(e)].as_py() for e in plan.episode})
            named = ", ".join(episodes[:4]) + (f" and {len(episodes) - 4} more" if len(episodes) > 4 else "")
            raise DamageError(f"{self.dataset.path}: a batch of {named} cannot be read: {error}") from error

    def _read_batch(self, plan: BatchPlan) -> Batch:
        batch: Batch = {}
        self._read_state(plan, batch)
        self._read_sensors(plan, batch)
        self._read_images(plan, batch)
        H, A = self.spec.action
        batch["action"] = self._empty((len(plan.row), H, A), torch.float32)
        batch["action_is_pad"] = self._empty((len(plan.row), H), torch.bool)
        self._gatherer.action_chunk(
            plan, batch["action"].numpy(), batch["action_is_pad"].numpy(), self.window.action_stride or 1
        )
        batch["task"] = self._instructions.take(plan.episode).to_pylist()
        batch["episode_index"] = torch.from_numpy(plan.episode)
        batch["frame_index"] = torch.from_numpy(plan.row)
        batch["index"] = torch.from_numpy(plan.index)
        return batch

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, pin_memory=self._pin_memory)

    def _read_state(self, plan: BatchPlan, batch: Batch) -> None:
        T, D = self.spec.state
        schema = self.dataset.schema
        rows, is_pad = self._gatherer.window(plan, schema.anchor, T)
        state = self._empty((len(plan.row), T, D), torch.float32)
        column = 0
        for path in schema.sample.state:
            width = int(np.prod(schema.field(path).shape, dtype=int))
            out = state.numpy()[:, :, column : column + width]
            self._gatherer.read(plan, path, rows, out if schema.field(path).shape else out[:, :, 0])
            column += width
        batch["observation.state"] = state
        batch["observation.state_is_pad"] = torch.from_numpy(is_pad)

    def _read_sensors(self, plan: BatchPlan, batch: Batch) -> None:
        for name, path in self.dataset.schema.sample.sensors:
            shape = self.spec.sensors[name]
            rows, is_pad = self._gatherer.window(plan, path.partition("/")[0], shape[0])
            values = self._empty((len(plan.row), *shape), torch.float32)
            self._gatherer.read(plan, path, rows, values.numpy())
            batch[f"observation.sensors.{name}"] = values
            batch[f"observation.sensors.{name}_is_pad"] = torch.from_numpy(is_pad)

    def _read_images(self, plan: BatchPlan, batch: Batch) -> None:
        for view, shape in self.spec.images.items():
            rows, is_pad = self._gatherer.window(plan, view, shape[0])
            jpegs = []
            for shard, of_sample in zip(plan.shard.tolist(), rows, strict=True):
                arrays = self.dataset.arrays(shard)
                data, offset = arrays[f"{view}/bytes"], arrays[f"{view}/offset"]
                jpegs += [data[offset[row] : offset[row + 1]] for row in of_sample]
            images = decode_images(jpegs, self._image_size[view]).view(len(plan.row), *shape)
            batch[f"observation.images.{view}"] = images.pin_memory() if self._pin_memory else images
            batch[f"observation.images.{view}_is_pad"] = torch.from_numpy(is_pad)

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands, as plain integers; the same for every rank and number of ranks."""
        frames = max(1, self.num_frames)
        return {
            "version": _STATE_VERSION,
            "seed": self._seed,
            "epoch": self._position // frames,
            "position": self._position % frames,
            "num_frames": self.num_frames,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where another loader over the same split stood, whatever its batch size, ranks and threads.

        Raises:
            UsageError: the state is of another version, seed or number of frames, or none at all.
        """
        if not isinstance(state, dict) or state.get("version") != _STATE_VERSION:
            found = repr(state.get("version")) if isinstance(state, dict) else f"a {type(state).__name__}"
            raise UsageError(f"loader state: expected version {_STATE_VERSION}, found {found}")
        for name in ("seed", "epoch", "position", "num_frames"):
            parse_whole_number(f"loader state: {name}", state.get(name), least=0)
        for name, ours in (("seed", self._seed), ("num_frames", self.num_frames)):
            if state[name] != ours:
                cure = "resume with the dataset, window and seed that it began with"
                raise UsageError(f"loader state: {name} was {state[name]}, is {ours}", cure)
        self._position = state["epoch"] * max(1, self.num_frames) + state["position"]

    def close(self) -> None:
        """Nothing is held between iterations; here so that a loader can be used like other resources."""

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _image_sizes(dataset: Dataset, chosen: tuple[int, int] | None) -> dict[str, tuple[int, int]]:
    """(height, width) of each view's images in a batch."""
    sizes: dict[str, tuple[int, int]] = {}
    for view in dataset.views:
        recorded = np.unique(np.stack([dataset.column(f"{view}/height"), dataset.column(f"{view}/width")], 1), axis=0)
        if chosen is None and len(recorded) > 1:
            found = ", ".join(f"{w}x{h}" for h, w in recorded[:4])
            raise UsageError(f"{dataset.path}: images of {view} differ in size: {found}", "choose an image size")
        sizes[view] = chosen or (int(recorded[0][0]), int(recorded[0][1]))
    return sizes


def _sample_spec(dataset: Dataset, window: Window, image_sizes: dict[str, tuple[int, int]]) -> SampleSpec:
    schema = dataset.schema
    widths = [int(np.prod(schema.field(path).shape, dtype=int)) for path in schema.sample.state]
    sensors = {name: (window.sensor_rows or 1, *schema.field(path).shape) for name, path in schema.sample.sensors}
    moments = {
        "observation.state": _moments(dataset, schema.sample.state),
        "action": _moments(dataset, (ACTION_VALUE,)),
    }
    for name, path in schema.sample.sensors:
        moments[f"observation.sensors.{name}"] = _moments(dataset, (path,))
    return SampleSpec(
        state=(window.state_rows or 1, sum(widths)),
        sensors=sensors,
        images={view: (window.image_rows or 1, 3, *size) for view, size in image_sizes.items()},
        action=(window.action_rows or 1, action_size(schema)),
        moments=moments,
    )


def _moments(dataset: Dataset, paths: tuple[str, ...]) -> Moments:
    if not dataset.stats:
        cure = "every training episode was set aside; see rejects.jsonl"
        raise UsageError(f"{dataset.path}: there is no training episode to normalize with", cure)
    mean = np.concatenate([dataset.stats[path].mean for path in paths]).astype(np.float32)
    std = np.concatenate([dataset.stats[path].std for path in paths]).astype(np.float32)
    return Moments(mean=mean, std=std)
