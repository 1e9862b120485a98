"""Pickles are read as data: arrays equal those of Python's own pickle, and nothing that a file names is run."""

from __future__ import annotations

import collections
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlapipe.pipeline.read.containers.container import open_container
from vlapipe.pipeline.read.containers.safe_pickle import PickleError, load_plain
from vlapipe.schemas.findings import Findings

VALUES: dict[str, Any] = {
    "matrix": np.arange(12.0).reshape(3, 4),
    "by_column": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
    "big_endian": np.arange(5, dtype=">f4"),
    "empty": np.zeros((0, 7)),
    "flags": np.array([True, False]),
    "texts": np.array(["open", "shut"]),
    "scalar": np.float32(3.25),
}
PLAIN = {"rows": [{"n": i, "f": i / 4} for i in range(3)], "mixed": [1, "x", b"y", None, True, 2**70, ("a", [2.5])]}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_and_arrays_are_those_of_pickle(protocol: int) -> None:
    found = load_plain(pickle.dumps({**VALUES, **PLAIN}, protocol=protocol))
    for name, value in VALUES.items():
        assert np.array_equal(found[name], value), name
        assert np.asarray(found[name]).dtype == np.asarray(value).dtype, name
    assert found["rows"] == PLAIN["rows"]
    assert found["mixed"] == [1, "x", b"y", None, True, 2**70, ["a", [2.5]]]


def test_arrays_of_older_numpy_and_of_python_2() -> None:
    data = pickle.dumps({"a": np.arange(3.0)}, protocol=2).replace(b"numpy._core.", b"numpy.core.")
    assert load_plain(data)["a"].tolist() == [0.0, 1.0, 2.0]
    py2 = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR(I1\n(I2\ntcnumpy\ndtype\n"
    py2 += b"(U\x02u2I0\nI1\ntR(I3\nU\x01<NNNI-1\nI-1\nI0\ntbI00\nU\x04\x01\x00\xff\x02tb."
    assert load_plain(py2).tolist() == [1, 0x02FF]


def test_an_object_array_becomes_a_list_and_an_ordered_dictionary_a_dictionary() -> None:
    value = {"o": np.array([1, None, "x"], dtype=object), "d": collections.OrderedDict(a=np.ones(2))}
    found = load_plain(pickle.dumps(value))
    assert found["o"] == [1, None, "x"]
    assert found["d"]["a"].tolist() == [1.0, 1.0]


class Hostile:
    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


class OfALab:
    pass


MARK = "hostile_pickle_was_here"


@pytest.mark.parametrize(
    "value",
    [
        Hostile(os.system, (f"touch {MARK}",)),
        Hostile(eval, (f"open({MARK!r}, 'w')",)),
        Hostile(os.mkdir, (MARK,)),
        Hostile(np.load, ("/etc/hostname",)),
        Hostile(np.zeros, ((1 << 40,),)),
        Hostile(bytearray, (1 << 40,)),
        Hostile(getattr, ("a", "join")),
        OfALab(),
        {"a": Path("/etc/hostname")},
        {1, 2},
        np.zeros(2, dtype=[("a", "f4")]),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_what_would_run_is_refused(value: Any, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PickleError):
        load_plain(pickle.dumps({"x": value}, protocol=protocol))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04",
        b".",
        b"not a pickle",
        b"\x80\x04]q\x00h\x01.",  # a value that was not kept
        b"\x80\x04r\xff\xff\xff\x7f.",  # nothing to keep, under a huge number
        b"\x80\x04Nr\xff\xff\xff\x7f0",  # kept under a huge number, and no end
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fx.",  # bytes longer than the file
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",
        b"\x80\x04}(]K\x01u.",  # a list as a key
        b"\x80\x04(K\x01e.",
        b"\x80\x04P0\n.",
        b"\x80\x04\x82\x01.",  # an extension's code
        b"\x80\x05\x97.",
        b"\x80\x04" + b"]" * 200 + b"a" * 199 + b".",
    ],
)
def test_damage_is_refused(data: bytes) -> None:
    if data.endswith(b"\x95\xff\xff\xff\xff\xff\xff\xff\x7fN."):
        assert load_plain(data) is None  # a frame's length is advice
        return
    with pytest.raises(PickleError):
        load_plain(data)


def test_an_array_that_claims_more_than_it_holds() -> None:
    honest = pickle.dumps(np.zeros(100, dtype=np.uint8), protocol=2)
    with pytest.raises(PickleError, match="for an array of shape"):
        load_plain(honest.replace(b"Kd\x85", b"K\xff\x85"))


def test_a_list_within_itself_and_a_million_times_the_same_end() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    assert load_plain(pickle.dumps(loop)) == [1, None]
    nested: Any = [0]
    for _ in range(40):
        nested = [nested, nested, nested, nested]
    found = load_plain(pickle.dumps(nested))  # 4 ** 40 numbers if they were copied
    assert found[0] is found[3]


def test_every_operation_is_known_or_refused() -> None:
    for operation in pickletools.opcodes:
        try:
            load_plain(b"\x80\x05" + operation.code.encode("latin-1") + bytes(12) + b".")
        except PickleError:
            continue


def test_rows_of_dictionaries_are_arrays_by_name(tmp_path: Path) -> None:
    rows = [{"actions": np.full(7, i, dtype=np.float64), "policy_type": "x", "info": {"t": i}} for i in range(4)]
    (tmp_path / "policy_out.pkl").write_bytes(pickle.dumps(rows))
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([np.arange(3.0)] * 5))
    findings = Findings()
    with open_container(tmp_path, ["policy_out.pkl"], findings) as found:
        assert found is not None
        assert set(found.arrays) == {"actions", "policy_type", "info/t"}
        assert np.array_equal(found.load_any("actions"), np.repeat(np.arange(4.0)[:, None], 7, axis=1))
        assert found.load_any("info/t").tolist() == [0, 1, 2, 3]
        assert found.load_any("policy_type").tolist() == ["x"] * 4
    with open_container(tmp_path, ["list.pkl"], findings) as found:
        assert found is not None
        assert found.load_any("list").shape == (5, 3)
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"x": Hostile(os.system, ("touch here",))}))
    with open_container(tmp_path, ["bad.pkl"], findings) as found:
        assert found is None
    (finding,) = findings.errors
    assert (finding.code, finding.file) == ("npz.pickle", "bad.pkl")
    assert "posix.system" in finding.found
    assert "at byte" in finding.found
