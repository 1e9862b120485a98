"""Reads and writes the objects of a folder in a store: S3 and stores that speak its language, Google Cloud, Azure.

A store that does not answer, answers with an error of its own or cuts a body short is asked again, with longer and
longer pauses. After ``$VLAPIPE_STORE_WAIT`` seconds without an answer (300 by default) the command ends, and the same
command goes on from there. Keys come from the places where the store's own tools look for them, and are never shown.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any, TypeVar

from tqdm import tqdm

from vlapipe.pipeline.shards.ordered_map import in_order
from vlapipe.schemas.errors import StoppedError, UsageError
from vlapipe.schemas.paths import Address

__all__ = ["Store", "StoredObject", "leads_out"]

_WAIT_VARIABLE = "VLAPIPE_STORE_WAIT"
_WAIT_S = 300.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 20.0
_PIECE = 8 << 20  # bytes of one request; a lost connection costs no more than that
_AT_ONCE = 8  # requests, so that a large object comes as fast as the network brings it
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT")
_STATUS = re.compile(r"status code:? (\d{3})")
_MAY_PASS = (408, 425, 429)  # of the statuses from 400 to 499
T = TypeVar("T")
_user: int | None = None  # the process that used a store first


def leads_out(name: str) -> bool:
    """Returns whether the name of a file or an object may lead out of the folder that it lies in."""
    return any(part in ("", ".", "..") for part in name.split("/"))


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """An object of the store: its size, and when it was written, in seconds since the epoch."""

    num_bytes: int
    modified_s: float


class Store:
    """The objects below an address. Their names are relative to it, with ``/`` between the parts. Thread-safe."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def __reduce__(self) -> tuple[type[Store], tuple[Address]]:
        return Store, (self.address,)

    @cached_property
    def _store(self) -> Any:
        try:
            import obstore.store as stores
        except ImportError:
            problem = f"{self.address}: needs obstore, which is not installed"
            cure = "in the checkout of vlapipe: pip install '.[store]' -c constraints.txt"
            raise UsageError(problem, cure) from None
        options: dict[str, Any] = {
            "prefix": self.address.prefix or None,
            "client_options": {"timeout": "60s", "connect_timeout": "5s", **_plain_http()},
            "retry_config": {"max_retries": 2, "retry_timeout": timedelta(seconds=30)},
        }
        if self.address.scheme == "s3":
            return stores.S3Store(self.address.bucket, **options, **_keys_of_profile())
        if self.address.scheme == "gs":
            return stores.GCSStore(self.address.bucket, **options)
        return stores.AzureStore(self.address.bucket, **options)

    def objects(self, folder: str = "") -> dict[str, StoredObject]:
        """Returns the objects directly in a folder by their names within it; folders in it are left out."""

        def listed() -> dict[str, StoredObject]:
            found = self._obstore.list_with_delimiter(self._store, prefix=folder or None)["objects"]
            return {each["path"].rpartition("/")[2]: _described(each) for each in found}

        return self._patiently(folder, listed)

    def walk(self) -> dict[str, StoredObject]:
        """Returns all objects by their names."""

        def listed() -> dict[str, StoredObject]:
            return {e["path"]: _described(e) for each in self._obstore.list(self._store) for e in each}

        return self._patiently("", listed)

    def size(self, name: str) -> int | None:
        """Returns the number of bytes of an object, or ``None`` if there is none of this name."""
        try:
            return int(self._patiently(name, lambda: self._obstore.head(self._store, name))["size"])
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        """Returns the bytes of a small object.

        Raises:
            FileNotFoundError: there is no object of this name.
        """

        def got() -> bytes:
            answer = self._obstore.get(self._store, name)
            data = bytes(answer.bytes())
            if len(data) != answer.meta["size"]:
                raise ConnectionError("half a body")
            return data

        return self._patiently(name, got)

    def pieces(self, name: str, num_bytes: int) -> Iterator[memoryview]:
        """Yields the bytes of an object in order, in pieces; several are fetched ahead at once."""
        starts = range(0, num_bytes, _PIECE)
        if len(starts) == 1:  # needs no threads
            yield self._piece(name, 0, num_bytes)
            return
        jobs = (partial(self._piece, name, at, min(_PIECE, num_bytes - at)) for at in starts)
        yield from in_order(jobs, max(1, min(_AT_ONCE, len(starts))))

    def download(
        self, name: str, file: IO[bytes], num_bytes: int, is_cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        """Write an object's bytes into an open file, from its beginning. Does not sync the file.

        Raises:
            FileNotFoundError: there is no object of this name.
            CancelledError: ``is_cancelled()`` was true after a piece.
        """
        file.seek(0)
        for piece in self.pieces(name, num_bytes):
            file.write(piece)
            if is_cancelled():
                raise CancelledError
        file.flush()

    def sha256(self, name: str, num_bytes: int) -> str:
        """Returns the digest of an object, which is read whole and not kept.

        Raises:
            FileNotFoundError: there is no object of this name.
        """
        digest = hashlib.sha256()
        for piece in self.pieces(name, num_bytes):
            digest.update(piece)
        return digest.hexdigest()

    def put(self, name: str, data: bytes | Path) -> None:
        """Write an object, or replace it. ``data`` is its bytes, or the file that has them."""
        self._patiently(name, lambda: self._obstore.put(self._store, name, data))

    def put_new(self, name: str, data: bytes) -> bool:
        """Write a small object unless there is one of this name. Returns whether the object has these bytes now.

        Of several callers with different bytes one wins. A lost answer is no loss: whose bytes are there has won.
        """

        def put() -> bool:
            exists = self._exceptions.AlreadyExistsError, self._exceptions.PreconditionError
            with suppress(*exists):
                self._obstore.put(self._store, name, data, mode="create", use_multipart=False)
                return True
            return False

        try:
            return self._patiently(name, put) or self.read(name) == data
        except FileNotFoundError:  # it was removed between the two requests
            return self.put_new(name, data)

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there count as removed."""

        def remove(name: str) -> None:
            with suppress(FileNotFoundError):
                self._patiently(name, lambda: self._obstore.delete(self._store, name))

        self.each(remove, list(names))

    def each(self, call: Callable[[str], T], names: Sequence[str]) -> list[T]:
        """Call ``call`` with each name, several at once. Returns the results in the names' order."""
        if not names:
            return []
        with ThreadPoolExecutor(min(_AT_ONCE, len(names)), "vlapipe-store") as threads:
            return list(threads.map(call, names))

    def _piece(self, name: str, start: int, length: int) -> memoryview:
        def got() -> memoryview:
            data = memoryview(self._obstore.get_range(self._store, name, start=start, length=length))
            if len(data) != length:
                raise ConnectionError("half a body")
            return data.cast("B")

        return self._patiently(name, got)

    @cached_property
    def _obstore(self) -> Any:
        _ = self._store  # says what to install
        import obstore

        return obstore

    @cached_property
    def _exceptions(self) -> Any:
        _ = self._store
        import obstore.exceptions as exceptions

        return exceptions

    def _patiently(self, name: str, call: Callable[[], T]) -> T:
        """Call ``call`` until the store answers it.

        Raises:
            FileNotFoundError: the store has no such object.
            StoppedError: the store refuses, or has not answered for too long.
            UsageError: this process was forked from one that has used a store.
        """
        _refuse_fork(self.address)
        started, pause, has_said = time.monotonic(), _FIRST_PAUSE_S, False
        where = f"{self.address}/{name}".rstrip("/")
        while True:
            try:
                return call()
            except FileNotFoundError:
                raise
            except Exception as error:
                if not isinstance(error, (self._exceptions.BaseError, ConnectionError, TimeoutError)):
                    raise
                said, may_pass = _said(error), _may_pass(error, self._exceptions)
                if not may_pass or time.monotonic() - started > _longest_wait_s():
                    raise _stopped(where, said, may_pass=may_pass) from None
                if not has_said and pause > 1:
                    has_said = True
                    tqdm.write(f"{where}: {said}; trying again", file=sys.stderr)
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret
            pause = min(_LONGEST_PAUSE_S, 2 * pause)


def _refuse_fork(address: Address) -> None:
    """Refuse a process that was forked from one that has used a store: without obstore's threads it would hang."""
    global _user
    _user = _user or os.getpid()
    if _user != os.getpid():
        cure = "start it by spawn, as in DataLoader(..., multiprocessing_context='spawn')"
        raise UsageError(f"{address}: a forked process cannot read from a store", cure)


def _described(entry: Any) -> StoredObject:
    return StoredObject(num_bytes=entry["size"], modified_s=entry["last_modified"].timestamp())


def _plain_http() -> dict[str, bool]:
    """Allow a store without TLS if its address, which the user has set, says so."""
    return {"allow_http": True} if any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS) else {}


