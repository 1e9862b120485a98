"""Gives a loader's batches as torch's ``IterableDataset``: each iteration is one epoch, divided among the readers.

The readers are the ranks and their worker processes. A ``DataLoader`` makes new worker processes for each iteration and
does not tell them about earlier iterations. So the copies of a stream count their iterations in shared memory.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import get_worker_info

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.arguments import parse_whole_number
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.ordering.rank_batches import RankPart

__all__ = ["BatchStream"]

# Launchers set these variables to the number of ranks; they do not say which rank this process is.
_LAUNCHERS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_MOST_WORKERS = 1024
_LOW = 1 << 32


class BatchStream(torch.utils.data.IterableDataset[Batch]):
    """Gives a ``Loader``'s batches in the loader's order, whatever the number of ranks and of worker processes.

    The stream gives whole batches, so a ``DataLoader`` must not make any: ``DataLoader(stream, batch_size=None)``.

    Each iteration gives the next epoch from its start. The first iteration gives epoch 0, or the epoch that
    ``set_epoch`` set, or the rest of the epoch whose state was loaded. The batches are the same if this process reads
    them or if worker processes do, new ones for each iteration or persistent ones.

    Each rank gets its own batches, and all ranks together get the epoch. The rank is ``rank`` of ``world_size`` if they
    are given, else torch.distributed's if it is initialised, else that of RANK and WORLD_SIZE. An epoch's last step is
    divided as evenly as possible. So some ranks may have a sample less in it, and no batch if there are fewer samples
    than ranks. If all ranks must make the same number of steps (DDP), give ``endless=True`` and count the steps.
    """

    def __init__(
        self,
        dataset: Dataset | Sequence[Dataset],
        *,
        rank: int | None = None,
        world_size: int | None = None,
        **arguments: Any,
    ) -> None:
        """Take ``Loader``'s ``arguments``, except ``num_workers``: the caller's ``DataLoader`` has its own workers.

        Raises:
            UsageError: an argument cannot be used with this data.
        """
        if (rank is None) != (world_size is None):
            raise UsageError("torch_dataset: expected rank and world_size, found one of them", "give both or neither")
        self._given = None if rank is None else RankPart.parse(rank, world_size or 0)
        self._sent: RankPart | None = None  # the rank part of the process that made this worker process
        self._arguments = (dataset, arguments)
        self._loader = Loader(dataset, **arguments, num_workers=0)
        self._iterations = _Iterations()
        self._begin_at(self._loader.state_dict())

    def _begin_at(self, state: dict[str, int]) -> None:
        self._base = self._now = state  # states where the first and the newest iteration begin
        self._taken = _Count()  # batches taken since ``_now``
        self._last_epoch = state["epoch"] - 1  # the epoch of this process's last iteration
        self._resumed: dict[str, int] | None = None  # a worker process's state to begin from

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the next epoch; worker ``i`` of ``n`` gives the epoch's batches ``i``, ``i + n`` and so on.

        Raises:
            UsageError: there are several ranks, and this process's rank is not known.
        """
        self._loader.share = self._share()
        worker = get_worker_info()
        if worker and not self._iterations.is_shared:
            raise UsageError("torch_dataset: worker processes need shared memory (/dev/shm)", "give num_workers=0")
        number, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        resumed, self._resumed = self._resumed, None
        token = (worker.seed - worker.id) % _LOW if worker else int.from_bytes(os.urandom(4))
        epoch = self._iterations.begin(number, token, resumed["epoch"] if resumed else None)
        self._last_epoch, self._taken = epoch, _Count()
        self._now = self._base if epoch == self._base["epoch"] else self._base | {"epoch": epoch, "position": 0}
        if resumed:
            self._now = {key: resumed[key] for key in self._base}
            self._taken.number = resumed["batches"]
        self._loader.load_state_dict(self._now)
        batches = self._loader.every_other(number + self._taken.number * num_workers, num_workers)
        return self._counted(batches, self._taken, (number, token, epoch) if worker else None)

    def _counted(self, batches: Iterator[Batch], taken: _Count, worker: tuple[int, int, int] | None) -> Iterator[Batch]:
        for batch in batches:
            if worker and not self._iterations.is_newest(*worker):
                problem = "torch_dataset: two iterations of one stream were read by worker processes at once"
                raise UsageError(problem, "make a stream for each")
            taken.number += 1
            yield batch

    def __len__(self) -> int:
        """Number of this rank's batches in an epoch."""
        self._loader.share = self._share()
        return len(self._loader)

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration give ``epoch``: from its start, or from the position of a loaded state.

        A trainer may call this before each iteration or never; both give the same epochs.

        Raises:
            UsageError: ``epoch`` is no whole number, or Accelerate would divide the batches among the ranks again.
        """
        epoch = parse_whole_number("torch_dataset set_epoch", epoch, least=0)
        self._refuse_second_share()
        if epoch != self._base["epoch"] or self._iterations.newest != epoch - 1:
            self._begin_at(self._base | {"epoch": epoch, "position": 0})
            self._iterations.restart(epoch)

    def state_dict(self) -> dict[str, int]:
        """The stream's state after the batch that was taken last, as plain integers.

        torchdata's ``StatefulDataLoader`` asks each worker process for its state, and later gives it back.

        Raises:
            UsageError: worker processes of a plain ``DataLoader`` read the stream; they are ahead of the training loop.
        """
        worker = get_worker_info()
        if worker:
            return self._now | {"num_workers": worker.num_workers, "batches": self._taken.number}
        if self._iterations.newest != self._last_epoch:
            problem = "torch_dataset state_dict: worker processes are ahead of the batches that were taken"
            raise UsageError(problem, "count these, and ask state_after(number), or use torchdata's StatefulDataLoader")
        return self._after(self._now, self._taken.number)

    def state_after(self, num_batches: int) -> dict[str, int]:
        """The stream's state ``num_batches`` after it was made, or after the last state was loaded or epoch was set.

        The count may go over several epochs, each read to its end. A ``DataLoader``'s workers are ahead of the training
        loop, so only the training loop knows this number.
        """
        return self._after(self._base, num_batches)

    def _after(self, state: dict[str, int], num_batches: int) -> dict[str, int]:
        self._loader.share = self._share()
        self._loader.load_state_dict(state)
        return self._loader.state_after(num_batches)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next iteration at the position of ``state``.

        Raises:
            UsageError: the state's dataset or order differs, or it was saved with another number of worker processes.
        """
        worker = get_worker_info()
        of_workers = state.get("num_workers") if isinstance(state, dict) else None
        if of_workers is not None and of_workers != (worker.num_workers if worker else 0):
            problem = f"torch_dataset state: expected that of {worker.num_workers if worker else 'no'} worker processes"
            raise UsageError(f"{problem}, found one of {of_workers}", "use as many workers as the state was saved with")
        self._loader.load_state_dict(state)
        if worker:
            self._resumed = {**self._loader.state_dict(), "batches": state.get("batches", 0)}
        else:
            self._begin_at(self._loader.state_dict())
            self._iterations.restart(self._base["epoch"])

    def _share(self) -> RankPart:
        """Find this process's rank part, as the class's docstring says."""
        if self._given:
            return self._given
        if dist.is_available() and dist.is_initialized():
            return RankPart(dist.get_rank(), dist.get_world_size())
        return self._sent or _share_of_environment()

    def _refuse_second_share(self) -> None:
        """Refuse Accelerate's prepared loaders: they would split our batches, and they call ``set_epoch`` first."""
        state = sys.modules.get("accelerate.state")
        loader = state.GradientState().active_dataloader if state else None
        if loader is None:
            return
        read = getattr(loader, "dataset", None)
        dispatches = type(loader).__name__ == "DataLoaderDispatcher" and read is self
        shares = read is not self and getattr(read, "dataset", None) is self and self._share().world_size > 1
        if dispatches or shares:
            problem = "torch_dataset: Accelerate would share out the batches again that each rank has of its own"
            raise UsageError(
                problem, "leave this DataLoader out of accelerator.prepare; send_to_device moves its batches"
            )

    def __reduce__(self) -> Any:
        is_rank = dist.is_available() and dist.is_initialized()
        sent = self._given or (self._share() if is_rank else None)
        return _stream_at, (*self._arguments, self._given, sent, self._base, self._iterations.cells)


