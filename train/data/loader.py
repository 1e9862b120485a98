"""Reads batches of windows from datasets in an exactly resumable order; threads prepare the batches ahead.

Shape letters: B batch, T rows of a window, H action horizon, A action size, D state size.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice, pairwise
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.ordered_map import InOrder
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.arguments import parse_whole_number
from vlapipe.train.data.batch_layout import Batch, SampleSpec, require_memory, sample_bytes
from vlapipe.train.data.batch_maker import BatchMaker
from vlapipe.train.data.description import describe
from vlapipe.train.data.device_copy import SideCopy
from vlapipe.train.data.fetch_ahead import FetchAhead
from vlapipe.train.data.images.augment import Augmentation
from vlapipe.train.data.joining.dataset_names import short_names
from vlapipe.train.data.ordering.order import Order, Part, Sequential
from vlapipe.train.data.ordering.rank_batches import RankPart, Steps, steps
from vlapipe.train.data.ordering.sampling_options import Ordering, Weights, digest_number
from vlapipe.train.data.prefetch import Pace, ahead, threads_at_most
from vlapipe.train.data.selection import Selection
from vlapipe.train.data.transformed_spec import transformed_spec
from vlapipe.train.data.transforms import Transform, Transforms
from vlapipe.train.data.window_size import Window

__all__ = ["Batch", "DatasetPart", "Loader"]

_Made = tuple[list[int], list[tuple[Batch, torch.cuda.Event | None]]]  # each step's end position, and its batch
_STATE_VERSION = 2
_AT_ONCE_BYTES = 4_000_000  # limit on small batches made together: enough to be worth it, and fits the CPU's cache
_AHEAD_BYTES = 8_000_000  # limit on all batches in the making, so that memory does not grow with the number of threads


@dataclass(frozen=True, kw_only=True)
class DatasetPart:
    """One dataset's part of a loader's frames: ``num_frames`` frames of the split from number ``first`` on.

    ``first_episode`` is the ``episode_index`` of its first episode. ``share`` is its share of the samples of an epoch,
    and ``repeats`` is how often an epoch draws a frame of it on average.
    """

    name: str
    first_episode: int
    first: int
    num_frames: int
    share: float
    repeats: float


class Loader:
    """Gives batches of training samples. A batch is a dict with these keys.

    ``observation.state`` (B, T, D) float32; ``observation.images.<camera>`` (B, T, 3, height, width) uint8, red, green
    and blue, channels-last in memory; ``observation.sensors.<name>`` (B, T, ...) float32; ``action`` (B, H, A) float32
    in the schema's units. Each of these has a bool tensor ``..._is_pad`` of its first two dimensions (``action_is_pad``
    for actions), which is true for rows that the episode does not have. ``task`` is a list of B instructions: the
    row's, if the schema names a column of them, else the episode's, of whose paraphrases one is drawn with ``shuffle``.
    ``episode_index``, ``frame_index`` (the anchor row) and ``index`` (the frame's number in the split) are (B,) int64.
    ``timestamp`` (B,) float64 is the frame's time in seconds since the first anchor row of its episode.

    You own the batch. Its memory is recycled only after you drop every tensor of it and every view of these tensors.

    All ranks follow one global sequence, whatever their number. Step ``k`` covers the ``B * world_size`` positions from
    ``k * B * world_size`` on, and each rank takes B of these positions.
    """

    def __init__(
        self,
        dataset: Dataset | Sequence[Dataset],
        *,
        window: Window | None = None,
        batch_size: int = 64,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int | None = None,
        prefetch_factor: int = 6,
        shuffle: bool = True,
        shuffle_shards: int | None = None,
        weights: Weights | None = None,
        mix: Mapping[str, float] | None = None,
        split: str | None = "train",
        where: str | None = None,
        embodiments: str = "same",
        image_size: tuple[int, int] | str | None = None,
        image_resize: str = "stretch",
        augmentation: Augmentation | None = None,
        transforms: Sequence[str | Transform] = (),
        endless: bool = False,
        pin_memory: bool = False,
        device: torch.device | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare to read; no batch is read yet.

        Args:
            dataset: from ``open_dataset``; or several, whose samples mean the same (fields, rates, actions). Units and
                grippers that the schemas declare are converted to those of the first; see ``compare_datasets``.
            window: what a sample holds; the schema's default holds for everything that is ``None``.
            batch_size: B, the samples of a batch on this rank.
            seed: determines the order of frames and the augmentation.
            rank: number of this process, from 0.
            world_size: number of processes that divide the sequence among them.
            num_workers: threads that prepare batches. With 0, each batch is prepared when it is asked for. With
                ``None``, the loader starts with one thread and adds more while training waits and they help.
            prefetch_factor: batches kept ready ahead by all threads together; at least one more than there are threads.
                Small batches are made several at a time, up to 4 MB.
            shuffle: draw frames in a different random order each epoch; otherwise in the recorded order.
            shuffle_shards: mix the frames of this many shards at a time, and shuffle the shards; ``None`` mixes all
                frames. Use it for data larger than memory: an epoch then reads each shard once.
            weights: how often episodes are drawn, relative to their frames: ``{"task": {"pick": 2.0}}``, also by
                ``"episode"``, ``"dataset"`` (its path) and ``"metadata.<key>"`` (the value as text). The factors of an
                episode multiply; without any, it has 1.
            mix: each dataset's share of the samples, whatever the datasets' sizes: ``{"lab": 0.7, "field": 0.3}``, by
                the dataset's path or the end of it. The weights of tasks and episodes then act inside a dataset.
            split: ``"train"``, ``"val"``, or ``None`` for every episode.
            where: an expression over metadata and columns of the episodes table, such as ``'operator != "test"'``; only
                episodes of which it is true are read. Statistics are still those of the whole train split.
            embodiments: ``"same"``: the datasets are of one robot. ``"pad"``: state and action are padded with zeros to
                those of the largest robot, and each robot has its own statistics; see ``Embodiment``. A batch then has
                ``embodiment`` (B,) int64, the robot's number in ``spec.embodiments``, and the bool tensors
                ``observation.state_dim_is_pad`` (B, D) and ``action_dim_is_pad`` (B, A).
            image_size: (height, width) to resize to, or the text ``WIDTHxHEIGHT``. ``None`` keeps the recorded size;
                each camera must then have one size in all episodes.
            image_resize: ``"stretch"`` the image to that size; or keep its proportions, and ``"crop"`` what is too high
                or too wide, or ``"pad"`` with black.
            augmentation: how images are varied, by seed and position in the sequence; ``None`` varies nothing.
            transforms: functions that are called one after the other with each batch, in the loader's threads, after
                all else; each takes a dict and returns one. Or their names, ``pkg.module:function``.
            endless: go on to the next epoch with batches of full size, instead of ending after one epoch.
            pin_memory: put batches into page-locked memory, for asynchronous copies to a GPU.
            device: a GPU that each batch is copied to as soon as it is made, while the GPU computes.
            say: is called with one sentence that says how many threads were chosen, and with one for each warning
                about the datasets; without it, these are Python's warnings.

        Raises:
            UsageError: an argument cannot be used with this data.
        """
        chosen: dict[str, Any] = {"window": window, "split": split, "where": where, "embodiments": embodiments}
        selection = Selection.parse("Loader", dataset, image_size=image_size, image_resize=image_resize, **chosen)
        self._sources, self._frames = selection.sources, selection.frames
        self.comparison = selection.comparison  # what differs between the datasets, and what is converted
        for warning in self.comparison.warnings:
            (say or partial(warnings.warn, stacklevel=2))(warning)
        self.dataset, self.spec = self._sources.first, selection.spec
        self.transforms = Transforms.parse("Loader transforms", transforms) if transforms else None
        self.batch_size = parse_whole_number("Loader batch_size", batch_size, least=1)
        self._seed = parse_whole_number("Loader seed", seed, least=0, most=2**63 - 1)
        self.share = RankPart.parse(rank, world_size)  # ``BatchStream`` may replace it before an iteration
        self.num_workers = (  # of the next iteration; may be lowered
            None if num_workers is None else parse_whole_number("Loader num_workers", num_workers, least=0)
        )
        self._prefetch_factor = parse_whole_number("Loader prefetch_factor", prefetch_factor, least=1)
        self._endless, self._say = endless, say
        self._where = {} if where is None else {"where": digest_number(where)}
        require_memory("Loader", self.spec, self.batch_size)
        paths = [dataset.path for dataset in self._sources.datasets]
        self._ordering = Ordering.parse("Loader", shuffle, shuffle_shards, weights, mix, paths)
        self._order = self._ordering.make(self._sources, self._frames, self._seed)
        threads = threads_at_most() if self.num_workers is None else self.num_workers
        at_once_bytes = min(_AT_ONCE_BYTES, _AHEAD_BYTES // (threads + 1))
        self._at_once = max(1, at_once_bytes // (self.batch_size * sample_bytes(self.spec)))
        self._depth = -(-self._prefetch_factor // self._at_once)
        self._most_ahead = max(self._depth, threads + 1)
        self._maker = BatchMaker(
            self._sources,
            selection.steps,
            self.spec,
            num_samples=self.batch_size * self._at_once,
            num_kept=self._most_ahead + 2,  # the user has one batch, and receives the next
            pinned=pin_memory or (device is not None and device.type == "cuda"),
            augmentation=augmentation,
            seed=self._seed,
            draw_by="position" if shuffle else None,
            most_open=self._ordering.most_open,
            transforms=self.transforms,
        )
        self.read_spec = self.spec  # of the samples before the transforms
        if self.transforms is not None:
            self.spec = transformed_spec(self.transforms, self._sources, selection.steps, self.spec)
        self.preprocessor: Callable[[Batch], Batch] | None = None  # of the policy; called in the threads, on each batch
        self._side_copy = SideCopy(device)
        self._fetching: FetchAhead | None = None  # of the newest iteration, if shards lie in stores
        self._position = 0  # global samples handed out so far, over all epochs and ranks

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The datasets that the loader reads."""
        return self._sources.datasets

    @property
    def num_frames(self) -> int:
        """Number of the split's frames whose windows cross no gap; 0 if the split has no episode."""
        return self._frames.num_frames

    @property
    def num_episodes(self) -> int:
        """Number of episodes that these frames belong to."""
        return len(np.unique(self._frames.episode))

    @cached_property
    def parts(self) -> tuple[DatasetPart, ...]:
        """Each dataset's part of the frames and of the samples. Its name is the end of its path."""
        firsts = self._frames.first_frames(self._sources.first_episode)
        shares = self._ordering.shares(self._sources, self._frames).tolist()
        names = short_names([dataset.path for dataset in self.datasets])
        return tuple(
            DatasetPart(
                name=names[i],
                first_episode=int(self._sources.first_episode[i]),
                first=first,
                num_frames=stop - first,
                share=shares[i],
                repeats=shares[i] * self._order.num_positions / max(1, stop - first),
            )
            for i, (first, stop) in enumerate(pairwise(firsts))
        )

    @property
    def is_settled(self) -> bool:
        """Whether the time of a batch is representative: no shard is being unpacked or fetched in the background."""
        return self._maker.is_settled and not (self._fetching is not None and self._fetching.is_busy)

    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The ``episode_index`` (F,) and the ``frame_index`` (F,) of the split's frames, in recorded order."""
        numbers = np.arange(self.num_frames)
        plan = self._frames.plan(numbers, numbers)
        return plan.episode, plan.row

    @property
    def num_left_out(self) -> int:
        """Number of the split's frames that are never drawn: a window would cross a gap longer than ``max_gap_s``."""
        return self._frames.num_left_out

    @cached_property
    def instructions(self) -> list[str]:
        """The instructions of the episodes that are read, each once; not those of single rows."""
        return self._maker.instructions.distinct(np.unique(self._frames.episode))

    def described(self, spec: SampleSpec) -> SampleSpec:
        """Returns one of the loader's specs with names, units, rates and instructions, for a user of the policy."""
        found = describe(self.datasets, self._sources.robots_of_datasets, self.instructions)
        return replace(spec, description=found)

    def __len__(self) -> int:
        """Number of this rank's batches in an epoch."""
        return self._num_batches(self._order.num_positions)

    @property
    def num_ahead(self) -> int:
        """The most batches that threads may have made before they are asked for."""
        return self._most_ahead * self._at_once

    def _num_batches(self, num_samples: int) -> int:
        """Number of this rank's batches, if ``num_samples`` of all ranks are left in the epoch."""
        full, rest = divmod(num_samples, self.batch_size * self.share.world_size)
        return full + (self.share.rank < rest)

    def __iter__(self) -> Iterator[Batch]:
        """Iterate from the loader's position to the end of the epoch, or forever if ``endless``.

        Without ``endless``, the epoch's last batch may be short, and some ranks may have no last batch.
        """
        fetching = None
        if not self._sources.are_here:
            sources, shards = self._sources, self._shards_to_come()
            fetching = FetchAhead(shards, sources.fetch, sources.stored_bytes, sources.ahead_bytes)
        self._fetching = fetching
        return self._iterate(self._steps(), moves=True, fetching=fetching)

    def every_other(self, first: int, every: int) -> Iterator[Batch]:
        """Iterate over batch ``first`` from the loader's position, then every ``every``-th; the position stays."""
        return self._iterate(islice(self._steps(at_once=1), first, None, every), moves=False)

    def at_steps(self, numbers: Sequence[int], part: DatasetPart) -> Iterator[Batch]:
        """Iterate over the batches of these steps through a dataset's frames in recorded order; the position stays.

        A short last batch gets its full size, on every rank: the dataset's last frame is repeated, with all of its
        actions marked as padding.
        """
        wanted = set(numbers)
        order = Part(Sequential(self.num_frames), part.first, part.num_frames)
        all_steps = steps(order, 0, self.batch_size, self.share, at_once=1, endless=False)
        chosen = (step for number, step in enumerate(all_steps) if number in wanted)
        return self._iterate(islice(chosen, len(wanted)), moves=False, make=partial(self._make_full, order))

    def _iterate(
        self,
        work: Iterator[Steps],
        *,
        moves: bool,
        make: Callable[[Steps], _Made] | None = None,
        fetching: FetchAhead | None = None,
    ) -> _Iteration:
        finds_out = self.num_workers is None
        pace = Pace(threads_at_most(), self._say, lambda: self.is_settled) if finds_out else None
        num_threads = 1 if self.num_workers is None else self.num_workers
        make = make or self._make
        if fetching is not None:
            make = partial(self._make_of_fetched, make, fetching)
        made = ahead(work, make, num_threads=num_threads, depth=self._depth, pace=pace)
        return _Iteration(made, self._batches(made, moves), fetching)

    def _shards_to_come(self) -> Iterator[int]:
        """Yield the shards of the rest of this epoch in the order in which they are needed, each once."""
        seen: set[int] = set()
        for of_steps in self._steps(endless=False):
            shards = dict.fromkeys(self._shards_of(of_steps))
            yield from (shard for shard in shards if shard not in seen)
            seen |= shards.keys()

    def _make_of_fetched(self, make: Callable[[Steps], _Made], fetching: FetchAhead, of_steps: Steps) -> _Made:
        if fetching.is_busy:  # else nothing is left to fetch
            fetching.use(self._shards_of(of_steps))
        return make(of_steps)

    def _shards_of(self, of_steps: Steps) -> list[int]:
        if not len(of_steps.frames):
            return []
        shards: list[int] = self._frames.plan(of_steps.frames, of_steps.positions).shard.tolist()
        return shards

    def _batches(self, made: Iterator[_Made], moves: bool) -> Iterator[Batch]:
        """Give the batches in order; if ``moves``, set the loader's position to the end of each step as it is taken."""
        for ends, batches in made:
            if moves and not batches:  # this rank's part of the step is empty, but all ranks must agree on the position
                self._position = ends[-1]
            for end, (batch, arrived) in zip(ends, batches, strict=False):
                self._side_copy.finish(batch, arrived)
                if moves:
                    self._position = end
                yield batch

    def _steps(self, at_once: int | None = None, endless: bool | None = None) -> Iterator[Steps]:
        if self._order.num_positions:
            yield from steps(
                self._order,
                self._position,
                self.batch_size,
                self.share,
                at_once=at_once or self._at_once,
                endless=self._endless if endless is None else endless,
            )

    def _make(self, of_steps: Steps) -> _Made:
        if not len(of_steps.frames):
            return of_steps.ends, []
        frames = self._frames.plan(of_steps.frames, of_steps.positions)
        batches = self._maker.make(frames, len(of_steps.ends))
        if self.preprocessor is not None:
            batches = [self.preprocessor(batch) for batch in batches]
        return of_steps.ends, [self._side_copy.begin(batch) for batch in batches]

    def _make_full(self, order: Order, of_steps: Steps) -> _Made:
        num_frames = len(of_steps.frames)
        missing = self.batch_size - num_frames
        if missing <= 0:
            return self._make(of_steps)
        last = np.full(missing, of_steps.ends[-1] - 1)
        filled = replace(
            of_steps,
            frames=np.concatenate([of_steps.frames, order.frames(last)]),
            positions=np.concatenate([of_steps.positions, last]),
        )
        ends, batches = self._make(filled)
        for batch, arrived in batches:
            self._side_copy.finish(batch, arrived)
            batch["action_is_pad"][num_frames:] = True
        return ends, [(batch, None) for batch, _ in batches]

    def state_dict(self) -> dict[str, int]:
        """The loader's position, as plain integers; the same on every rank and for any number of ranks."""
        return self._state_at(self._position)

    def state_after(self, num_batches: int) -> dict[str, int]:
        """The loader's state after ``num_batches`` more batches of this rank, over any number of epochs."""
        per_epoch = max(1, self._order.num_positions)
        per_step = self.batch_size * self.share.world_size
        if self._endless:
            return self._state_at(self._position + num_batches * per_step)
        epoch_end = (self._position // per_epoch + 1) * per_epoch
        to_end = self._num_batches(epoch_end - self._position)
        if num_batches < to_end:
            return self._state_at(self._position + num_batches * per_step)
        epochs, rest = divmod(num_batches - to_end, max(1, self._num_batches(per_epoch)))
        return self._state_at(epoch_end + epochs * per_epoch + rest * per_step)

    def _state_at(self, global_position: int) -> dict[str, int]:
        epoch, position = divmod(global_position, max(1, self._order.num_positions))
        return {
            "version": _STATE_VERSION,
            "seed": self._seed,
            "num_frames": self.num_frames,
            **self._ordering.state,
            **self._where,
            "epoch": epoch,
            "position": position,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from the state of another loader over the same split, whatever its batch size, ranks and threads.

        Raises:
            UsageError: ``state`` is not a loader's state, or its version, seed, number of frames or order differs.
        """
        if not isinstance(state, dict) or state.get("version") != _STATE_VERSION:
            found = repr(state.get("version")) if isinstance(state, dict) else f"a {type(state).__name__}"
            raise UsageError(f"loader state: expected version {_STATE_VERSION}, found {found}")
        not_said = {"where": 0, "mix": 0}  # in the state of a version that did not know them
        state, ours = {**not_said, **state}, {**not_said, **self.state_dict()}
        for name in ours:
            parse_whole_number(f"loader state: {name}", state.get(name), least=0)
            if name not in ("version", "epoch", "position") and state[name] != ours[name]:
                cure = "resume with the dataset, where, window, order and seed that it began with"
                raise UsageError(f"loader state: {name} was {state[name]}, is {ours[name]}", cure)
        self._position = state["epoch"] * max(1, self._order.num_positions) + state["position"]

    def __reduce__(self) -> Any:
        raise TypeError("a Loader cannot be pickled: send the dataset to the other process and make the Loader there")

    def close(self) -> None:
        """Do nothing: a loader holds nothing between iterations. The method lets a loader be used with ``with``."""

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Iteration(Iterator[Batch]):
    """An iterator over one pass, with the threads that prepare its batches; closing or dropping it ends the threads."""

    def __init__(self, made: InOrder[_Made], batches: Iterator[Batch], fetching: FetchAhead | None = None) -> None:
        self._made, self._batches, self._fetching, self._is_closed = made, batches, fetching, False

    def __next__(self) -> Batch:
        if self._is_closed:
            raise StopIteration
        return next(self._batches)

    def __reduce__(self) -> Any:
        raise TypeError("a Loader cannot be pickled: send the dataset to the other process and make the Loader there")

    def close(self) -> None:
        """End the threads after the batches that they are preparing; any thread may call this."""
        self._is_closed = True
        if self._fetching is not None:
            self._fetching.close()
        self._made.close()
