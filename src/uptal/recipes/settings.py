"""Configurations from plain values (YAML, JSON, the command line), refusing what they do not know."""

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
        ConfigError: A key that the dataclass does not have, with the closest one that it has.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"Setting {where or 'at the top'} must be a mapping, found {values!r}.")
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, 1)
            raise ConfigError(
                f"There is no setting {where + str(key)!r}"
                + (f"; did you mean {where + near[0]!r}?" if near else f". Settings there: {', '.join(names)}.")
            )
    return cls(**{key: _value(hints[key], value, f"{where}{key}.") for key, value in values.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_plain(hint, value, where)
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [option for option in typing.get_args(hint) if option is not type(None)]
        return value if value is None or len(inner) != 1 else _value(inner[0], value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(value)
    return value
