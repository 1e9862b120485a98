"""Reads batches of windows from datasets in an exactly resumable order; threads prepare them ahead.

Shape letters: B batch, T rows of a window, H action horizon, A action size, D state size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from types import TracebackType

import torch

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.ordered_map import InOrder
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.arguments import parse_whole_number
from vlapipe.train.data.augment import Augmentation
from vlapipe.train.data.batch_layout import Batch, require_memory, sample_bytes
from vlapipe.train.data.batch_maker import BatchMaker
from vlapipe.train.data.device_copy import SideCopy
from vlapipe.train.data.prefetch import Pace, ahead, threads_at_most
from vlapipe.train.data.rank_batches import RankPart, Steps, steps
from vlapipe.train.data.sampling_options import Ordering, Weights
from vlapipe.train.data.selection import Selection
from vlapipe.train.data.window_size import Window

__all__ = ["Batch", "Loader"]

_Made = tuple[list[int], list[tuple[Batch, torch.cuda.Event | None]]]  # a position and a batch for each step
_STATE_VERSION = 2
_AT_ONCE_BYTES = 4_000_000  # small batches that are made together: enough to be worth it, still in the CPU's cache
_AHEAD_BYTES = 8_000_000  # of all of them that are in the making, so that memory does not grow with threads


class Loader:
    """Batches of training samples, each a dict of tensors.

    ``observation.state`` (B, T, D) float32; ``observation.images.<camera>`` (B, T, 3, height, width) uint8, with the
    channels last in memory; ``observation.sensors.<name>`` (B, T, ...) float32; ``action`` (B, H, A) float32 in the
    schema's units. Each has a bool ``..._is_pad`` of its first two dimensions (``action_is_pad`` for actions), true for
    rows that the episode does not have. ``task`` is a list of B instructions; ``episode_index``, ``frame_index`` (the
    anchor row) and ``index`` (the frame among the split's) are (B,) int64.

    You own the batch: its memory is used again only after you have dropped every tensor of it, and every view of one.

    The order is one global sequence for any number of ranks: step ``k`` covers positions ``k * B * world_size`` on,
    and each rank takes its B of them.
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
        split: str | None = "train",
        image_size: tuple[int, int] | None = None,
        augmentation: Augmentation | None = None,
        endless: bool = False,
        pin_memory: bool = False,
        device: torch.device | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare to read; no batch is read yet.

        Args:
            dataset: from ``open_dataset``; or several, whose samples mean the same (fields, units, rates, actions).
            window: rows of each stream; what it leaves open is the schema's default.
            batch_size: B, of this rank.
            seed: of the order.
            rank: this process among ``world_size``.
            world_size: number of processes that share the sequence.
            num_workers: threads that prepare batches; 0 prepares each when it is asked for; ``None`` finds out, from
                one on, how many it takes that nobody waits.
            prefetch_factor: batches kept ready ahead, in all, or one more than there are threads. Small ones are made
                several at a time, up to 4 MB.
            shuffle: in an order of its own each epoch, or as recorded.
            shuffle_shards: mix the frames of this many shards at a time, and the shards; ``None`` mixes all frames.
                For data larger than memory: an epoch then reads each shard once.
            weights: how often episodes are drawn, relative to their frames: ``{"task": {"pick": 2.0}}``, also by
                ``"episode"`` and ``"dataset"`` (its path). What is not named has 1; factors multiply.
            split: ``"train"``, ``"val"``, or ``None`` for every episode.
            image_size: (height, width) to resize to; ``None`` keeps the recorded size, which must then be one.
            augmentation: how images are varied, by seed and position in the sequence; ``None`` leaves them as they are.
            endless: go on through epoch after epoch with batches of full size, instead of ending after one.
            pin_memory: put batches into page-locked memory, for asynchronous copies to a GPU.
            device: a GPU that batches are copied to as soon as they are made, beside what it computes.
            say: told, in a sentence, how many threads were chosen.

        Raises:
            UsageError: an argument cannot be used with this data.
        """
        selection = Selection.parse("Loader", dataset, window=window, split=split, image_size=image_size)
        self._sources, self._frames = selection.sources, selection.frames
        self.dataset, self.window, self.spec = self._sources.first, selection.window, selection.spec
        self.batch_size = parse_whole_number("Loader batch_size", batch_size, least=1)
        self._seed = parse_whole_number("Loader seed", seed, least=0, most=2**63 - 1)
        self.share = RankPart.parse(rank, world_size)  # may be another before an iteration
        self._num_workers = (
            None if num_workers is None else parse_whole_number("Loader num_workers", num_workers, least=0)
        )
        self._prefetch_factor = parse_whole_number("Loader prefetch_factor", prefetch_factor, least=1)
        self._endless, self._say = endless, say
        require_memory("Loader", self.spec, self.batch_size)
        self._ordering = Ordering.parse("Loader", shuffle, shuffle_shards, weights)
        self._order = self._ordering.make(self._sources, self._frames, self._seed)
        threads = threads_at_most() if self._num_workers is None else self._num_workers
        at_once_bytes = min(_AT_ONCE_BYTES, _AHEAD_BYTES // (threads + 1))
        self._at_once = max(1, at_once_bytes // (self.batch_size * sample_bytes(self.spec)))
        self._depth = -(-self._prefetch_factor // self._at_once)
        self._maker = BatchMaker(
            self._sources,
            self.window,
            self.spec,
            num_samples=self.batch_size * self._at_once,
            num_kept=max(self._depth, threads + 1) + 2,  # the taker has one, and is given the next
            pinned=pin_memory or (device is not None and device.type == "cuda"),
            augmentation=augmentation,
            seed=self._seed,
            most_open=self._ordering.most_open,
        )
        self._side_copy = SideCopy(device)
        self._position = 0  # global samples handed out so far, over all epochs and ranks

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """All that it reads."""
        return self._sources.datasets

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
        return self._num_batches(self._order.num_positions)

    def _num_batches(self, num_samples: int) -> int:
        """Of so many samples up to an epoch's end, on this rank."""
        full, rest = divmod(num_samples, self.batch_size * self.share.world_size)
        return full + (self.share.rank < rest)

    def __iter__(self) -> Iterator[Batch]:
        """Batches from where the loader stands: to the end of the epoch, or for ever if ``endless``.

        Without ``endless`` the epoch's last batch may be short, and some ranks may have none.
        """
        return self._iterate(self._steps(), moves=True)

    def every_other(self, first: int, every: int) -> Iterator[Batch]:
        """Of the batches to come, number ``first`` and then each ``every``-th; the loader stays where it stands."""
        return self._iterate(islice(self._steps(at_once=1), first, None, every), moves=False)

    def _iterate(self, work: Iterator[Steps], *, moves: bool) -> _Iteration:
        finds_out = self._num_workers is None
        pace = Pace(threads_at_most(), self._say, lambda: self._maker.is_settled) if finds_out else None
        num_threads = 1 if self._num_workers is None else self._num_workers
        made = ahead(work, self._make, num_threads=num_threads, depth=self._depth, pace=pace)
        return _Iteration(made, self._batches(made, moves))

    def _batches(self, made: Iterator[_Made], moves: bool) -> Iterator[Batch]:
        """The batches that were made; if it ``moves``, the loader stands where the last step that was taken ends."""
        for ends, batches in made:
            if moves and not batches:  # this rank has no share of the step, but must stand where the others do
                self._position = ends[-1]
            for end, (batch, arrived) in zip(ends, batches, strict=False):
                self._side_copy.finish(batch, arrived)
                if moves:
                    self._position = end
                yield batch

    def _steps(self, at_once: int | None = None) -> Iterator[Steps]:
        if self._order.num_positions:
            yield from steps(
                self._order,
                self._position,
                self.batch_size,
                self.share,
                at_once=at_once or self._at_once,
                endless=self._endless,
            )

    def _make(self, of_steps: Steps) -> _Made:
        if not len(of_steps.frames):
            return of_steps.ends, []
        frames = self._frames.plan(of_steps.frames, of_steps.positions)
        batches = self._maker.make(frames, len(of_steps.ends))
        return of_steps.ends, [self._side_copy.begin(batch) for batch in batches]

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands, as plain integers; the same for every rank and number of ranks."""
        return self._state_at(self._position)

    def state_after(self, num_batches: int) -> dict[str, int]:
        """Where it will stand after as many more batches of this rank, over any number of epochs."""
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
            "epoch": epoch,
            "position": position,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where another loader over the same split stood, whatever its batch size, ranks and threads.

        Raises:
            UsageError: the state is of another version, seed, number of frames or order, or none at all.
        """
        if not isinstance(state, dict) or state.get("version") != _STATE_VERSION:
            found = repr(state.get("version")) if isinstance(state, dict) else f"a {type(state).__name__}"
            raise UsageError(f"loader state: expected version {_STATE_VERSION}, found {found}")
        ours = self.state_dict()
        for name in ours:
            parse_whole_number(f"loader state: {name}", state.get(name), least=0)
            if name not in ("version", "epoch", "position") and state[name] != ours[name]:
                cure = "resume with the dataset, window, order and seed that it began with"
                raise UsageError(f"loader state: {name} was {state[name]}, is {ours[name]}", cure)
        self._position = state["epoch"] * max(1, self._order.num_positions) + state["position"]

    def close(self) -> None:
        """Nothing is held between iterations; here so that a loader can be used like other resources."""

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Iteration(Iterator[Batch]):
    """The batches of one pass, and the threads that prepare them, which end when this is closed or dropped."""

    def __init__(self, made: InOrder[_Made], batches: Iterator[Batch]) -> None:
        self._made, self._batches, self._is_closed = made, batches, False

    def __next__(self) -> Batch:
        if self._is_closed:
            raise StopIteration
        return next(self._batches)

    def close(self) -> None:
        """End the threads, whichever thread calls this; waits for the batches that they are preparing."""
        self._is_closed = True
        self._made.close()
