"""Writes a dataset in robomimic's HDF5 layout: one file, a group ``data/demo_N`` for each episode, and masks of splits.

HDF5 compresses in one thread. Here threads compress chunks themselves, each into a file of one episode, whose chunks
are then copied into the one file as they are. So a killed export goes on after the episodes that it has finished.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.export.plan import ExportPlan, Written
from vlapipe.pipeline.export.report import Tally
from vlapipe.pipeline.export.sample_rows import ExportedEpisode
from vlapipe.pipeline.export.work_folder import MadeFrom, WorkFolder
from vlapipe.pipeline.shards.format.atomic import whole_file
from vlapipe.pipeline.shards.manifest.metadata_columns import PREFIX
from vlapipe.pipeline.shards.ordered_map import in_order
from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.schemas.errors import DamageError
from vlapipe.schemas.extras import need

__all__ = ["read_back", "write_hdf5"]

_MADE_FROM, _TALLY = "vlapipe_export", "vlapipe_export_tally"  # attributes of the file, as JSON
_LEVEL_OF_NUMBERS, _LEVEL_OF_IMAGES = 4, 1  # of deflate
_CHUNK_BYTES = 1 << 20  # of numbers; images have a chunk each, so that one can be read alone
_MASKS = {"val": "valid"}  # robomimic's name of a split
_GYM = 2  # robomimic asks for a kind of environment, and uses it only to simulate

_Rows = Callable[[int, int], NDArray[Any]]  # reads rows from the first to before the last


def read_back(path: Path) -> tuple[MadeFrom, Tally] | None:
    """Returns what an exported file was made from and what was done, or ``None`` if it is no file of ours."""
    h5py = need("h5py", "hdf5", "--to hdf5")
    try:
        with h5py.File(path, "r") as file:
            made_from: MadeFrom = json.loads(file.attrs[_MADE_FROM])
            return made_from, Tally.of_json(json.loads(file.attrs[_TALLY]))
    except (OSError, KeyError, ValueError, TypeError):
        return None


def write_hdf5(plan: ExportPlan, made_from: MadeFrom, work: WorkFolder, progress: Progress) -> Written:
    """Writes the file. Goes on after the episodes that ``work`` has a record of.

    Raises:
        DamageError: a shard of the dataset is damaged, or the file reads back otherwise than it was written.
    """
    need("h5py", "hdf5", "--to hdf5")
    count = len(plan.episodes)
    missing = [i for i in range(count) if _record(work, i) is None]
    if len(missing) < count:
        progress.reach(count - len(missing))
    written = in_order((partial(_write_episode, plan, i, work) for i in missing), plan.workers)
    try:
        for _ in written:
            progress.advance()
    finally:
        written.close()
    tally = Tally()
    for i in range(count):
        tally = tally.plus(Tally.of_json((_record(work, i) or {})["tally"]))
    _assemble(plan, made_from, work, tally)
    return Written(files={plan.out.name: plan.out.stat().st_size}, tally=tally, num_resumed=count - len(missing))


@contextlib.contextmanager
def _created(path: Path) -> Iterator[Any]:
    """Creates an HDF5 file and closes it. An error of the disk is an ``OSError`` with its number, also at the end."""
    h5py = need("h5py", "hdf5", "--to hdf5")
    file = h5py.File(path, "w")
    try:
        yield file
    except BaseException:
        with contextlib.suppress(OSError, RuntimeError):  # what could not be written cannot be flushed either
            file.close()
        raise
    try:
        file.close()
    except RuntimeError as error:  # HDF5 says the number in the text only
        number = re.search(r"errno = (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from None


def _part(work: WorkFolder, i: int) -> Path:
    return work.path / f"demo_{i}.hdf5"


def _record(work: WorkFolder, i: int) -> dict[str, Any] | None:
    """The record of an episode whose file stands whole in the work folder."""
    record, part = work.record(f"demo_{i}"), _part(work, i)
    is_whole = record is not None and part.is_file() and part.stat().st_size == record["bytes"]
    return record if is_whole else None


def _write_episode(plan: ExportPlan, i: int, work: WorkFolder) -> None:
    """Writes the file of one episode, and reads it back."""
    h5py = need("h5py", "hdf5", "--to hdf5")
    episode, path = plan.read(i), _part(work, i)
    arrays = _arrays(plan, episode)
    with whole_file(path) as temporary:
        with _created(temporary) as file:
            demo = file.create_group("demo")
            demo.attrs.update(_attributes(plan, episode, i))
            for name, (shape, dtype, chunk_rows, level, rows) in arrays.items():
                _write_array(demo, name, shape, dtype, chunk_rows, level, rows)
        with h5py.File(temporary, "r") as file:
            for name, (shape, _, chunk_rows, _, rows) in arrays.items():
                _check_array(file["demo"][name], f"{plan.out}: demo_{i}/{name}", shape, chunk_rows, rows)
    work.keep(f"demo_{i}", {"bytes": path.stat().st_size, "tally": Tally.of(episode, remade={}, losses={}).to_json()})


def _attributes(plan: ExportPlan, episode: ExportedEpisode, i: int) -> dict[str, Any]:
    row = plan.dataset.row(int(plan.episodes[i]))
    metadata = {key.removeprefix(PREFIX): value for key, value in row.items() if key.startswith(PREFIX)}
    return {
        "num_samples": len(episode),
        "instruction": row["instruction"],
        "task": row["task"],
        "id": row["id"],
        "split": row["split"],
        "metadata": json.dumps(metadata),
    }


def _arrays(
    plan: ExportPlan, episode: ExportedEpisode
) -> dict[str, tuple[tuple[int, ...], np.dtype[Any], int, int, _Rows]]:
    """Each array by name: shape, dtype, rows of a chunk, level of deflate, and a reader of rows."""
    numbers: dict[str, NDArray[Any]] = {"actions": episode.action}
    column = 0
    for field in plan.sample.state:
        until = column + int(np.prod(field.shape, dtype=int))
        numbers[f"obs/{field.name}"] = episode.state[:, column:until].reshape(len(episode), *field.shape)
        column = until
    seen = [other for other in plan.sample.others if other.key.startswith("observation.")]
    numbers |= {f"obs/{other.field.name}": episode.others[other.key] for other in seen}
    done = np.zeros(len(episode), dtype=np.int64)
    done[-1] = 1
    numbers |= {"dones": done, "rewards": np.zeros(len(episode))}
    if episode.has_no_action.any():
        numbers["action_is_missing"] = episode.has_no_action.astype(np.uint8)
    if episode.has_no_state.any():
        numbers["state_is_missing"] = episode.has_no_state.astype(np.uint8)
    found = {}
    for name, values in numbers.items():
        a_chunk = max(1, min(len(values), _CHUNK_BYTES // max(1, values[:1].nbytes)))
        found[name] = (values.shape, values.dtype, a_chunk, _LEVEL_OF_NUMBERS, _rows_of(values))
    for camera, images in episode.cameras.items():
        rows, is_depth = episode.frames.rows[camera], camera in plan.sample.depth_units
        shape = (len(rows), *plan.sample.sizes[camera], 1 if is_depth else 3)
        dtype = np.dtype(np.uint16 if is_depth else np.uint8)

        def image(first: int, until: int, images: Any = images, rows: NDArray[np.int64] = rows) -> NDArray[Any]:
            return np.stack([images.pixels(row) for row in rows[first:until].tolist()])

        found[f"obs/{camera}_{'depth' if is_depth else 'image'}"] = (shape, dtype, 1, _LEVEL_OF_IMAGES, image)
    return found


def _rows_of(values: NDArray[Any]) -> _Rows:
    return lambda first, until: values[first:until]


def _write_array(
    demo: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], chunk_rows: int, level: int, rows: _Rows
) -> None:
    """Writes an array chunk by chunk. The chunks are shuffled and deflated here, while HDF5's own lock is free."""
    chunk = (chunk_rows, *shape[1:])
    stored = demo.create_dataset(name, shape, dtype, chunks=chunk, shuffle=True, compression="gzip")
    for first in range(0, shape[0], chunk_rows):
        values = rows(first, min(first + chunk_rows, shape[0]))
        if len(values) < chunk_rows:  # a chunk is always stored whole
            values = np.concatenate([values, np.zeros((chunk_rows - len(values), *shape[1:]), dtype)])
        flat = np.ascontiguousarray(values, dtype).reshape(-1)
        shuffled = flat.view(np.uint8).reshape(-1, dtype.itemsize).T.tobytes()
        stored.id.write_direct_chunk((first, *[0] * (len(shape) - 1)), zlib.compress(shuffled, level))