def _stream_at(
    dataset: Any,
    arguments: dict[str, Any],
    given: RankPart | None,
    sent: RankPart | None,
    base: dict[str, int],
    cells: torch.Tensor,
) -> BatchStream:
    """Make the stream again in another process: ``cells`` is shared with a ``DataLoader``'s worker, else copied."""
    stream = BatchStream(dataset, **arguments)
    stream._given, stream._sent = given, sent
    stream._iterations = _Iterations(cells)
    stream._begin_at(base)
    return stream


def _share_of_environment() -> RankPart:
    """Read the rank part from the variables of torchrun and similar launchers; without any, there is one rank.

    Raises:
        UsageError: the variables say that there are several ranks, but not which rank this process is.
    """
    rank, world_size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is not None and world_size is not None:
        try:
            return RankPart.parse(int(rank), int(world_size))
        except ValueError:
            raise UsageError(f"RANK and WORLD_SIZE must be numbers, found {rank!r} and {world_size!r}") from None
    several = [f"{name}={value}" for name in _LAUNCHERS if (value := os.environ.get(name, "1")) != "1"]
    several += [f"RANK={rank}"] if rank not in (None, "0") else []
    if several:
        problem = f"torch_dataset: {several[0]} says that there are several ranks, but not which one this is"
        raise UsageError(problem, "initialise torch.distributed first, or give rank and world_size")
    return RankPart(0, 1)


