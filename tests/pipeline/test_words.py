"""What was written down about episodes: columns, episodes left out before they are read, tasks and instructions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from tiny_lab import ingest_lab, make_lab, schema_text

import vlapipe
from vlapipe.cli import cli
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.findings import CODES
from vlapipe.schemas.parse import parse_schema

TRIES: dict[str, Any] = {
    f"{lab}/{result}/ep{i}": {"instruction": "push the ball", "success": result == "success", "operator": name}
    for lab in "AB"
    for result, i, name in (("failure", 0, "ann"), ("success", 0, "bob"), ("success", 1, "test"))
}
GOOD = ["A/success/ep0", "A/success/ep1", "B/success/ep0", "B/success/ep1"]


def ids(data: Path) -> list[str]:
    return [str(name) for name in vlapipe.open_dataset(data).column("id")]


def files(folder: Path) -> dict[str, bytes]:
    kept = [path for path in folder.rglob("*") if path.is_file() and path.name != ".ingested.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


@pytest.mark.parametrize(
    "chosen",
    [
        "where = { success = true }",
        "where = 'success'",
        """where = { success = true, operator = ["ann", "bob", "test"] }""",
        "where = 'not (success == false)'",
        "exclude = ['*/failure/*']",
        "exclude = ['failure']",
        "exclude = ['?/failure/']",
    ],
)
def test_failed_tries_are_left_out_before_they_are_read(tmp_path: Path, chosen: str) -> None:
    raw = make_lab(tmp_path / "raw", TRIES)
    (raw / "A/failure/ep0/robot.csv").write_text("nothing that can be read")
    report = ingest_lab(raw, tmp_path / "data", schema_text(episodes=chosen))
    assert ids(tmp_path / "data") == GOOD
    assert (report.num_found, report.num_episodes, report.rejects, report.findings) == (4, 4, [], [])
    assert list(report.left_out.values()) == [["A/failure/ep0", "B/failure/ep0"]]


def test_top_level_folder_is_excluded_by_the_same_pattern(tmp_path: Path) -> None:
    raw = make_lab(tmp_path / "raw", {"failure/ep0": None, "success/ep0": None, "other/failure_2/ep0": None})
    ingest_lab(raw, tmp_path / "data", schema_text(episodes="exclude = ['*/failure/*']"))
    assert ids(tmp_path / "data") == ["other/failure_2/ep0", "success/ep0"]
    with pytest.raises(UsageError, match="leaves out all 3 episodes, such as"):
        ingest_lab(raw, tmp_path / "none", schema_text(episodes="exclude = ['ep*']"))


def test_failed_tries_that_are_kept_are_told(tmp_path: Path) -> None:
    raw = make_lab(tmp_path / "raw", TRIES)
    report = ingest_lab(raw, tmp_path / "data", schema_text())
    [finding] = [finding for finding in report.findings if finding["code"] == "episode.failed_try"]
    assert (finding["severity"], finding["count"]) == ("warning", 2)
    assert "where = { success = true }" in finding["message"]


def test_where_of_the_command_is_said_kept_and_compared(tmp_path: Path) -> None:
    raw = make_lab(tmp_path / "raw", TRIES)
    schema = tmp_path / "schema.toml"
    schema.write_text(schema_text(episodes="where = 'success'"))
    command = ["ingest", "--dataset", str(raw), "--out", str(tmp_path / "data"), "--schema", str(schema)]
    where = 'operator != "test"'
    done = CliRunner().invoke(cli, [*command, "--where", where], catch_exceptions=False)
    assert done.exit_code == 0
    assert "left out 2 episodes by where in the schema success (such as A/failure/ep0)\n" in done.output
    assert 'left out 2 episodes by --where operator != "test" (such as A/success/ep1)\n' in done.output
    assert ids(tmp_path / "data") == ["A/success/ep0", "B/success/ep0"]
    assert vlapipe.open_dataset(tmp_path / "data").manifest.made_with["where"] == where
    again = CliRunner().invoke(cli, [*command, "--where", where], catch_exceptions=False)
    assert "nothing to do" in again.output
    (raw / "A/failure/ep0/robot.csv").write_text("t,q\n")  # of an episode that is not in the dataset
    assert "nothing to do" in CliRunner().invoke(cli, [*command, "--where", where], catch_exceptions=False).output
    with pytest.raises(UsageError, match='--where was operator != "test" and is not given; 2 episodes new'):
        CliRunner().invoke(cli, command, catch_exceptions=False)


def test_episode_that_turns_good_is_new_to_a_finished_dataset(tmp_path: Path) -> None:
    raw = make_lab(tmp_path / "raw", TRIES)
    ingest_lab(raw, tmp_path / "data", schema_text(), where="success")
    (raw / "A/failure/ep0/metadata.json").write_text('{"success": true}')
    ingest_lab(raw, tmp_path / "data", schema_text(), where="success")
    assert "A/failure/ep0" in ids(tmp_path / "data")


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("sucess", r"--where: no metadata key or column 'sucess' \(did you mean 'success'\?\)"),
        ("success == 7", r"--where success == 7: fits none of 6 episodes \(success is false, true\)"),
        ("num_frames > 3", "num_frames is known only after an episode was read"),
        ("operator", 'operator is not true or false but "ann"'),
    ],
)
def test_where_that_cannot_be_meant_is_refused(tmp_path: Path, where: str, told: str) -> None:
    raw = make_lab(tmp_path / "raw", TRIES)
    with pytest.raises(UsageError, match=told):
        ingest_lab(raw, tmp_path / "data", schema_text(), where=where)
    assert not (tmp_path / "data").exists()


def test_episode_whose_metadata_cannot_be_read_is_set_aside_not_left_out(tmp_path: Path) -> None:
    raw = make_lab(tmp_path / "raw", TRIES)
    (raw / "A/failure/ep0/metadata.json").write_text('{"success": tru')
    report = ingest_lab(raw, tmp_path / "data", schema_text(), where="success")
    assert [reject["episode"] for reject in report.rejects] == ["A/failure/ep0"]
    assert report.left_out == {"--where success": ["B/failure/ep0"]}


def test_where_speaks_of_the_parts_of_a_file(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = [f"{i / 10},{i},{name}" for i, name in enumerate("aaaaaabbbbbbcccccc")]
    (raw / "robot.csv").write_text("\n".join(["t,q,part", *rows, ""]))
    (raw / "labels.csv").write_text("id,good\nrobot/a,true\nrobot/b,true\nc,false\n")
    keys = 'per_file = true\nsplit_column = "part"\nmetadata_table = "labels.csv"'
    schema = schema_text(episodes=keys).replace('folders = ["ep*"]', "")
    where = 'id != "robot/b" and good'
    ingest_lab(raw, tmp_path / "data", schema, where=where)
    assert ids(tmp_path / "data") == ["robot/a"]
    assert ingest_lab(raw, tmp_path / "data", schema, where=where).was_finished
    (raw / "labels.csv").write_text("id,good\na,true\nb,true\nc,true\n")
    with pytest.raises(UsageError, match="metadata_table was"):
        ingest_lab(raw, tmp_path / "data", schema, where=where)


def test_same_input_gives_the_same_bytes_whatever_the_workers_and_the_order_of_keys(tmp_path: Path) -> None:
    told: dict[str, Any] = {
        f"t/ep{i}": {"n": i, "x": 0.5 if i % 2 else 1, "tags": ["b", i], "instruction": ["one", "two"]} | {f"k{i}": i}
        for i in range(6)
    }
    raw = make_lab(tmp_path / "raw", told)
    other = make_lab(tmp_path / "other" / "raw", {name: dict(reversed(one.items())) for name, one in told.items()})
    ingest_lab(raw, tmp_path / "one", schema_text(), workers=1, shard_bytes=1)
    ingest_lab(raw, tmp_path / "two", schema_text(), workers=2, shard_bytes=1)
    ingest_lab(other, tmp_path / "three", schema_text(), workers=2, shard_bytes=1)
    tables = [next(f for f in files(tmp_path / name) if f.startswith("episodes-")) for name in ("one", "two", "three")]
    assert files(tmp_path / "one") == files(tmp_path / "two")
    first, third = (pq.read_table(tmp_path / name / tables[i]) for i, name in ((0, "one"), (2, "three")))
    assert first.drop_columns(["sources"]).equals(third.drop_columns(["sources"]))
    assert first["metadata/k3"].to_pylist() == [None, None, None, 3, None, None]
    assert first["instructions"].to_pylist() == [["one", "two"]] * 6
    assert first["instruction"].to_pylist() == ["one"] * 6


def test_resumed_ingest_has_the_same_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = make_lab(tmp_path / "raw", {f"ep{i}": {"i": i, "list": [i, 0.1, "é"], "nan": float("nan")} for i in range(4)})
    ingest_lab(raw, tmp_path / "whole", schema_text(), shard_bytes=1, workers=1)
    from vlapipe.pipeline.change import first as module

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_generation", stop)
        with pytest.raises(KeyboardInterrupt):
            ingest_lab(raw, tmp_path / "data", schema_text(), shard_bytes=1, workers=1)
    report = ingest_lab(raw, tmp_path / "data", schema_text(), shard_bytes=1, workers=1)
    assert report.num_resumed_shards == 4
    assert files(tmp_path / "data") == files(tmp_path / "whole")


TABLES = {
    "labels.csv": 'episode,operator,trial,ok,code,instruction\nt/ep0,ann,1,true,007,pick\nep1,bob,2,,x,"put, gently"\n',
    "labels.jsonl": '{"id": "t/ep0", "operator": "ann", "trial": 1, "ok": true, "code": "007", "instruction": "pick"}\n'
    '\n{"id": "ep1", "operator": "bob", "trial": 2, "code": "x", "instruction": "put, gently"}\n',
    "labels.json": json.dumps(
        {
            "t/ep0": {"operator": "ann", "trial": 1, "ok": True, "code": "007", "instruction": "pick"},
            "t/ep1": {"operator": "bob", "trial": 2, "code": "x", "instruction": "put, gently"},
        }
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_file_beside_the_episodes_describes_them(tmp_path: Path, name: str) -> None:
    raw = make_lab(tmp_path / "raw", {"t/ep0": {"trial": 5}, "t/ep1": None, "t/ep2": None})
    (raw / name).write_text(TABLES[name])
    schema = schema_text(episodes=f'metadata_table = "{name}"\ntask = "{{metadata.operator}}"', instruction="")
    report = ingest_lab(raw, tmp_path / "data", schema, where="operator is not null")
    assert (report.rejects, report.findings[:0]) == ([], [])
    dataset = vlapipe.open_dataset(tmp_path / "data")
    assert dataset.column("instruction").tolist() == ["pick", "put, gently"]
    assert dataset.column("task").tolist() == ["ann", "bob"]
    assert dataset.episodes["metadata/trial"].to_pylist() == [5, 2]  # the episode's own file wins
    assert dataset.episodes["metadata/ok"].to_pylist() == [True, None]
    assert dataset.episodes["metadata/code"].to_pylist() == ["007", "x"]
    (raw / name).write_text(TABLES[name].replace("put, gently", "put, softly"))
    report = ingest_lab(raw, tmp_path / "data", schema, where="operator is not null")
    assert report.changes is not None
    assert report.changes["replaced"] == ["t/ep1"]
    assert vlapipe.open_dataset(tmp_path / "data").column("instruction").tolist() == ["pick", "put, softly"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id,x\nep9,1\n", "none of its 1 entries names an episode .*'ep9'"),
        ("x,y\nep0,1\n", "no key that names the episode: x, y"),
        ("id,x\nep0,1\nt/ep0,2\n", "has two entries for t/ep0"),
        ("id,x\nep1,1\n", "'ep1' fits 2 episodes, such as t/ep1"),
        ("id,x\nep0\n", "row 1: expected 2 cells as in the header, found 1"),
        ("\x00", "metadata_table labels.csv"),
    ],
)
def test_table_that_does_not_fit_the_episodes_is_refused(tmp_path: Path, text: str, told: str) -> None:
    raw = make_lab(tmp_path / "raw", {"t/ep0": None, "t/ep1": None, "u/ep1": None})
    with pytest.raises(UsageError, match=r"metadata_table labels\.csv: cannot be read"):
        ingest_lab(raw, tmp_path / "data", schema_text(episodes='metadata_table = "labels.csv"'))
    (raw / "labels.csv").write_text(text)
    with pytest.raises(UsageError, match=told):
        ingest_lab(raw, tmp_path / "data", schema_text(episodes='metadata_table = "labels.csv"'))


def test_task_and_instruction_come_from_metadata_by_template(tmp_path: Path) -> None:
    told: dict[str, Any] = {
        "lab/ep0": {"task": "pick {metadata.x}", "object": {"colour": "red", "number": 2}},
        "lab/ep1": {"object": {"colour": "blue", "number": 3}},
    }
    raw = make_lab(tmp_path / "raw", told)
    schema = schema_text(
        episodes='task = "{parent}: {metadata.task}"',
        instruction='template = "take the {metadata.object.colour} one, {metadata.object.number} times"',
    )
    report = ingest_lab(raw, tmp_path / "data", schema)
    dataset = vlapipe.open_dataset(tmp_path / "data")
    assert dataset.column("task").tolist() == ["lab: pick {metadata.x}"]
    assert dataset.column("instruction").tolist() == ["take the red one, 2 times"]
    [reject] = report.rejects
    assert [reason["code"] for reason in reject["reasons"]] == ["metadata.missing_key"]
    assert "expected a value as task, found none" in reject["reasons"][0]["message"]


@pytest.mark.parametrize(
    ("key", "metadata", "texts"),
    [
        ("lang.en", {"lang": {"en": " pick ", "de": "nimm"}}, ["pick"]),
        ("lang.en", {"lang.en": "pick"}, ["pick"]),
        ("a.b.c", {"a.b": {"c": "pick"}, "a": {"x": 1}}, ["pick"]),
        ("words", {"words": ["pick", " take", "", "pick"]}, ["pick", "take"]),
        ("words", {"words": []}, ["lab"]),
        ("words", {}, ["lab"]),
    ],
)
def test_instruction_comes_from_any_key_and_a_list_is_paraphrases(
    tmp_path: Path, key: str, metadata: dict[str, Any], texts: list[str]
) -> None:
    raw = make_lab(tmp_path / "raw", {"lab/ep0": metadata})
    report = ingest_lab(raw, tmp_path / "data", schema_text(instruction=f'metadata_key = "{key}"'))
    table = vlapipe.open_dataset(tmp_path / "data").episodes
    assert table["instruction"].to_pylist() == texts[:1]
    assert ("instructions" in table.column_names) == (len(texts) > 1)
    assert ("instruction.several" in report.summary()) == (len(texts) > 1)
    if len(texts) > 1:
        assert table["instructions"].to_pylist() == [texts]


@pytest.mark.parametrize(
    ("name", "text", "option", "texts"),
    [
        ("say.txt", "pick\n\n take it \n", "paraphrases = true", ["pick", "take it"]),
        ("say.txt", "pick\ntake it\n", "", ["pick\ntake it"]),
        ("say.json", '["pick", "take it"]', "", ["pick", "take it"]),
        ("say.json", '{"instruction": "pick"}', "", ["pick"]),
        ("say.json", '"pick"', "", ["pick"]),
    ],
)
def test_instruction_comes_from_any_file(tmp_path: Path, name: str, text: str, option: str, texts: list[str]) -> None:
    raw = make_lab(tmp_path / "raw", {"lab/ep0": None, "lab/ep1": None})
    (raw / "lab/ep0" / name).write_text(text)
    ingest_lab(raw, tmp_path / "data", schema_text(instruction=f'file = "say.*"\n{option}'))
    table = vlapipe.open_dataset(tmp_path / "data").episodes
    assert table["instruction"].to_pylist() == [texts[0], "lab"]
    if len(texts) > 1:
        assert table["instructions"].to_pylist() == [texts, ["lab"]]


@pytest.mark.parametrize(
    "told", ['{"instruction": ["pick", 3]}', '{"instruction": {"en": "pick"}}', '{"n": ' + "9" * 5000 + "}"]
)
def test_instruction_or_metadata_that_is_no_text_sets_the_episode_aside(tmp_path: Path, told: str) -> None:
    raw = make_lab(tmp_path / "raw", {"lab/ep0": None, "lab/ep1": None})
    (raw / "lab/ep0/metadata.json").write_text(told)
    report = ingest_lab(raw, tmp_path / "data", schema_text())
    [reject] = report.rejects
    assert [reason["code"] for reason in reject["reasons"]] == ["metadata.unreadable"]


@pytest.mark.slow
def test_json_of_ten_megabytes_leaves_the_table_small(tmp_path: Path) -> None:
    large = {
        "log": ["x" * 100] * 50_000,
        **{f"t{i}": {f"k{j}": {"x": "y" * 50} for j in range(90)} for i in range(900)},
    }
    assert len(json.dumps(large)) > 10_000_000
    raw = make_lab(tmp_path / "raw", {"ep0": large, "ep1": {"operator": "ann"}})
    report = ingest_lab(raw, tmp_path / "data", schema_text(), where="operator is null or operator == 'ann'")
    assert ids(tmp_path / "data") == ["ep0", "ep1"]
    assert report.summary()["metadata.not_kept"]["severity"] == "note"
    [table] = (tmp_path / "data").glob("episodes-*.parquet")
    assert table.stat().st_size < 300_000
    assert vlapipe.open_dataset(tmp_path / "data").episodes["metadata/operator"].to_pylist() == [None, "ann"]


def test_report_is_over_the_chosen_episodes(tmp_path: Path) -> None:
    raw = make_lab(tmp_path / "raw", TRIES)
    ingest_lab(raw, tmp_path / "data", schema_text())

    def inspect(*options: str) -> Any:
        done = CliRunner().invoke(cli, ["inspect", str(tmp_path / "data"), *options], catch_exceptions=False)
        assert done.exit_code == 0
        return json.loads(done.output) if "--json" in options else done.output

    whole, some = inspect("--json"), inspect("--json", "--episodes", "--where", 'success and operator != "test"')
    assert (whole["episodes"], whole["frames"], "listed" in whole) == (6, 66, False)
    assert (some["episodes"], some["of_episodes"], some["frames"]) == (2, 6, 22)
    assert some["streams"]["robot"]["rows"] == 24
    assert some["splits"] == {"train": {"episodes": 2, "frames": 22, "seconds": pytest.approx(2.2)}}
    assert whole["metadata"]["operator"]["values"] == {"ann": 2, "bob": 2, "test": 2}
    assert some["metadata"]["operator"]["values"] == {"bob": 2}
    assert [row["id"] for row in some["listed"]] == ["A/success/ep0", "B/success/ep0"]
    assert some["listed"][0]["metadata"] == TRIES["A/success/ep0"]
    printed = inspect("--episodes", "--where", "success")
    assert "4 of 6 episodes, 44 frames" in printed
    assert "B/success/ep1" in printed
    assert "failure" not in printed
    assert "operator: bob" in inspect("--episode", "A/success/ep0")
    with pytest.raises(UsageError, match="--episode is one episode"):
        inspect("--episode", "0", "--where", "success")


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"episodes": "where = { success = { a = [] , b = 1979-05-27 } }"}, "where: success.b: expected true, false"),
        ({"episodes": "where = 3"}, "where: expected text"),
        ({"episodes": 'task = "{metadata}"'}, r"it may use \{parent\}, .*\{metadata.KEY\}"),
        ({"episodes": 'task = "{metadata.task.__class__"'}, "cannot fill in"),
        ({"instruction": 'column = "robot/q"'}, "no text field 'robot/q' of 'robot' .declare one with dtype"),
    ],
)
def test_mistake_in_the_schema_is_told(section: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_schema(schema_text(**section), "test")  # type: ignore[arg-type]


def test_codes_of_words_are_listed() -> None:
    assert CODES["metadata.missing_key"].severity == "error"


def test_a_misspelt_key_of_the_instruction_is_told(tmp_path: Path) -> None:
    raw = make_lab(tmp_path / "raw", {"lab/ep0": {"instruction": "pick it"}, "lab/ep1": {"instruction": "put it"}})
    report = ingest_lab(raw, tmp_path / "data", schema_text(instruction='metadata_key = "instr"'))
    told = [finding for finding in report.findings if finding["code"] == "instruction.no_key"]
    assert len(told) == 2
    assert "expected text as instr, found none" in told[0]["message"]
    assert not report.rejects
