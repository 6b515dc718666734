"""Configurations from plain values (YAML, JSON, the command line), refusing what they do not know or cannot hold."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from uptal.errors import ConfigError

T = TypeVar("T")


def from_plain(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Builds a dataclass, nested ones included, from mappings and lists.

    Raises:
        ConfigError: A key that the dataclass does not have, with the closest one that it has; a value of another kind;
            a required key that is missing.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{_place(where)} must be a mapping, found {values!r}.")
    hints = typing.get_type_hints(cls)
    known = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            raise ConfigError(
                f"There is no setting {where + str(key)!r}"
                + (f"; did you mean {where + near[0]!r}?" if near else f". Settings there: {', '.join(known)}.")
            )
    missing = [name for name, field in known.items() if name not in values and _required(field)]
    if missing:
        raise ConfigError(f"{_place(where)} lacks {', '.join(missing)}.")
    return cls(**{key: _value(hints[key], value, f"{where}{key}.") for key, value in values.items()})


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _place(where: str) -> str:
    return f"Setting {where.rstrip('.')!r}" if where else "The configuration"


def _value(hint: Any, value: Any, where: str) -> Any:
    """The value as the type hint wants it.

    Raises:
        ConfigError: It cannot be that.
    """
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_plain(hint, value, where)
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _one_of(options, value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = options[:1] * len(value) if options[1:] == (...,) else options
        if len(inner) == len(value):
            return tuple(_value(kind, part, where) for kind, part in zip(inner, value, strict=True))
    elif origin is typing.Literal and value in options:
        return value
    elif origin is dict and isinstance(value, Mapping):
        return dict(value)
    elif hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML takes 1e-4 for text
        except ValueError:
            pass
    elif hint in (int, str, bool) and type(value) is hint:
        return value
    name = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    raise ConfigError(f"{_place(where)} must be {name}, found {value!r}.")


def _one_of(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    reasons = []
    for option in options:
        if option is not type(None):
            try:
                return _value(option, value, where)
            except ConfigError as error:
                reasons.append(str(error))
    raise ConfigError(" Or: ".join(reasons))
