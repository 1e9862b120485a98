"""The local copy of a dataset that lies in a store: its manifests, tables and history, in a folder of the user's cache.

Everything that reads a dataset reads files of a folder. Of a dataset in a store these are the files of its copy; they
are fetched when a command asks for them. A file that is named by its digest never changes, so it is fetched once.
Manifests and other files without a digest are fetched each time anew. Shards are not part of the copy: they go to the
cache of unpacked shards (``shards.mapped``), which has a limit.

A file ``.store.json`` in the folder says which store it is a copy of.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Collection, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from vlapipe.pipeline.shards.format.atomic import whole_file, write_bytes
from vlapipe.pipeline.shards.stores.store import Store, StoredObject, leads_out
from vlapipe.schemas.errors import DamageError, UsageError
from vlapipe.schemas.paths import Address, dataset_path, local_path
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = [
    "Copy",
    "copy_at",
    "folder_name",
    "folder_of",
    "look_again",
    "one_look",
    "remove_files",
    "shown",
    "user_cache",
]

CACHE_VARIABLE = "VLAPIPE_CACHE_DIR"
_MARK = ".store.json"
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def user_cache(chosen: Path | None = None) -> Path:
    """Returns the folder of what is kept for no dataset's folder: ``chosen``, else the variable's, else a default."""
    if chosen is not None:
        return chosen
    if os.environ.get(CACHE_VARIABLE):
        return local_path(os.environ[CACHE_VARIABLE], f"${CACHE_VARIABLE}")
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vlapipe"


@dataclass
class _Look:
    """What a command has learned of stores. Each key begins with the address of the dataset."""

    names: dict[tuple[str, str], dict[str, StoredObject]] = field(default_factory=dict)  # of files in a folder
    taken: set[tuple[str, str]] = field(default_factory=set)  # files that were fetched


_look: ContextVar[_Look | None] = ContextVar("look", default=None)
_REMEMBERED = ("generations", ".log")  # folders of small files whose names make a commit; its own files are added


@contextlib.contextmanager
def one_look() -> Iterator[None]:
    """Ask a store once which generations and entries of the history there are, until ``look_again``.

    That list may be old. Who commits on an old one loses, and looks again.
    """
    token = _look.set(_look.get() or _Look())
    try:
        yield
    finally:
        _look.reset(token)


def look_again() -> None:
    """Forget what ``one_look`` has remembered, because only the newest state will do."""
    look = _look.get()
    if look is not None:
        look.names.clear()


class Copy:
    """A folder that is the copy of a dataset in a store."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store = folder, store

    def names(self, folder: str = "") -> dict[str, StoredObject]:
        """Returns the files that the store has in a folder of the dataset, by their names within that folder."""
        look, key = _look.get(), (str(self.store.address), folder)
        if look is None or folder not in _REMEMBERED:
            return self.store.objects(folder)
        if key not in look.names:
            look.names[key] = self.store.objects(folder)
        return dict(look.names[key])

    def files(self, *folders: str) -> dict[str, StoredObject]:
        """Returns the files beside the manifest and those in these folders, by their paths within the dataset."""
        within = {f"{folder}/{name}": each for folder in folders for name, each in self.names(folder).items()}
        return self.names() | within

    def take(self, names: Collection[str], *, fresh: bool = False) -> None:
        """Fetch files that the copy lacks, or all of them if ``fresh``. One that the store lacks is removed here."""
        for name in names:
            if leads_out(name):
                raise DamageError(f"{self.store.address}: names a file outside the dataset: {name}")
        wanted = [name for name in names if fresh or not (self.folder / name).exists()]
        for folder in {(self.folder / name).parent for name in wanted}:
            folder.mkdir(parents=True, exist_ok=True)
        self.store.each(self._fetch, wanted)

    def take_once(self, names: Collection[str]) -> None:
        """Fetch files anew that never change, unless this was done within ``one_look``."""
        look, address = _look.get() or _Look(), str(self.store.address)
        self.take([name for name in names if (address, name) not in look.taken], fresh=True)
        look.taken |= {(address, name) for name in names}

    def take_folder(self, folder: str) -> None:
        """Make a folder of the copy hold the files that the store has in it, and no others."""
        there = self.names(folder)
        self.take([f"{folder}/{name}" for name in there])
        with contextlib.suppress(FileNotFoundError):
            for file in (self.folder / folder).iterdir():
                if file.name not in there:
                    file.unlink(missing_ok=True)

    def put(self, name: str, data: bytes) -> None:
        """Write a small file to the store and to the copy. An existing one is replaced."""
        self.store.put(name, data)
        self._keep(name, data)
        self._remember(name, data)

    def put_new(self, name: str, data: bytes) -> bool:
        """Write a small file unless the store has one of this name. Returns whether it has these bytes now."""
        is_ours = self.store.put_new(name, data)
        if is_ours:
            self._keep(name, data)
            self._remember(name, data)
        else:
            look_again()
        return is_ours

    def remove(self, names: Collection[str]) -> None:
        """Remove files from the store, and from the copy."""
        self.store.delete(names)
        look = _look.get() or _Look()
        for name in names:
            folder, _, file = name.rpartition("/")
            look.names.get((str(self.store.address), folder), {}).pop(file, None)
            (self.folder / name).unlink(missing_ok=True)

    def renew(self, names: Collection[str], *folders: str) -> None:
        """Fetch these files and all in these folders again, so that what is read next is what the store has.

        Files are replaced, and are there all the time: another command may be reading them.
        """
        within = [f"{folder}/{name}" for folder in folders for name in self.names(folder)]
        self.take([*names, *within], fresh=True)
        for folder in folders:
            self.take_folder(folder)

    def _remember(self, name: str, data: bytes) -> None:
        look, address = _look.get() or _Look(), str(self.store.address)
        folder, _, file = name.rpartition("/")
        stored = StoredObject(num_bytes=len(data), modified_s=time.time())
        look.names.get((address, folder), {})[file] = stored
        look.taken.add((address, name))

    def _fetch(self, name: str) -> None:
        try:
            data = self.store.read(name)
        except FileNotFoundError:
            (self.folder / name).unlink(missing_ok=True)
            return
        self._keep(name, data)

    def _keep(self, name: str, data: bytes) -> None:
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            raise_if_stopped(error, path)
            raise


