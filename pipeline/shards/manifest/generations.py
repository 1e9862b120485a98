"""The generations of a dataset: which there are, and the one step that makes the next one.

A dataset of one generation is ``manifest.json`` alone. From the second on, each generation is a manifest of its own,
``generations/000002.json``. The file with the highest number is the dataset. ``manifest.json`` repeats it for people,
plain tools and older readers, and may be behind for a moment, or after a kill until the next command.
"""

from __future__ import annotations

import re
from pathlib import Path

from vlapipe.pipeline.shards.format.atomic import fsync_folder, link_new, whole_file, write_bytes
from vlapipe.pipeline.shards.stores.copies import copy_at, look_again, shown
from vlapipe.schemas.errors import DamageError, UsageError, VlapipeError
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = [
    "GENERATIONS",
    "MANIFEST",
    "claim",
    "generation_file",
    "generation_times",
    "generations",
    "keep_first",
    "manifest_file",
    "missing_file",
    "publish",
]

MANIFEST = "manifest.json"
GENERATIONS = "generations"
_FILE = re.compile(r"(\d{6,})\.json")


def generations(folder: Path) -> list[int]:
    """Returns the numbers of the generations that have a file, in order; empty if there is ``manifest.json`` alone."""
    copy = copy_at(folder)
    try:
        names = [*copy.names(GENERATIONS)] if copy else [entry.name for entry in (folder / GENERATIONS).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise_if_stopped(error, folder / GENERATIONS)
        raise
    return sorted(int(match[1]) for name in names if (match := _FILE.fullmatch(name)))


def generation_times(folder: Path) -> dict[int, float]:
    """Returns when each generation's file was written, in seconds since the epoch, by its number."""
    copy = copy_at(folder)
    if copy:
        times = {name: each.modified_s for name, each in copy.names(GENERATIONS).items()}
    else:
        times = {name: (folder / name).stat().st_mtime for name in map(generation_file, generations(folder))}
    return {int(match[1]): when for name, when in times.items() if (match := _FILE.fullmatch(name.rpartition("/")[2]))}


def missing_file(folder: Path, generation: int, where: object, problem: str, cure: str) -> VlapipeError:
    """Returns the error of a reader that lacks a file: gc has removed the generation that it reads, or it is damage.

    Args:
        folder: the dataset's folder.
        generation: the one that is read.
        where: the file.
        problem: what is wrong with the file, if it is damage.
        cure: and what to do then.
    """
    look_again()
    there = generations(folder)
    if there and generation not in there:
        name = f"{shown(folder)}: generation {generation} was removed by vlapipe gc, and with it {where}"
        return UsageError(name, "read the newest generation; gc --keep and --older-than keep more of them")
    return DamageError(f"{where}: {problem}", cure)


def generation_file(number: int) -> str:
    """Returns the path of a generation's file within the dataset."""
    return f"{GENERATIONS}/{number:06d}.json"


def manifest_file(folder: Path, generation: int | None = None) -> Path:
    """Returns the file that describes a generation, by default the newest one.

    Raises:
        UsageError: there is no such generation.
    """
    there = generations(folder)
    if generation is None and there:
        generation = there[-1]
    if generation in there:
        name = generation_file(generation)
    elif generation in (None, 1) and not there:
        name = MANIFEST
    else:
        numbers = f"{there[0]} to {there[-1]}" if there else "1"
        raise UsageError(f"{shown(folder)}: no generation {generation}: it has {numbers}", "vlapipe log lists them")
    copy = copy_at(folder)
    if copy:
        copy.take([name], fresh=True) if name == MANIFEST else copy.take_once([name])
    return folder / name


def keep_first(folder: Path) -> None:
    """Give the first generation, which is ``manifest.json`` alone until now, a file of its own."""
    if generations(folder):
        return
    copy = copy_at(folder)
    if copy:
        copy.put_new(generation_file(1), (folder / MANIFEST).read_bytes())
        return
    (folder / GENERATIONS).mkdir(exist_ok=True)
    fsync_folder(folder)
    link_new(folder / MANIFEST, folder / generation_file(1))  # if another command was faster, its file is the same
    if not (folder / MANIFEST).exists():  # without links the file was renamed
        write_bytes(folder / MANIFEST, (folder / generation_file(1)).read_bytes())


def claim(folder: Path, number: int, data: bytes, scratch: Path) -> bool:
    """Make a generation, unless another command has made one of this number. Returns whether this call made it.

    This is the commit. The file is whole before it gets its name. A store writes an object only if there is none.
    """
    copy = copy_at(folder)
    if copy:
        return copy.put_new(generation_file(number), data)
    whole = scratch / "next-generation.json"
    with whole_file(whole) as temporary:
        temporary.write_bytes(data)
    try:
        return link_new(whole, folder / generation_file(number))
    finally:
        whole.unlink(missing_ok=True)


def publish(folder: Path, scratch: Path) -> None:
    """Make ``manifest.json`` repeat the newest generation."""
    copy = copy_at(folder)
    while there := generations(folder):
        if copy:
            copy.take([MANIFEST], fresh=True)
            copy.take_once([generation_file(there[-1])])
        data = (folder / generation_file(there[-1])).read_bytes()
        is_behind = not (folder / MANIFEST).exists() or (folder / MANIFEST).read_bytes() != data
        if is_behind and copy:
            copy.put(MANIFEST, data)
        elif is_behind:
            write_bytes(folder / MANIFEST, data, folder=scratch)
        look_again()
        if generations(folder)[-1] == there[-1]:  # else another command may have written it before this one did
            return
