"""Finds a schema by name or by path. The built-in schemas are TOML files in ``robots/`` beside this file."""

from __future__ import annotations

from importlib import resources

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.paths import local_path
from vlapipe.schemas.schema import Schema
from vlapipe.schemas.toml_table import did_you_mean

__all__ = ["built_in_schemas", "load_schema"]


def built_in_schemas() -> dict[str, str]:
    """Returns the TOML text of each built-in schema by name, in alphabetical order."""
    folder = resources.files("vlapipe.schemas") / "robots"
    files = sorted(folder.iterdir(), key=lambda item: item.name)
    return {f.name.removesuffix(".toml"): f.read_text(encoding="utf-8") for f in files if f.name.endswith(".toml")}


def load_schema(name_or_path: str) -> Schema:
    """Returns the built-in schema with this name, or the schema in the TOML file at this path.

    Raises:
        UsageError: there is no such schema, or the schema has a mistake.
    """
    built_in = built_in_schemas()
    if name_or_path in built_in:
        return parse_schema(built_in[name_or_path], name_or_path)
    path = local_path(name_or_path, "schema")
    if path.is_file():
        try:
            return parse_schema(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"schema {path}: cannot be read: {error}") from None
    if path.suffix == ".toml":
        raise UsageError(f"schema {path}: no such file", "give the path of a TOML file or a built-in name")
    raise UsageError(f"no schema {name_or_path!r}", did_you_mean(name_or_path, built_in))
