"""The user's access to a finished dataset. Opening reads only the manifest; arrays are mapped at their first use."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.conversion import Conversion, composed, converted_schema, converted_statistics
from vlapipe.pipeline.shards.manifest.episodes_table import EpisodesTable
from vlapipe.pipeline.shards.manifest.generations import manifest_file
from vlapipe.pipeline.shards.manifest.manifest import Manifest
from vlapipe.pipeline.shards.mapped.cache import Cache
from vlapipe.pipeline.shards.mapped.cache_files import cache_folder, cache_limit
from vlapipe.pipeline.shards.mapped.mapped_shards import MappedShards, choice_of
from vlapipe.pipeline.shards.mapped.packed_rows import PackedRows
from vlapipe.pipeline.shards.stores.copies import folder_of, shown
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.paths import dataset_path, local_path
from vlapipe.schemas.renamed import warn_renamed
from vlapipe.schemas.schema import ActionSpec, SampleDefaults, Schema

__all__ = ["Dataset", "Episode", "FieldSummary", "open_dataset"]

_PNG = b"\x89PNG"
_AT = re.compile(r"(.+)@(\d{1,9})")  # a dataset's folder and a generation


@dataclass(frozen=True, kw_only=True)
class FieldSummary:
    """Statistics of one field over the train split: float64 arrays with one entry a column (one entry if wide).

    The statistics are over finite values. ``count`` is the number of finite values: one number, or one number a column
    if the columns differ.
    """

    count: int | NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    q01: NDArray[np.float64]
    q10: NDArray[np.float64]
    q50: NDArray[np.float64]
    q90: NDArray[np.float64]
    q99: NDArray[np.float64]
    flicker: NDArray[np.bool_] | None = None  # columns that only flicker around one position; None if there is none


class Dataset:
    """A dataset that ``vlapipe ingest`` wrote. Use ``open_dataset`` to create a ``Dataset``."""

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        cache_dir: Path | None = None,
        cache_bytes: int | None = None,
        chosen: tuple[SampleDefaults, ActionSpec, Mapping[str, Conversion], Mapping[str, int]] | None = None,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self._recorded: Schema = parse_schema(
            manifest.schema["toml"], f"{path.name}/{manifest.schema['name']}", is_stored=True
        )
        self.conversions: Mapping[str, Conversion] = {}  # of fields, in samples and statistics
        self.padded: Mapping[str, int] = {}  # number of columns by batch entry, if padded
        self.schema: Schema = self._recorded  # samples are read by it, so it may have a chosen sample and action
        self._table = EpisodesTable(path, manifest.all_parts, manifest.generation or 1)
        self._cache = Cache(cache_folder(path, cache_dir), cache_limit(cache_bytes))
        self._mapped = self._samples = MappedShards(path, manifest, self._recorded, self._cache, self._table)
        self._opened_with = (path, manifest, cache_dir, cache_bytes)
        if chosen is not None:
            self._choose(*chosen)

    def __reduce__(self) -> tuple[Callable[..., Dataset], tuple[Any, ...]]:
        # Another process opens the dataset again, and maps the arrays itself.
        return Dataset, (*self._opened_with, (self.schema.sample, self.schema.action, self.conversions, self.padded))

    def choose(
        self,
        sample: SampleDefaults,
        action: ActionSpec,
        convert: Mapping[str, Conversion] | None = None,
        padded: Mapping[str, int] | None = None,
    ) -> Dataset:
        """Returns a view of this dataset whose samples have other fields, windows or actions. Nothing is ingested.

        ``convert`` gives conversions by ``<stream>/<field>``, on top of those that this dataset has. Samples and
        ``stats`` of the view have the converted numbers, ``arrays`` the recorded ones; ``action`` is in converted
        numbers. ``padded`` gives the number of columns of ``observation.state`` and ``action``, if it is more than
        their fields have; the last columns of samples are then zero. ``schema`` of the view has the sample, the action
        and the converted fields, and else the recording's.
        """
        view = object.__new__(Dataset)  # ``copy`` would open the dataset again, as another process does
        vars(view).update(vars(self))
        vars(view).pop("stats", None)
        view._choose(sample, action, composed(self.conversions, convert or {}), padded or {})
        return view

    def _choose(
        self,
        sample: SampleDefaults,
        action: ActionSpec,
        convert: Mapping[str, Conversion],
        padded: Mapping[str, int],
    ) -> None:
        self.conversions, self.padded = dict(convert), dict(padded)
        self._recorded = converted_schema(self._mapped.schema, convert)
        self.schema = replace(self._recorded, sample=sample, action=action)
        self._samples = self._mapped
        if convert or padded or choice_of(self.schema) != choice_of(self._recorded):
            shared = (self.path, self.manifest, self.schema, self._cache, self._table)
            self._samples = MappedShards(*shared, chosen=True, conversions=self.conversions, padded=self.padded)

    @property
    def recorded(self) -> Schema:
        """The schema that the dataset was made by; ``frame_start``, ``num_frames`` and ``stats`` belong to it.

        Its fields and thresholds are those of the converted numbers.
        """
        return self._recorded

    @property
    def stored_stride(self) -> int:
        """The stride n of ``action/stride_order`` in ``sample_arrays``; 1 if there is no such array."""
        return self._samples.schema.sample.action_stride

    @property
    def generation(self) -> int:
        """The number of the state of the dataset that was opened; 1 for one that nothing was added to."""
        return self.manifest.generation or 1

    @property
    def place(self) -> Path:
        """Where the dataset is for its user: its folder, or its ``Address`` in a store. ``path`` has the files."""
        return shown(self.path)

    @property
    def manifest_file(self) -> Path:
        """The file that describes this generation."""
        return manifest_file(self.path, self.generation)

    def __len__(self) -> int:
        return sum(part.num_episodes for part in self.manifest.all_parts)

    def __repr__(self) -> str:
        totals = self.manifest.totals
        return f"<vlapipe.Dataset {str(self.place)!r}: {len(self)} episodes, {totals['frames']} frames>"

    @property
    def episodes(self) -> pa.Table:
        """The episodes table with all columns: one row an episode, in the order of the shards.

        docs/shard-format.md describes the columns. The table takes about 1 kB an episode. To read a single column, use
        ``column`` or ``episode_column``.
        """
        return self._table.whole

    def episodes_of_part(self, number: int) -> pa.Table:
        """Returns the episodes of one part of the dataset with all columns; see ``Manifest.all_parts``.

        Raises:
            DamageError: the table is missing or altered.
        """
        return self._table.part(number)

    @cached_property
    def stats(self) -> dict[str, FieldSummary]:
        """Statistics over the train split, by ``<stream>/<field>`` and ``action/value``."""
        summaries: dict[str, dict[str, Any]] = {
            path: {name: value if isinstance(value, int) else np.array(value) for name, value in values.items()}
            for path, values in self.manifest.statistics.items()
        }
        converted = converted_statistics(summaries, self._recorded, self.conversions)
        return {path: FieldSummary(**values) for path, values in converted.items()}

    @property
    def cameras(self) -> list[str]:
        """Names of the camera streams that samples have; all of the recording unless others were chosen."""
        chosen = self.schema.sample.cameras
        return [camera for camera in self.manifest.cameras if chosen is None or camera in chosen]

    @property
    def fps(self) -> float:
        """The measured rate of the anchor, on whose rows frames lie: the median over the episodes."""
        return self.rate_hz(self.schema.anchor) or 0.0

    def rate_hz(self, stream: str) -> float | None:
        """Returns the measured rate of a stream, the median over the episodes; ``None`` if none has two times."""
        names = ("rows", "first_s", "last_s")
        rows, first_s, last_s = (self.column(f"{stream}/{name}").astype(np.float64) for name in names)
        is_long = last_s > first_s
        return float(np.median((rows[is_long] - 1) / (last_s - first_s)[is_long])) if is_long.any() else None

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """What a sample can hold: each field ``<stream>/<field>`` and camera, with a row's shape, dtype and unit."""
        found: dict[str, dict[str, Any]] = {}
        for name, stream in self.manifest.streams.items():
            if stream["kind"] == "images":
                found[name] = {"dtype": "uint8", "shape": [3, None, None], "unit": []}
            for field, described in stream.get("fields", {}).items():
                found[f"{name}/{field}"] = {key: described[key] for key in ("dtype", "shape", "unit")}
        return found

    def __getitem__(self, which: int | str) -> Episode:
        """Returns one episode, as ``episode`` does. ``vlapipe.torch_dataset(dataset)[i]`` is a training sample."""
        if isinstance(which, int) and not -len(self) <= which < len(self):
            raise IndexError(f"episodes are numbered from 0 to {len(self) - 1}")
        return self.episode(which)

    @property
    def views(self) -> list[str]:
        """The old name of ``cameras``."""
        warn_renamed("vlapipe.Dataset", "views", "cameras")
        return self.cameras

    @property
    def column_names(self) -> list[str]:
        """Names of all columns of ``episodes``."""
        return list(self._table.fields.names)

    def column(self, name: str) -> NDArray[Any]:
        """Returns a column of ``episodes`` as a NumPy array. Reads only this column. Equal strings are one object.

        Raises:
            DamageError: the table is missing or altered.
            KeyError: there is no such column.
        """
        return self._table.array(name)

    def read_columns(self, names: Collection[str]) -> None:
        """Read several columns in advance. One call is faster than one read a column.

        Raises:
            DamageError: the table is missing or altered.
            KeyError: there is no such column.
        """
        self._table.read(names)

    def episode_column(self, name: str) -> pa.ChunkedArray:
        """Returns a column of ``episodes`` as Arrow, so that strings and lists do not become Python objects."""
        return self._table.column(name)

    @property
    def episode_fields(self) -> pa.Schema:
        """The names and types of the columns of ``episodes``; ``metadata/<key>`` are what recordings say of themselves.

        Raises:
            DamageError: the table is missing or altered.
        """
        return self._table.fields

    def arrays(self, shard: int) -> dict[str, NDArray[Any]]:
        """Returns every array of a shard by name, mapped and read-only.

        Raises:
            DamageError: the shard is missing, cut short or altered.
        """
        return self._mapped.arrays(shard)

    def sample_arrays(self, shard: int) -> dict[str, NDArray[Any]]:
        """Returns the arrays that training reads from a shard, mapped and read-only. A window of rows is contiguous.

        These arrays are float32 and C-ordered: ``observation.state`` ``(rows, D)``, the state fields of the schema's
        sample side by side; ``observation.sensors.<name>`` ``(rows, ...)``; ``action`` ``(rows, A)``, the same as
        ``action/value``. ``action/row``, each ``align/<stream>`` and the cameras' images are as in ``arrays``. If the
        schema's ``action_stride`` n is greater than 1, ``action/stride_order`` ``(rows, A)`` repeats the actions in
        stride order: of each episode rows 0, n, 2n and so on, then 1, n+1, 2n+1.

        Raises:
            DamageError: the shard is missing, cut short or altered.
            UsageError: the shard cannot be unpacked into the cache.
        """
        return self._samples.sample_arrays(shard)

    def sample_rows(self, shard: int) -> PackedRows | None:
        """Returns a reader of ``sample_arrays``' rows from the packed shard. Training can then begin before unpacking.

        Returns ``None`` if the shard is already unpacked, or if unpacking is as fast: an NPZ member can only be decoded
        from its start.

        Raises:
            DamageError: the shard is missing or cut short.
        """
        return self._samples.sample_rows(shard)

    @property
    def is_in_store(self) -> bool:
        """Whether the shards lie in a store, and are fetched when they are needed."""
        return self._mapped.is_in_store

    def is_here(self, shard: int) -> bool:
        """Whether a shard lies on this machine; if not, its first use fetches it from the store."""
        return self._mapped.is_here(shard)

    def fetch(self, shard: int, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        """Fetch a shard from the store into the cache, unless it is there.

        Raises:
            CancelledError: ``is_cancelled()`` became true.
            DamageError: the store has no such shard, or one of other bytes.
            StoppedError: the disk is full, or the store refuses or does not answer.
        """
        self._mapped.fetched(shard, is_cancelled).close()

    @contextlib.contextmanager
    def shard_file(self, entry: Mapping[str, Any]) -> Iterator[Path]:
        """Yields the path of a shard's file on this machine; if it lies in a store, that is an entry of the cache.

        The entry stays there meanwhile, and its digest has been compared. ``entry`` is the shard's in the manifest.

        Raises:
            DamageError: the store has no such shard, or one of other bytes.
            StoppedError: the disk is full, or the store refuses or does not answer.
        """
        if not self.is_in_store:
            yield self.path / str(entry["file"])
            return
        with self._mapped.fetched_file(entry) as file:
            yield Path(file.name)

    @property
    def cache_bytes(self) -> int | None:
        """The limit of the cache in bytes, or ``None``."""
        return self._cache.limit_bytes

    def row(self, index: int) -> dict[str, Any]:
        """Returns all columns of one episode. Reads only the episode's row group of the table."""
        return self._table.row(index)

    def index_of(self, which: int | str) -> int:
        """Returns the index of an episode, which is given by index (a negative index counts from the end) or by id.

        Raises:
            UsageError: there is no such episode.
        """
        if isinstance(which, str):
            ids = self._table.column("id")
            index = pc.index(ids, which).as_py()
            if index < 0:
                near = ids.filter(pc.match_substring(ids, which)).slice(0, 1).to_pylist()
                cure = f"did you mean {near[0]!r}?" if near else "vlapipe inspect lists them"
                raise UsageError(f"{self.place}: no episode {which!r}", cure)
        else:
            index = which + len(self) if which < 0 else which
            if not 0 <= index < len(self):
                raise UsageError(f"{self.place}: no episode {which}", f"there are {len(self)}, counted from 0")
        return int(index)

    def episode(self, which: int | str) -> Episode:
        """Returns one episode, by index (a negative index counts from the end) or by id.

        Raises:
            UsageError: there is no such episode.
        """
        return Episode(self, self.index_of(which))


class Episode(Mapping[str, NDArray[Any]]):
    """The arrays of one episode by name: ``ep["robot/joint_position"]`` is a read-only mapped array ``(rows, 6)``.

    ``<camera>/offset`` is a copy and begins at 0. Every other array is a slice of the shard's mapped array.
    """

    def __init__(self, dataset: Dataset, index: int) -> None:
        self.index = index
        self._dataset = dataset
        self.row: dict[str, Any] = dataset.row(index)
        self._arrays = dataset.arrays(self.row["shard"])

    @property
    def id(self) -> str:
        """Path of the episode, relative to the raw dataset's folder."""
        return str(self.row["id"])

    @property
    def instruction(self) -> str:
        """The instruction that the robot was given."""
        return str(self.row["instruction"])

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            raise KeyError(name)
        stream, _, field = name.partition("/")
        array = self._arrays[name]
        # align/* and action/* have one row for each anchor row.
        clock = self._dataset.schema.anchor if stream in ("align", "action") else stream
        start, rows = self.row[f"{clock}/start"], self.row[f"{clock}/rows"]
        if stream in self._dataset.manifest.cameras and field in ("bytes", "offset"):
            offset = self._arrays[f"{stream}/offset"][start : start + rows + 1]
            return array[offset[0] : offset[-1]] if field == "bytes" else offset - offset[0]
        return array[start : start + rows]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"<vlapipe.Episode {self.index} {self.id!r}: {self.row['num_frames']} frames, {self.instruction!r}>"

    def text(self, name: str) -> list[str]:
        """Returns a text field as one string a row.

        Raises:
            KeyError: there is no such field.
            UsageError: the field has numbers, not text.
        """
        if not self._dataset.schema.field(name).text:
            raise UsageError(f"{name!r} holds numbers, not text", "episode[name] gives them")
        rows = np.ascontiguousarray(self[name])
        # Zero bytes pad each row to the field's width. A fixed-width byte string drops the zeros at its end.
        return [text.decode("utf-8") for text in rows.view(f"S{rows.shape[1]}")[:, 0].tolist()]

    def jpeg(self, camera: str, row: int) -> bytes:
        """Returns one camera image as the stored JPEG file. Red and blue are exchanged in it if the schema says so.

        Raises:
            UsageError: the camera is stored as pixels, or the image as PNG.
        """
        file = self.image_file(camera, row)
        if file.startswith(_PNG):
            raise UsageError(f"{camera}: image {row} is a PNG, not a JPEG", f"use image_file({camera!r}, {row})")
        return file

    def image_file(self, camera: str, row: int) -> bytes:
        """Returns one camera image as the stored file, JPEG or PNG, as it was recorded unless ingest made another.

        Raises:
            UsageError: the camera is stored as pixels.
        """
        if f"{camera}/pixels" in self:
            raise UsageError(
                f"{camera} is stored as pixels, not as JPEG", f"episode['{camera}/pixels'][{row}] has them"
            )
        offset = self[f"{camera}/offset"]
        return self[f"{camera}/bytes"][offset[row] : offset[row + 1]].tobytes()


def open_dataset(
    path: str | Path,
    *,
    generation: int | None = None,
    cache_dir: str | Path | None = None,
    cache_bytes: int | None = None,
) -> Dataset:
    """Open a dataset. Reads only the manifest.

    Args:
        path: the folder that ``vlapipe ingest --out`` wrote, or its address in a store (``s3://bucket/data``).
            ``data@3`` means generation 3 of ``data``, if there is no such folder.
        generation: the number of an earlier state of the dataset, as ``vlapipe log`` lists them; by default the newest.
        cache_dir: folder into which compressed arrays are unpacked once; by default in the dataset's folder.
        cache_bytes: limit of the unpacked arrays in bytes. Shards that no process reads are removed to keep the limit.
            If this is not enough, the limit is exceeded with a warning.

    Raises:
        NotADatasetError: there is no dataset in the folder.
        NewerFormatError: a newer vlapipe wrote the dataset.
        UsageError: there is no such generation, ``$VLAPIPE_CACHE_SIZE`` is not a size, or a path is the address of a
            store.
    """
    path = dataset_path(path, "dataset")
    match = _AT.fullmatch(path.name) if generation is None and not path.exists() else None
    if match is not None:
        path, generation = path.with_name(match[1]), int(match[2])
    cache = local_path(cache_dir, "cache_dir") if cache_dir else None
    path = folder_of(path, cache)
    return Dataset(path, Manifest.read(path, generation), cache, cache_bytes)
