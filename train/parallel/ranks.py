"""The rank of this process among the ranks that torchrun started, and the few collectives that training needs.

Gradients have their own process group. Its time-out ends the run if a rank is minutes late. All other collectives use
a second group, on the host. There the ranks wait for each other for days: for work that only rank 0 does, or for a
batch. With one rank no group exists, and every collective is the identity. Sockets listen only on loopback, unless
MASTER_ADDR names another machine.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist

# DDP imports this module later. If a group existed at that time, the module's functions would keep it as a default.
import torch.distributed.nn
from torch._C._distributed_c10d import AllgatherOptions, PrefixStore, ProcessGroupGloo, Store, TCPStore

from vlapipe.schemas.errors import StoppedError, UsageError, VlapipeError
from vlapipe.train.parallel.activity import WAITING
from vlapipe.train.parallel.network_interface import interface_towards
from vlapipe.train.parallel.rank_watch import RankWatch, exit_code_of

__all__ = ["Ranks", "agree", "distributed", "gather_bytes", "sum_of", "tell_failure"]

_TIMEOUT = timedelta(minutes=10)  # until all ranks have started; for a gradient after all ranks have their batch
_PATIENCE = timedelta(days=7)  # rank 0 may unpack a dataset, or write a checkpoint for hours on a slow disk
_HANG_TIMEOUT_S = 40.0  # all ranks then end within a minute: the roll call and the grace come on top
_DESTROY_S = 20.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _Links:
    """The connections of this rank to the other ranks, except the group of the gradients.

    ``close`` drops the connections, even if something still references this object.
    """

    def __init__(self, rank: int, world_size: int, hang_timeout_s: float) -> None:
        store = _make_store(rank, world_size)
        self.watch = RankWatch(store, rank, world_size, start_within=_TIMEOUT, hang_timeout_s=hang_timeout_s)
        self.host: ProcessGroupGloo | None = ProcessGroupGloo(
            PrefixStore("vlapipe/host", store), rank, world_size, _TIMEOUT
        )
        self.store: Store | None = store

    def close(self) -> None:
        self.watch.close()
        self.host = self.store = None


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The rank of this process and its device."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    links: _Links | None = field(default=None, repr=False, compare=False)  # None with one rank

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes the files and prints."""
        return self.rank == 0

    def during(self, phase: str) -> contextlib.AbstractContextManager[None]:
        """Say to the other ranks that the block is ``phase``: a rank that hangs in some phases ends all ranks."""
        return contextlib.nullcontext() if self.links is None else self.links.watch.activity.during(phase)


def _from_environment() -> tuple[int, int, int]:
    """Returns the rank, the number of ranks, and the local rank (the rank on this machine)."""
    try:
        rank, world_size, local_rank = (
            int(os.environ.get(name, default))
            for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
        )
    except ValueError as error:
        raise UsageError(f"RANK, WORLD_SIZE and LOCAL_RANK must be numbers: {error}", "start with torchrun") from None
    if not 0 <= rank < world_size:
        raise UsageError(f"RANK: expected 0 to {world_size - 1}, found {rank}", "start with torchrun")
    return rank, world_size, local_rank


