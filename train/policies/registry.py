"""Finds a policy class by name, built-in or the user's own, and builds the policy. Errors are one line with a cure."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Unpack, get_args, get_origin, get_type_hints

from torch import nn

from vlapipe.schemas.errors import UsageError, VlapipeError
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.data.batch_layout import SampleSpec
from vlapipe.train.data.named_object import attribute, import_named, one_line, place_of

__all__ = ["BUILT_IN", "build_policy", "load_policy_class"]

BUILT_IN = {
    "regression": "vlapipe.train.policies.regression:RegressionPolicy",
    "flow": "vlapipe.train.policies.flow:FlowPolicy",
    "vla": "vlapipe.train.policies.vla.policy:VLAPolicy",
}
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
    module = import_named(f"--policy {name}", module_name)
    found = attribute(module, class_name)
    if found is None:
        policies = [
            key for key, value in vars(module).items() if inspect.isclass(value) and issubclass(value, nn.Module)
        ]
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
    known = _argument_names(policy_class)
    for key in args:
        if known is not None and key not in known:
            cure = did_you_mean(key, known) if known else "it takes none"
            raise UsageError(f"{where}: unknown argument {key!r} in policy_args", cure)
    try:
        return policy_class(spec, **args)
    except VlapipeError:
        raise
    except Exception as error:
        cure = "check policy_args and the dataset"
        raise UsageError(f"{where} cannot be built: {one_line(error)}{place_of(error)}", cure) from error


def _argument_names(policy_class: type[nn.Module]) -> list[str] | None:
    """Returns the names of the keywords that the constructor takes after the spec; None if it takes any."""
    parameters = list(inspect.signature(policy_class).parameters.values())[1:]
    names = [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            table = get_type_hints(policy_class.__init__).get(parameter.name)  # Unpack[a TypedDict], or not
            if get_origin(table) is not Unpack:
                return None
            names += get_args(table)[0].__annotations__
    return names


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
