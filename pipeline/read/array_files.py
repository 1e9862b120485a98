"""Opens NPZ and NPY files. An array is loaded only when a caller asks for it, and never by unpickling."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.text import first_line
from vlapipe.pipeline.stream_rows import SourceFile
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.surroundings import raise_if_stopped, stopped_by
from vlapipe.schemas.toml_table import did_you_mean

__all__ = ["ArrayFiles", "load_array", "open_arrays"]

_MOST_NUMBERS = 1 << 37  # of an array; only a damaged header states more


@dataclass(frozen=True, kw_only=True)
class ArrayFiles:
    """Arrays by name: for each, its file and the function that loads it. Findings call the set of files ``label``."""

    label: str
    source: SourceFile
    arrays: dict[str, tuple[str, Callable[[], Any]]]

    def find(self, names: tuple[str, ...], findings: Findings, *, or_else: str | None = None) -> str | None:
        """Returns the first of ``names`` that exists, else ``or_else`` if it exists, else ``None`` with a finding."""
        for name in (*names, or_else):
            if name in self.arrays:
                return name
        accepted = [*names, or_else] if or_else else names
        expected = "an array " + " or ".join(repr(name) for name in accepted)
        found = f"none of it; {did_you_mean(names[0], self.arrays)}"
        findings.add("npz.missing_array", self.label, column=names[0], expected=expected, found=found)
        return None

    def file_of(self, name: str) -> str:
        """Returns the path of the file that holds the array."""
        return self.arrays[name][0]

    def load(self, name: str, findings: Findings) -> NDArray[Any] | None:
        """Returns an array of numbers, or ``None`` if the array holds something else or is damaged."""
        file, load = self.arrays[name]
        return load_array(load, file, name, findings)


@contextlib.contextmanager
def open_arrays(root: Path, files: list[str], findings: Findings) -> Iterator[ArrayFiles | None]:
    """Opens one NPZ file, or NPY files that are named after their arrays. Yields ``None`` if a file is unreadable."""
    with contextlib.ExitStack() as stack:
        label = files[0] if len(files) == 1 else str(PurePosixPath(files[0]).parent)
        sha256, num_bytes = hashlib.sha256(), 0
        arrays: dict[str, tuple[str, Callable[[], Any]]] = {}
        try:
            for path in files:
                file = stack.enter_context((root / path).open("rb"))
                while piece := file.read(1 << 20):
                    sha256.update(piece)
                    num_bytes += len(piece)
                file.seek(0)
                if path.endswith(".npy"):
                    arrays[PurePosixPath(path).stem] = (path, _npy_loader(file))
                    continue
                archive = _open_npz(file, path, findings)
                if archive is None:
                    yield None
                    return
                stack.enter_context(archive)
                arrays |= {name: (path, _member_loader(archive, name)) for name in archive.files}
        except OSError as error:
            raise_if_stopped(error, root / label)
            findings.add("file.unreadable", label, found=error.strerror or str(error))
            yield None
            return
        source = SourceFile(path=label, num_files=len(files), num_bytes=num_bytes, sha256=sha256.hexdigest())
        yield ArrayFiles(label=label, source=source, arrays=arrays)


def _open_npz(file: Any, label: str, findings: Findings) -> Any:
    try:
        archive = np.load(file, allow_pickle=False)
    except Exception as error:  # noqa: BLE001 - a broken archive fails in a dozen ways
        _stop_for(error, label)
        findings.add("npz.unreadable", label, expected="an NPZ archive", found=first_line(error))
        return None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        findings.add("npz.unreadable", label, expected="an NPZ archive", found="a single array (name it .npy)")
        return None
    return archive


def _stop_for(error: Exception, label: str) -> None:
    """Raises ``StoppedError`` if the disk or the memory is at fault; a damaged header may ask for any memory."""
    if isinstance(error, OSError):
        raise_if_stopped(error, label)
    elif isinstance(error, MemoryError) and math.prod(getattr(error, "shape", ())) < _MOST_NUMBERS:
        raise stopped_by(error, label) from None


def _npy_loader(file: Any) -> Callable[[], Any]:
    def load() -> Any:
        # np.load would also open the file if it were an archive.
        return np.lib.format.read_array(file, allow_pickle=False)

    return load


def _member_loader(archive: Any, name: str) -> Callable[[], Any]:
    return lambda: archive[name]


def load_array(load: Callable[[], Any], label: str, name: str, findings: Findings) -> NDArray[Any] | None:
    """Calls ``load`` and returns its result if that is an array of numbers, else ``None``."""
    try:
        array = load()
    except Exception as error:  # noqa: BLE001 - a damaged member fails in a dozen ways
        _stop_for(error, label)
        is_object = str(error).startswith("Object arrays")
        found = "Python objects" if is_object else first_line(error)
        expected = "an array of numbers" if is_object else "a whole array"
        code = "npz.object_array" if is_object else "npz.unreadable"
        findings.add(code, label, column=name, expected=expected, found=found)
        return None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iufb":
        found = str(array.dtype) if isinstance(array, np.ndarray) else "no array"
        findings.add("npz.dtype", label, column=name, expected="numbers", found=found)
        return None
    return array