_known: dict[str, Copy | None] = {}
_lock = threading.Lock()


def copy_at(folder: Path) -> Copy | None:
    """Returns the copy that lies in a folder, or ``None`` if the folder is no copy of a store."""
    key = os.fspath(folder)
    if key not in _known:
        try:
            address = json.loads((folder / _MARK).read_bytes())["address"]
        except (FileNotFoundError, NotADirectoryError):
            return None  # it may become one
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise_if_stopped(error, folder / _MARK)
            raise UsageError(f"{folder / _MARK}: cannot be read: {error}", "remove that folder") from None
        found = dataset_path(address)
        assert isinstance(found, Address)
        with _lock:
            _known.setdefault(key, Copy(folder, Store(found)))
    return _known[key]


def shown(folder: Path) -> Path:
    """Returns how a user calls a dataset: by its address if the folder is the copy of one in a store."""
    copy = copy_at(folder)
    return copy.store.address if copy else folder


def remove_files(folder: Path, names: Collection[str]) -> None:
    """Remove files of a dataset, from its folder or from its store. One that is not there counts as removed."""
    copy = copy_at(folder)
    if copy:
        copy.remove(names)
    else:
        for name in names:
            (folder / name).unlink(missing_ok=True)


def folder_name(address: Address) -> str:
    """Returns a folder's name for what lies at an address: readable, and another one for each address."""
    text = str(address)
    return f"{_NO_NAME.sub('-', text)[-60:]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def folder_of(path: Path, cache_dir: Path | None = None) -> Path:
    """Returns the folder to read a dataset from: ``path`` itself, or the copy of a store, made if there is none yet.

    Args:
        path: a folder, or an ``Address``.
        cache_dir: where copies lie; see ``user_cache``.
    """
    if not isinstance(path, Address):
        return path
    folder = user_cache(cache_dir).absolute() / "stores" / folder_name(path)
    if not (folder / _MARK).exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / _MARK, json.dumps({"address": str(path)}).encode())
        except OSError as error:
            raise_if_stopped(error, folder)
            raise UsageError(f"{folder}: cannot be made: {error.strerror}", "choose another --cache-dir") from None
    return folder
