"""The language of ``where``: what an expression means, three-valued logic, and what is refused in one line."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_lab import ingest_lab, make_lab, schema_text

import vlapipe
from vlapipe.pipeline.shards.manifest.where import Where, masks
from vlapipe.schemas.errors import UsageError

VALUES: dict[str, Any] = {
    "success": True,
    "failed": False,
    "operator": "ann",
    "trial": 3,
    "mass": 0.5,
    "tags": ["grasp", "lift"],
    "arm.side": "left",
    "robot/rows": 100,
    "metadata/a b": 7,
    "gone": None,
}


@pytest.mark.parametrize(
    "text",
    [
        "success",
        "not failed",
        'success and operator != "test"',
        "failed or trial >= 3",
        "0 < mass <= 0.5 < trial",
        "trial == 3.0 and mass > -1",
        'operator in ["ann", "bob"]',
        "operator not in ('bob', 'test')",
        '"an" in operator',
        '"grasp" in tags and "rasp" not in tags',
        "arm.side == 'left'",
        "robot/rows > 50",
        'metadata["a b"] == 7',
        "gone is null and trial is not null",
        "gone is None",
        "success == true and failed == False",
        "success == 1",
        "true",
        "operator < 'b'",
        "trial in [1, 2, 3]",
    ],
)
def test_expression_is_true(text: str) -> None:
    assert Where.parse(text).holds(VALUES)
    assert not Where.parse(f"not ({text})").holds(VALUES)


@pytest.mark.parametrize(
    "text",
    ["gone", "gone == 3", "gone != 3", "gone in [3]", '"x" in gone', "gone < 3", "gone == gone", "operator == 3"],
)
def test_comparison_with_a_missing_or_another_kind_of_value_and_its_negation_are_both_not_true(text: str) -> None:
    assert not Where.parse(text).holds(VALUES)
    assert not Where.parse(f"not ({text})").holds(VALUES)
    assert Where.parse(f"({text}) or success").holds(VALUES)
    assert not Where.parse(f"({text}) and success").holds(VALUES)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "cannot be read"),
        ("success = true", "write == to compare"),
        ("success and", "cannot be read"),
        ("SELECT x", "cannot be read"),
        ("trial + 1 == 4", "expected a name, a number, a text, true or false: trial + 1"),
        ("open('x')", "expected a comparison: open('x')"),
        ("__import__('os').system('x') == 1", "expected a name"),
        ("[x for x in trial] == 1", "expected a name"),
        ("trial", None),
        ("3", "expected a comparison: 3"),
        ("operator", 'operator is not true or false but "ann" (write operator == "ann")'),
        ("gone == null", "write is null"),
        ("trial is 3", "is compares with null only"),
        ("(" * 4000 + "success" + ")" * 4000, "cannot be read"),
        ("x" * 10_001, "expected at most 10,000 characters"),
        ("f'{trial}' == 'x'", "expected a name"),
        ("success if trial else failed", "expected a comparison"),
    ],
)
def test_what_is_no_expression_is_refused_in_one_line(text: str, told: str | None) -> None:
    if told is None:
        assert Where.parse(text).holds(VALUES)
        return
    with pytest.raises(UsageError) as caught:
        Where.parse(text, "--where").holds(VALUES)
    assert str(caught.value).startswith("--where")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from([*"abx0 .\"'()[]<>=!&|/-,\n\x00é", *" and or not in is null true == != "]), max_size=40))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        Where.parse(text).holds(dict.fromkeys("abx", 1))


def test_names_mean_metadata_first_then_columns_and_unknown_ones_are_refused() -> None:
    where = Where.parse('task == "x" and metadata.task == "x" and split == "val" and metadata["id"] == 1')
    assert where.columns(["task", "id"], ["task", "id", "split"]) == {
        "task": "metadata/task",
        "metadata.task": "metadata/task",
        "split": "split",
        "metadata/id": "metadata/id",
    }
    with pytest.raises(UsageError, match=r"where: no metadata key or column 'sucess' \(did you mean 'success'\?\)"):
        Where.parse("sucess").columns(["success", "operator"], ["task"])


def test_stored_values_are_compared_as_those_of_the_recordings(tmp_path: Path) -> None:
    told: dict[str, Any] = {
        "ep0": {"success": True, "tags": ["a", "b"], "mixed": 3, "arm": {"side": "left"}},
        "ep1": {"success": False, "tags": ["ab"], "mixed": "3"},
        "ep2": {"mixed": "x"},
        "ep3": None,
    }
    raw = make_lab(tmp_path / "raw", told)
    ingest_lab(raw, tmp_path / "data", schema_text())
    dataset = vlapipe.open_dataset(tmp_path / "data")
    for text, wanted in {
        "success": [0],
        "not success": [1],
        "success is null": [2, 3],
        '"a" in tags': [0],
        '"ab" in tags': [1],
        "mixed == 3": [0],
        'mixed == "3"': [1],
        'arm.side == "left"': [0],
        "robot/rows == 12 and split == 'train'": [0, 1, 2, 3],
        "num_frames > 3 and id in ['ep2', 'ep3']": [2, 3],
    }.items():
        assert masks(Where.parse(text), [dataset])[0].nonzero()[0].tolist() == wanted, text
        if "num_frames" not in text and "robot" not in text:
            out = tmp_path / f"data{abs(hash(text))}"
            ingest_lab(raw, out, schema_text(), where=text)
            kept = vlapipe.open_dataset(out).column("id").tolist()
            assert kept == [f"ep{i}" for i in wanted], text
    with pytest.raises(UsageError, match=r"fits none of 4 episodes \(mixed is 3, \"3\", \"x\", \.\.\.\)"):
        masks(Where.parse("mixed > 5"), [dataset])