def _check_array(stored: Any, place: str, shape: tuple[int, ...], chunk_rows: int, rows: _Rows) -> None:
    """Compares every row with what was to be written, as HDF5 reads it."""
    for first in range(0, shape[0], chunk_rows):
        until = min(first + chunk_rows, shape[0])
        expected = rows(first, until)
        if stored.shape != shape or stored[first:until].tobytes() != np.ascontiguousarray(expected).tobytes():
            raise DamageError(
                f"{place}: read back otherwise than it was written, in rows {first} to {until - 1}",
                "check the disk and memory, then run the same command again",
            )


def _assemble(plan: ExportPlan, made_from: MadeFrom, work: WorkFolder, tally: Tally) -> None:
    """Copies all episodes into one file, without compressing them again."""
    h5py = need("h5py", "hdf5", "--to hdf5")
    environment = {"env_name": plan.dataset.schema.robot, "type": _GYM, "env_kwargs": {}}
    with whole_file(plan.out, folder=work.path) as temporary:
        with _created(temporary) as file:
            data = file.create_group("data")
            data.attrs.update({"total": tally.frames, "env_args": json.dumps(environment), "fps": plan.fps})
            for i in range(len(plan.episodes)):
                with h5py.File(_part(work, i), "r") as part:
                    part.copy("demo", data, name=f"demo_{i}")
            for split in dict.fromkeys(plan.splits):
                names = [f"demo_{i}" for i, own in enumerate(plan.splits) if own == split]
                file[f"mask/{_MASKS.get(split, split)}"] = np.array(names, dtype="S")
            file.attrs.update({_MADE_FROM: json.dumps(made_from), _TALLY: json.dumps(tally.to_json())})
        with h5py.File(temporary, "r") as file:
            for i in range(len(plan.episodes)):
                with h5py.File(_part(work, i), "r") as part:
                    _check_copy(part["demo"], file[f"data/demo_{i}"], f"{plan.out}: demo_{i}")


def _check_copy(part: Any, copy: Any, place: str) -> None:
    """Compares the stored chunks of a copied episode, without decoding them."""
    for name, value in part.items():
        if not hasattr(value, "id") or not hasattr(value, "chunks"):
            _check_copy(value, copy[name], f"{place}/{name}")
            continue
        for number in range(value.id.get_num_chunks()):
            offset = value.id.get_chunk_info(number).chunk_offset
            if value.id.read_direct_chunk(offset) != copy[name].id.read_direct_chunk(offset):
                raise DamageError(f"{place}/{name}: copied otherwise than it was", "run the same command again")