def _own_device(rank: int, local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        cure = f"torchrun --nproc-per-node={torch.cuda.device_count()}"
        raise UsageError(f"rank {rank} has no GPU: this machine has {torch.cuda.device_count()}", cure)
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


@contextlib.contextmanager
def distributed(*, hang_timeout_s: float = _HANG_TIMEOUT_S) -> Iterator[Ranks]:
    """Connect to the other ranks for the duration of the block. If one rank fails or hangs, all ranks end.

    All ranks end ``hang_timeout_s`` seconds after one rank began to hang; 0 waits for ever.

    A thread of a group takes the GIL to release tensors. If it does so while Python ends, the process is killed
    (CPython 3.11: terminate called without an active exception). The threads end when the last reference to their
    group is gone. DDP holds such a reference, so drop every DDP module before the block ends.

    Raises:
        UsageError: the environment does not describe a rank.
        StoppedError: the other ranks did not connect, or a rank was lost.
        SystemExit: another rank failed; that rank prints the reason.
    """
    rank, world_size, local_rank = _from_environment()
    if world_size == 1:
        device = _own_device(rank, local_rank)
        yield Ranks(rank=rank, world_size=world_size, local_rank=local_rank, device=device)
        return
    links = _meet(rank, world_size, hang_timeout_s)
    try:
        ranks = Ranks(
            rank=rank,
            world_size=world_size,
            local_rank=local_rank,
            device=_own_device(rank, local_rank),
            links=links,
        )
        _start_gradients_group(ranks)
        yield ranks
        links.watch.finish()
    except BaseException as error:
        _clear_frames(error)
        ending = links.watch.ends_with(error)
        if ending is not error:
            raise ending from None
        if isinstance(error, SystemExit) and not error.code:  # else this rank alone would report success
            problem = f"rank {rank} was ended by sys.exit({error.code!r}), and with it all {world_size} ranks"
            raise VlapipeError(
                problem, "raise an error that says why, in the policy or where else it was called"
            ) from None
        if not isinstance(error, VlapipeError | SystemExit):
            error.add_note(f"vlapipe: this ended rank {rank}, and with it all {world_size} ranks")
        raise
    finally:
        gc.collect()  # FSDP's hooks refer to each other, and to the groups
        if dist.is_initialized():
            _destroy_groups()
        links.close()


def _destroy_groups() -> None:
    """Destroy all groups. On CPUs this waits a limited time, and then leaves the groups to the end of the process.

    On a busy machine gloo's thread for its sockets was seen to spin for ever while a group was destroyed.
    """
    if dist.get_backend() != "gloo":
        dist.destroy_process_group()
        return
    thread = threading.Thread(target=dist.destroy_process_group, name="vlapipe-destroy", daemon=True)
    thread.start()
    thread.join(_DESTROY_S)


def _clear_frames(error: BaseException) -> None:
    """Drop the local variables of the frames in ``error``'s traceback, which may reference DDP and the group."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__


def _meet(rank: int, world_size: int, hang_timeout_s: float) -> _Links:
    """Connect to the other ranks, which must start within ten minutes.

    Raises:
        StoppedError: a rank did not connect, or the port is in use.
    """
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")
    if os.environ["MASTER_ADDR"] in _LOOPBACK:
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    elif interface := interface_towards(os.environ["MASTER_ADDR"]):
        # By itself, gloo takes the address of this machine's own name, which is often 127.0.0.1.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    try:
        return _Links(rank, world_size, hang_timeout_s)
    except (RuntimeError, OSError, ValueError) as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        first = " ".join(str(error).split())[:200]
        raise StoppedError(
            f"rank {rank} of {world_size} does not reach the others over {address}: {first}",
            "check that all ranks were started, that MASTER_ADDR and MASTER_PORT are right, and that the port is free",
        ) from None


def _make_store(rank: int, world_size: int) -> Store:
    by_hand = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if by_hand and os.environ["MASTER_ADDR"] in _LOOPBACK:
        return _loopback_store(rank, world_size)
    store: Store = next(dist.rendezvous("env://", rank, world_size, timeout=_TIMEOUT))[0]  # type: ignore[attr-defined]
    return store


def _loopback_store(rank: int, world_size: int) -> Store:
    """Returns a store that listens on 127.0.0.1. By default, ``TCPStore`` listens on every interface."""
    port = int(os.environ["MASTER_PORT"])
    listen_fd = None
    if rank == 0:
        listener = socket.create_server(("127.0.0.1", port))
        listen_fd = listener.detach()  # the store owns and closes it
    return TCPStore(
        "127.0.0.1",
        port,
        world_size,
        rank == 0,
        timeout=_TIMEOUT,
        master_listen_fd=listen_fd,
        use_libuv=False,
    )


def _start_gradients_group(ranks: Ranks) -> None:
    backend = "nccl" if ranks.device.type == "cuda" else "gloo"
    options = {"device_id": ranks.device} if backend == "nccl" else {}
    assert ranks.links is not None
    dist.init_process_group(
        backend,
        store=ranks.links.store,
        rank=ranks.rank,
        world_size=ranks.world_size,
        timeout=_TIMEOUT,
        **options,  # type: ignore[arg-type]
    )


def _gather(mine: torch.Tensor, ranks: Ranks) -> list[torch.Tensor]:
    """Returns every rank's ``mine``, in order of rank. The tensors have one shape and dtype and are on the host."""
    if ranks.links is None:
        return [mine]
    assert ranks.links.host is not None
    parts = [torch.empty_like(mine) for _ in range(ranks.world_size)]
    options = AllgatherOptions()
    options.timeout = _PATIENCE
    with ranks.during(WAITING):
        ranks.links.host.allgather([parts], [mine], options).wait()  # type: ignore[attr-defined]
    return parts


def gather_bytes(mine: bytes, ranks: Ranks) -> list[bytes]:
    """Returns every rank's ``mine``, in order of rank. The lengths may differ; a collective."""
    lengths = [int(length) for length in _gather(torch.tensor([len(mine)]), ranks)]
    padded = torch.zeros(max(1, *lengths), dtype=torch.uint8)
    padded[: len(mine)] = torch.tensor(list(mine), dtype=torch.uint8)
    parts = _gather(padded, ranks)
    return [bytes(part[:length].numpy()) for part, length in zip(parts, lengths, strict=True)]


def sum_of(values: Sequence[float], ranks: Ranks) -> list[float]:
    """Returns the sum of each value over all ranks, in float64; identical on every rank. A collective."""
    parts = _gather(torch.tensor(values, dtype=torch.float64), ranks)
    return [float(total) for total in torch.stack(parts).sum(0).tolist()]


class Agreed:
    """The result of ``agree``: ``wished`` is True if any rank wished it."""

    wished = False


@contextlib.contextmanager
def agree(ranks: Ranks, *, wish: bool = False) -> Iterator[Agreed]:
    """Run the block on every rank. If the block fails on a rank, all ranks end.

    The lowest failed rank raises its own error; all others end silently. No rank leaves the block before all ranks have
    completed it. The block must contain no collective of the host group. After the block, ``wished`` says whether
    ``wish`` was True on any rank.

    Raises:
        SystemExit: the block failed on another rank, which is the lowest failed rank. The exit code is that rank's.
    """
    agreed = Agreed()
    if ranks.links is None:
        yield agreed
        agreed.wished = wish
        return
    stopped: BaseException | None = None
    try:
        yield agreed
    except BaseException as error:  # noqa: BLE001 - the other ranks wait for this rank, whatever the error is
        stopped = error
        ranks.links.watch.tell_failure(error)  # reaches also the ranks that are still in the block
    try:
        mine = torch.tensor([exit_code_of(stopped) if stopped else 0, int(wish)])
        codes, wishes = zip(*(part.tolist() for part in _gather(mine, ranks)), strict=True)
    except RuntimeError:
        if stopped is not None:  # a rank that was still in the block has ended
            raise stopped from None
        raise
    agreed.wished = any(wishes)
    failed = [rank for rank, code in enumerate(codes) if code]
    if not failed:
        return
    ranks.links.watch.leaves_by_itself()
    if stopped is not None and ranks.rank == failed[0]:
        raise stopped
    raise SystemExit(codes[failed[0]])


@contextlib.contextmanager
def tell_failure(ranks: Ranks) -> Iterator[None]:
    """Tell the other ranks of an error as soon as it leaves the block, before the outer blocks clean up."""
    try:
        yield
    except BaseException as error:
        if ranks.links is not None:
            ranks.links.watch.tell_failure(error)
        raise