def _keys_of_profile() -> dict[str, Any]:
    """Take the keys from where boto3 finds them (profiles, single sign-on), if it is there and no variable has them."""
    if os.environ.get("AWS_ACCESS_KEY_ID") or importlib.util.find_spec("boto3") is None:
        return {}
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return {"credential_provider": Boto3CredentialProvider()}
    except Exception:  # noqa: BLE001 - without keys there; the store itself looks elsewhere
        return {}


def _longest_wait_s() -> float:
    text = os.environ.get(_WAIT_VARIABLE, "")
    try:
        return float(text) if text else _WAIT_S
    except ValueError:
        raise UsageError(f"${_WAIT_VARIABLE} {text}: expected a number of seconds") from None


def _may_pass(error: Exception, exceptions: Any) -> bool:
    """Return whether the same request may be answered later."""
    if isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)):
        return False
    status = _STATUS.search(str(error))
    return status is None or int(status[1]) >= 500 or int(status[1]) in _MAY_PASS


def _said(error: Exception) -> str:
    """Return what went wrong in a few words, without the query of an address, which may hold a signature."""
    text = " ".join(str(error).partition("Debug source")[0].split())
    code, message = re.search(r"<Code>(.*?)</Code>", text), re.search(r"<Message>(.*?)</Message>", text)
    if code is not None:
        return f"{message[1]} ({code[1]})" if message else code[1]
    text = re.sub(r"(https?://[^\s?]+)\?\S*", r"\1", text.rpartition(" - ")[2])
    return text.removeprefix("HTTP error: ")[:200] or type(error).__name__


def _stopped(where: str, said: str, *, may_pass: bool) -> StoppedError:
    cure = "check the network and the store" if may_pass else "check the address, the keys and what they allow"
    return StoppedError(f"{where}: {said}", f"{cure}; the same command then goes on")
