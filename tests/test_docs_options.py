"""docs/options.md lists every option with its default, and the error for an unknown option lists all options."""

from __future__ import annotations

import inspect
import re
import tomllib
from dataclasses import MISSING
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

import click
import pytest

from vlapipe.cli import cli
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.findings import CODES
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.config import EPOCHS, TrainConfig, option_fields
from vlapipe.train.data.window_size import Window

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "options.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Cells of the table below a heading, without those of its head."""
    section = PAGE.partition(f"{heading}\n")[2].partition("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def is_default(cell: str, default: Any) -> bool:
    """Whether a cell says so: a value as TOML has it, or in words if the code chooses."""
    if default is None or default == {}:
        return bool(cell) and re.fullmatch(r"`[^`$]*`", cell) is None
    literal = f'"{default}"' if isinstance(default, str) else repr(default)
    return cell == f"`{literal.lower() if isinstance(default, bool) else literal}`"


def flags(command: str) -> dict[str, click.Option]:
    return {p.opts[0]: p for p in cli.commands[command].params if isinstance(p, click.Option)}


def test_every_option_of_training_has_its_row_with_default_and_flag() -> None:
    table = rows("## `vlapipe train`")
    of_field = {str(option.name).removesuffix("_mode"): flag for flag, option in flags("train").items()}
    assert of_field.pop("config") == "--config"
    fields = option_fields()
    assert [row[0] for row in table] == [f"`{name}`" for name in fields]
    for (name, (_, field)), (_, default, flag, meaning) in zip(fields.items(), table, strict=True):
        flag_of_field = of_field.pop(name, None)
        assert flag == (f"`{flag_of_field}`" if flag_of_field else "only in the file"), name
        made = field.default_factory() if field.default_factory is not MISSING else field.default
        assert default == "needed" if made is MISSING else is_default(default, made), f"{name}: {made!r}"
        assert meaning.endswith(".")
    keys = {f"`{field.name}`" for field in fields_of(Window)} - {"`action`"}
    of_sample = rows("### `[sample]`")
    assert {row[0] for row in of_sample} == keys
    for key, flag, meaning in of_sample:
        assert flag == f"`{of_field.pop(key.strip('`'), None)}`" or flag == "only in the file"
        assert meaning.endswith(".")
    assert of_field == {}


def test_help_of_training_says_the_defaults_that_are_used() -> None:
    said = {
        str(option.name): re.search(r"\bDefault (\d[^;]*?)[.;]?(?: |$)", option.help or "")
        for option in flags("train").values()
    }
    numbers = {name: float(number[1]) for name, number in said.items() if number}
    assert numbers == {name: option_fields()[name][1].default for name in numbers} | {"epochs": EPOCHS}
    assert {"batch_size", "learning_rate", "grad_accum"} <= numbers.keys()


def test_every_option_of_ingest_has_its_row_with_default() -> None:
    options = flags("ingest")
    table = rows("## `vlapipe ingest`")
    assert [row[0] for row in table] == [f"`{flag}`" for flag in options]
    for option, (_, default, meaning) in zip(options.values(), table, strict=True):
        made = option.to_info_dict()["default"]
        assert default in ("off", f"`{made}`") if option.is_flag or made is not None else is_default(default, None)
        assert (default == "off") == option.is_flag
        assert meaning.endswith(".")


def test_every_option_of_export_has_its_row_with_default() -> None:
    options = flags("export")
    table = rows("## `vlapipe export`")
    assert [row[0] for row in table] == [f"`{flag}`" for flag in options]
    for option, (_, default, meaning) in zip(options.values(), table, strict=True):
        made = option.to_info_dict()["default"]
        assert default == f"`{made}`" if made else is_default(default, None)
        assert meaning.endswith(".")


@pytest.mark.parametrize("command", ["verify", "repair", "edit", "merge", "log", "compact", "gc"])
def test_every_option_of_a_command_for_datasets_has_its_row_with_default(command: str) -> None:
    options = flags(command)
    table = rows(f"## `vlapipe {command}`")
    assert [row[0] for row in table] == [f"`{flag}`" for flag in options]
    for (flag, option), (_, default, meaning) in zip(options.items(), table, strict=True):
        made = option.to_info_dict()["default"]
        assert default.startswith("on" if flag == "--full" else "off") if option.is_flag else is_default(default, made)
        assert meaning.endswith(".")


def test_every_option_of_serve_has_its_row_with_default() -> None:
    options = flags("serve")
    table = rows("## `vlapipe serve`")
    assert [row[0] for row in table] == [f"`{flag}`" for flag in options]
    for option, (_, default, meaning) in zip(options.values(), table, strict=True):
        made = option.to_info_dict()["default"]
        assert default == ("off" if option.is_flag else f"`{made}`") if option.is_flag or made else default
        assert made or option.is_flag or re.fullmatch(r"`[^`$]*`", default) is None
        assert meaning.endswith(".")


def test_every_flag_of_bench_that_is_not_one_of_training_has_its_row() -> None:
    own = {flag: option for flag, option in flags("bench").items() if flag not in flags("train")}
    table = rows("## `vlapipe bench`")
    assert [row[0] for row in table] == [f"`{flag}`" for flag in own]
    for option, (_, default, meaning) in zip(own.values(), table, strict=True):
        assert default == ("off" if option.is_flag else f"`{option.to_info_dict()['default']}`")
        assert meaning.endswith(".")


def test_every_argument_of_the_built_in_policies_has_its_row() -> None:
    pytest.importorskip("torch")
    from vlapipe.train.policies.built_in import SIZES, Sizes
    from vlapipe.train.policies.registry import BUILT_IN, load_policy_class

    for policy in BUILT_IN:
        taken = list(inspect.signature(load_policy_class(policy)).parameters.values())[1:]
        wanted = [[f"`{one.name}`", _default_of(one)] for one in taken if one.kind is not inspect.Parameter.VAR_KEYWORD]
        assert [row[:2] for row in rows(f"### `policy_args` of `{policy}`")] == wanted
    sizes = rows("### Sizes of `regression` and `flow`")
    assert [row[0] for row in sizes] == [f"`{name}`" for name in Sizes.__annotations__]
    for name, default in [row[:2] for row in sizes]:
        if name.strip("`") in SIZES["small"]:
            assert default == ", ".join(str(SIZES[size][name.strip("`")]) for size in SIZES)


def _default_of(parameter: inspect.Parameter) -> str:
    default = parameter.default
    if default is inspect.Parameter.empty:
        return "needed"
    return "none" if default is None else f'`"{default}"`' if isinstance(default, str) else f"`{default}`"


def test_file_in_the_page_is_one_that_is_taken() -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    config = TrainConfig.of(out=Path("run"), **tomllib.loads(text))
    assert config.policy_args == {"dim": 256, "depth": 6}


def test_unknown_option_is_told_forty_options_how_many_more_there_are_and_the_page() -> None:
    with pytest.raises(UsageError) as caught:
        TrainConfig.from_sources(None, {"zzz": 1})
    for name in sorted(option_fields())[:40]:
        assert re.search(rf"\b{name}\b", str(caught.value)), name
    assert f" and {len(option_fields()) - 40} more; docs/options.md describes each" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_beyond_forty_are_counted_and_the_page_is_named() -> None:
    assert len(CODES) > 41
    told = did_you_mean("zzzzzz", CODES, page="docs/errors.md")
    assert told.startswith(f"known: {min(CODES)}, ")
    assert told.endswith(f" and {len(CODES) - 40} more; docs/errors.md describes each")
    assert did_you_mean("csv.emty", CODES, page="docs/errors.md") == "did you mean 'csv.empty'?"
    assert did_you_mean("zzzzzz", ["a", "b"]) == "known: a, b"