class _Count:
    """Counts the batches that were taken from one iteration."""

    number = 0


class _Iterations:
    """Holds the epoch that each worker began last, in memory that all copies of a stream share.

    Each worker has one cell, and writes it as a whole. No other worker writes it, unless an epoch is restarted or
    resumed. A cell holds the epoch and a token that all workers of an iteration have in common. The first worker of an
    iteration finds no cell with the newest epoch and its token, so it begins the next epoch; the other workers find
    that cell. If the token is that of the iteration before (persistent workers, or a seed that is set each time), a
    worker's own cell says that this worker has begun the newest epoch already.
    """

    def __init__(self, cells: torch.Tensor | None = None) -> None:
        self.cells = torch.zeros(_MOST_WORKERS, dtype=torch.int64) if cells is None else cells
        if not self.is_shared:
            with contextlib.suppress(RuntimeError, OSError):  # then ``__iter__`` refuses worker processes
                self.cells.share_memory_()  # type: ignore[no-untyped-call]
        self._view = self.cells.numpy()

    @property
    def is_shared(self) -> bool:
        """Whether the stream's copies in other processes see the cells of this one."""
        return bool(self.cells.is_shared())  # type: ignore[no-untyped-call]

    @property
    def newest(self) -> int:
        """The epoch that was begun last; if none was begun, the number before the first epoch."""
        return int(self._view.max()) // _LOW - 1

    def restart(self, epoch: int) -> None:
        """Make the next iteration begin ``epoch``."""
        self._view[:] = epoch * _LOW

    def begin(self, worker: int, token: int, epoch: int | None = None) -> int:
        """Find and note the epoch of the iteration that ``worker`` begins; ``epoch`` if it is given."""
        if epoch is not None:
            self._view[:] = self._cell(epoch, token)
            return epoch
        cells = self._view.copy()
        newest = int(cells.max()) // _LOW - 1
        others_began = bool(np.any(cells == self._cell(newest, token)))
        has_begun = int(cells[worker]) // _LOW - 1 == newest
        epoch = newest if others_began and not has_begun else newest + 1
        self._view[worker] = self._cell(epoch, token)
        return epoch

    def is_newest(self, worker: int, token: int, epoch: int) -> bool:
        """Whether the worker has begun no other iteration since it began this one."""
        return int(self._view[worker]) == self._cell(epoch, token)

    @staticmethod
    def _cell(epoch: int, token: int) -> int:
        return (epoch + 1) * _LOW + token
