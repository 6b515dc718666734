"""Command lines over frozen dataclasses: every field an option, `--config` a file, unknown names an error with a hint."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from uptal.errors import ConfigError
from uptal.recipes.settings import from_plain
from uptal.run import flatten, plain

T = TypeVar("T")


class Parser(ArgumentParser):
    """An argument parser whose errors are one paragraph and name the option that was meant."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = " ".join(str(message).split())
        unknown = re.search(r"(?:[Uu]nrecognized arguments:|[Kk]ey|Group) '?-*([\w.\-]+)", text)
        hint = ""
        if unknown:
            near = difflib.get_close_matches(unknown.group(1), [a.dest for a in self._actions], 1)
            hint = f" Did you mean --{near[0]}?" if near else ""
        self.exit(2, f"{self.prog}: {text.rstrip('.')}.{hint} `{self.prog} --help` lists the options.\n")


def new_parser(prog: str, description: str) -> Parser:
    """An empty parser of one command."""
    return Parser(prog=f"uptal {prog}", description=description)


def add_settings(parser: Parser, defaults: Any) -> None:
    """Adds an option for every field of a configuration, with `--config FILE` and `--print_config`."""
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with settings; later options win")
    parser.add_class_arguments(type(defaults), as_group=True)
    known = {action.dest for action in parser._actions}
    values = {name: value for name, value in _groups(plain(defaults), known).items() if name in known}
    parser.set_defaults(values)


def take_settings(parsed: Namespace, cls: type[T]) -> T:
    """The configuration that the options describe."""
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    tree = parsed.as_dict()
    return from_plain(cls, {name: plain(tree[name]) for name in names})


def numbers(text: str) -> tuple[float, ...]:
    """`0.3,0.4` as numbers."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"Expected numbers separated by commas, found {text!r}.") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A stored configuration.

    Raises:
        ConfigError: The file cannot be read or is no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({error}).") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected settings as `name: value` lines, found {type(content).__name__}.")
    return content


def shard(text: str) -> tuple[int, int]:
    """`2/8` as (index from 0, count): the second of eight parts."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard expects i/n with 1 <= i <= n, such as 2/8, found {text!r}.")
    return int(match[1]) - 1, int(match[2])


def pick(values: Sequence[T], part: tuple[int, int]) -> list[T]:
    """Every n-th value, starting at the part's own."""
    return list(values[part[0] :: part[1]])


def _groups(tree: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """Dotted names down to where the parser has an option; dictionaries that are values stay whole."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and key not in known:
            found |= {f"{key}.{inner}": leaf for inner, leaf in flatten(value).items()}
        else:
            found[key] = value
    return found
