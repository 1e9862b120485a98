"""Finds a policy class by name, built-in or the user's own, and builds the policy. Errors are one line with a cure."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from torch import nn

from vlapipe.schemas.errors import UsageError, VlapipeError
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.data.batch_layout import SampleSpec

__all__ = ["BUILT_IN", "build_policy", "load_policy_class"]

BUILT_IN = {"regression": "vlapipe.train.policies.regression:RegressionPolicy"}
_METHODS = ("loss", "act")


def load_policy_class(name: str) -> type[nn.Module]:
    """Returns the class for ``--policy``: a built-in name, or ``pkg.module:Class``, also from the current folder.

    Raises:
        UsageError: the policy does not exist, cannot be imported, or lacks a method.
    """
    module_name, colon, class_name = BUILT_IN.get(name, name).partition(":")
    if not colon or not module_name or not class_name:
        cure = f"your own is named pkg.module:Class; {did_you_mean(name, BUILT_IN)}"
        raise UsageError(f"--policy {name}: unknown policy", cure)
    found = _attribute(_import(name, module_name), class_name)
    if found is None:
        members = vars(_import(name, module_name)).items()
        policies = [key for key, value in members if inspect.isclass(value) and issubclass(value, nn.Module)]
        cure = did_you_mean(class_name, policies) if policies else f"define class {class_name} there"
        raise UsageError(f"--policy {name}: module {module_name} has no {class_name!r}", cure)
    return _checked(name, found)


def build_policy(
    policy: str | type[nn.Module], spec: SampleSpec, args: Mapping[str, Any] = MappingProxyType({})
) -> nn.Module:
    """Build a policy for samples with the shapes and statistics of ``spec``, which a loader or a dataset has.

    Args:
        policy: a class, or a name as for ``--policy``: ``regression``, or ``pkg.module:Class``.
        spec: shapes and statistics of the samples.
        args: keywords for the class, as in the table ``[policy_args]``.

    Raises:
        UsageError: there is no such policy, or its constructor does not accept an argument or raises an error.
    """
    policy_class = load_policy_class(policy) if isinstance(policy, str) else policy
    where = f"policy {policy_class.__name__}"
    parameters = inspect.signature(policy_class).parameters
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    known = list(parameters)[1:]
    for key in args:
        if key not in known and not anything:
            cure = did_you_mean(key, known) if known else "it takes none"
            raise UsageError(f"{where}: unknown argument {key!r} in policy_args", cure)
    try:
        return policy_class(spec, **args)
    except VlapipeError:
        raise
    except Exception as error:
        within = traceback.extract_tb(error.__traceback__)[1:]  # empty if the arguments do not fit the signature
        place = f" ({Path(within[-1].filename).name}:{within[-1].lineno})" if within else ""
        cure = "check policy_args and the dataset"
        raise UsageError(f"{where} cannot be built: {_one_line(error)}{place}", cure) from error


def _import(name: str, module_name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # error.name shows whether the policy's module is missing, or a module that the policy's module imports.
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            cure = "run from the folder that holds it, or put that folder on PYTHONPATH"
            raise UsageError(f"--policy {name}: no module {module_name!r}", cure) from None
        raise UsageError(
            f"--policy {name}: importing {module_name} fails: {_one_line(error)}",
            f"install {error.name}, or correct the import",
        ) from None
    except Exception as error:
        cure = f"python -c 'import {module_name}' shows where"
        raise UsageError(f"--policy {name}: importing {module_name} fails: {_one_line(error)}", cure) from error


def _attribute(module: ModuleType, dotted: str) -> Any:
    found: Any = module
    for part in dotted.split("."):
        found = getattr(found, part, None)
    return found


def _checked(name: str, found: Any) -> type[nn.Module]:
    if not inspect.isclass(found) or not issubclass(found, nn.Module):
        raise UsageError(f"--policy {name}: expected a subclass of torch.nn.Module, found {_kind(found)}")
    missing = [method for method in _METHODS if not callable(getattr(found, method, None))]
    abstract = [m for m in sorted(getattr(found, "__abstractmethods__", ())) if m not in missing]
    if missing or abstract:
        cure = "a policy has loss(batch) and act(observation); see vlapipe.train.policies.base"
        raise UsageError(f"--policy {name}: {found.__name__} has no {' and no '.join(missing + abstract)}", cure)
    return found


def _kind(found: Any) -> str:
    return f"class {found.__name__}" if inspect.isclass(found) else f"a {type(found).__name__}"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
