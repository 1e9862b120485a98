"""Metadata as columns: names, one type a column, and limits that hold whatever the JSON holds."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from vlapipe.pipeline.shards.manifest.metadata_columns import chosen_names, flat_metadata, holds_json, metadata_columns


def table(*metadata: dict[str, Any]) -> pa.Table:
    columns = metadata_columns([flat_metadata(one)[0] for one in metadata], ["id", "robot/rows"])
    return pa.table([values for _, values in columns], schema=pa.schema([field for field, _ in columns]))


@pytest.mark.parametrize(
    ("values", "kind", "stored"),
    [
        ([True, None, False], "bool", [True, None, False]),
        ([1, 2**53 + 1, None], "int64", [1, 2**53 + 1, None]),
        ([1, 0.5, None], "double", [1.0, 0.5, None]),
        (["a", "é", None], "string", ["a", "é", None]),
        ([None, None, None], "string", [None, None, None]),
        ([0.5, float("nan"), float("inf")], "double", [0.5, None, None]),
        ([1, "a", True], "json", ["1", '"a"', "true"]),
        ([True, 1, None], "json", ["true", "1", None]),
        ([[1, "é"], {}, []], "json", ['[1, "é"]', "{}", "[]"]),
        ([2**70, 1, None], "json", [str(2**70), "1", None]),
        ([2**53 + 1, 0.5, None], "json", [str(2**53 + 1), "0.5", None]),
        (["half \ud800", "a", None], "string", ["half \\ud800", "a", None]),
        ([["half \ud800"], "a", None], "json", ['["half \\ud800"]', '"a"', None]),
    ],
)
def test_column_has_one_type_and_null_where_a_key_is_absent(values: list[Any], kind: str, stored: list[Any]) -> None:
    made = table(*({"key": value} for value in values), {})
    [field] = made.schema
    assert field.name == "metadata/key"
    assert holds_json(field) == (kind == "json")
    assert str(field.type) == ("string" if kind == "json" else kind)
    assert made["metadata/key"].to_pylist() == [*stored, None]


def test_nested_tables_have_dots_and_no_two_keys_share_a_name() -> None:
    metadata = {"a": {"b": 1, "c": {"d": 2}}, "a.b": 3, "x\ny": 4, "x\\ny": 5, "": 6, " ": 7, "n" * 300: 8}
    flat, not_kept = flat_metadata(metadata)
    assert not not_kept
    assert sorted(flat.values()) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (flat["a.b"], flat["a.c.d"]) == (3, 2)
    assert flat == flat_metadata(dict(reversed(metadata.items())))[0]
    made = table(metadata)
    assert made.num_columns == 8
    assert max(map(len, made.column_names)) < 250
    assert all(name.isprintable() for name in made.column_names)


def test_a_stream_called_metadata_keeps_its_columns() -> None:
    [(field, _)] = metadata_columns([{"rows": 1}], ["metadata/rows", "metadata/rows~"])
    assert field.name == "metadata/rows~~"


def test_long_deep_and_many_values_are_left_out_or_kept_as_json() -> None:
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"deeper": deep}
    metadata = {
        "operator": "ann",
        "note": "x" * 10_000_000,
        "matrix": [[0.1] * 100] * 1000,
        "frames": {f"{i:06d}": {"x": i} for i in range(50_000)},
        "joints": {f"joint_{i}": i for i in range(101)},
        "deep": deep,
        **{f"key_{i}": i for i in range(90)},
        **{f"table_{i}": {f"key_{j}": j for j in range(100)} for i in range(5)},
    }
    flat, not_kept = flat_metadata(metadata)
    assert (flat["operator"], flat["joints"]["joint_100"], flat["key_89"]) == ("ann", 100, 89)
    assert {"note", "matrix", "frames"} <= set(not_kept)
    assert len(flat) == 256
    assert len(json.dumps(flat)) < 20_000
    assert len(not_kept) == 3 + 90 + 500 + 2 + 1 - 256


def test_table_has_at_most_a_thousand_columns_the_commonest() -> None:
    rows = [{f"stamp_{i}_{j}": j for j in range(200)} | {"operator": "ann"} for i in range(20)]
    kept, beyond = chosen_names(rows)
    assert len(kept) == 1000
    assert "operator" in kept
    assert len(beyond) == 20 * 200 + 1 - 1000
    assert [f.name.removeprefix("metadata/") for f, _ in metadata_columns(rows, [])] == kept
    assert (kept, beyond) == chosen_names(rows[::-1])
