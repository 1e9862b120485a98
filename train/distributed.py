"""A process's place among the ranks that torchrun started, and the few collectives that training needs.

With one rank nothing is initialised and every collective is the identity. Nothing listens beyond loopback unless
MASTER_ADDR names another machine.
"""

from __future__ import annotations

import contextlib
import os
import socket
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

# DDP imports it too; imported while there is a group, its functions would keep that group as a default value.
import torch.distributed.nn
from torch._C._distributed_c10d import Store, TCPStore

from vlapipe.schemas.errors import UsageError, VlapipeError

__all__ = ["Ranks", "agree", "distributed", "mean_of", "sum_of"]

_TIMEOUT = timedelta(minutes=10)  # unpacking a large dataset's cache on one rank must not end the others
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Who this process is, and the device it computes on."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and speaks."""
        return self.rank == 0


def _from_environment() -> Ranks:
    try:
        rank, world_size, local_rank = (
            int(os.environ.get(name, default))
            for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
        )
    except ValueError as error:
        raise UsageError(f"RANK, WORLD_SIZE and LOCAL_RANK must be numbers: {error}", "start with torchrun") from None
    if not torch.cuda.is_available():
        device = torch.device("cpu")
    elif local_rank < torch.cuda.device_count():
        device = torch.device("cuda", local_rank)
    else:
        cure = f"torchrun --nproc-per-node={torch.cuda.device_count()}"
        raise UsageError(f"rank {rank} has no GPU: this machine has {torch.cuda.device_count()}", cure)
    return Ranks(rank=rank, world_size=world_size, local_rank=local_rank, device=device)


@contextlib.contextmanager
def distributed() -> Iterator[Ranks]:
    """Join the other ranks for as long as the block lasts.

    The group's threads take Python's lock to give back tensors, and one that does so while Python ends kills the
    process (CPython 3.11: terminate called without an active exception). They end with the last reference to the
    group, which DDP holds too: let go of wrapped modules before the block ends, or as an exception leaves it.

    Raises:
        UsageError: the environment does not describe a rank.
    """
    ranks = _from_environment()
    if ranks.device.type == "cuda":
        torch.cuda.set_device(ranks.device)
    if ranks.world_size == 1:
        yield ranks
        return
    _start_group(ranks)
    try:
        yield ranks
    except BaseException as error:
        _clear_frames(error)
        raise
    finally:
        dist.destroy_process_group()


def _clear_frames(error: BaseException) -> None:
    """Let go of what the functions that ``error`` has left still hold, DDP and the group among it."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__


def _start_group(ranks: Ranks) -> None:
    backend = "nccl" if ranks.device.type == "cuda" else "gloo"
    master = os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")
    store = None
    if master in _LOOPBACK:
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            store = _loopback_store(ranks)
    options = {"device_id": ranks.device} if backend == "nccl" else {}
    dist.init_process_group(
        backend,
        store=store,
        rank=ranks.rank,
        world_size=ranks.world_size,
        timeout=_TIMEOUT,
        **options,  # type: ignore[arg-type]
    )


def _loopback_store(ranks: Ranks) -> Store:
    """A store that listens on 127.0.0.1; left to itself, ``TCPStore`` listens on every interface."""
    port = int(os.environ["MASTER_PORT"])
    listen_fd = None
    if ranks.is_first:
        listener = socket.create_server(("127.0.0.1", port))
        listen_fd = listener.detach()  # the store owns and closes it
    return TCPStore(
        "127.0.0.1",
        port,
        ranks.world_size,
        ranks.is_first,
        timeout=_TIMEOUT,
        master_listen_fd=listen_fd,
        use_libuv=False,
    )


def sum_of(values: Sequence[float], ranks: Ranks) -> list[float]:
    """The sum over all ranks of each value."""
    if ranks.world_size == 1:
        return list(values)
    # float64 holds counts exactly, and sums the same whatever the order of a few ranks.
    total = torch.tensor(values, dtype=torch.float64, device=ranks.device)
    dist.all_reduce(total)
    return [float(v) for v in total.tolist()]


def mean_of(values: Sequence[float], ranks: Ranks) -> list[float]:
    """The mean over all ranks of each value."""
    return [total / ranks.world_size for total in sum_of(values, ranks)]


@contextlib.contextmanager
def agree(ranks: Ranks) -> Iterator[None]:
    """Run the block on every rank; if it fails on one, all end: one with its error, the others without a word."""
    try:
        yield
    except VlapipeError as error:
        first_failed, _ = sum_of([ranks.is_first, 1], ranks)
        if first_failed and not ranks.is_first:
            raise SystemExit(error.exit_code) from None
        raise
    _, failed = sum_of([0, 0], ranks)
    if failed:
        raise SystemExit(1)
