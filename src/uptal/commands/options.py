"""Command lines over frozen dataclasses: every field an option, `--config` a file, unknown names errors with hints."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, set_parsing_settings  # pyright: ignore[reportPrivateImportUsage]

from uptal.errors import ConfigError
from uptal.recipes.settings import from_plain
from uptal.run import flatten, plain

if TYPE_CHECKING:  # the training loop brings torch, which most commands do without
    from uptal.train import Outcome

T = TypeVar("T")


set_parsing_settings(docstring_parse_attribute_docstrings=True)

_UNKNOWN = (
    r"[Uu]nrecognized arguments: -*([\w.\-]+)",
    r"Group '([\w.]+)' does not accept option '([\w.\-]+)'",
    r"Option '([\w.\-]+)' is not accepted",
)
"""How jsonargparse says that it does not know an option or a key of a file."""


class Parser(ArgumentParser):
    """An argument parser whose errors are one paragraph and name the option that was meant."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints the paragraph and leaves with exit code 2."""
        text = re.sub(r"<class '([\w.]+)'>", r"\1", " ".join(str(message).split())).rstrip(".")
        self.exit(2, f"{self.prog}: {text}.{self._meant(text)} `{self.prog} --help` lists the options.\n")

    def _meant(self, text: str) -> str:
        found = next((match for pattern in _UNKNOWN if (match := re.search(pattern, text))), None)
        if found is None:
            return ""
        options = {option.lstrip("-"): option for action in self._actions for option in action.option_strings}
        near = difflib.get_close_matches(".".join(found.groups()), options, 1)
        return f" Did you mean {options[near[0]]}?" if near else ""


def new_parser(prog: str, description: str) -> Parser:
    """An empty parser of one command."""
    return Parser(prog=f"uptal {prog}", description=description)


def read_changes(words: Sequence[str], option: str) -> dict[str, Any]:
    """`a.b=1` as names and values, values as in YAML.

    Raises:
        ConfigError: A word without `=`; `option` is what the user wrote it after.
    """
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"{option} expects NAME=VALUE, such as contrast.tau=0.1, found {word!r}.")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{option} {word}: the value is no YAML ({_line(error)}).") from error
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


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


def wanted_recipe(arguments: Sequence[str], localizer: str, known: Sequence[str] | Mapping[str, Any]) -> str | None:
    """The recipe that the arguments name: its values are the defaults of all other options.

    Raises:
        ConfigError: The localizer has no such recipe, or two are named.
    """
    named = [a.removeprefix("--recipe=") for a in arguments if a.startswith("--recipe=")]
    named += [b for a, b in itertools.pairwise(arguments) if a == "--recipe"]
    named += ["small"] * ("--small" in arguments)
    if len(set(named)) > 1:
        raise ConfigError(f"--recipe and --small name several recipes ({', '.join(named)}); choose one.")
    if named and named[0] not in known:
        raise ConfigError(f"{localizer} has no recipe {named[0]!r}. Recipes: {', '.join(known)}.")
    return named[0] if named else None


def describe(outcome: Outcome, run: str | Path) -> str:
    """How training ended, in a line."""
    if not outcome.finished:
        return f"{run}: stopped and saved at step {outcome.steps}; the same command goes on from there"
    if not outcome.new_steps and outcome.steps:
        return (
            f"{run}: finished before, at step {outcome.steps}; nothing was left to train. To go on, raise "
            "--optim.epochs and --optim.max_steps, or choose another --run."
        )
    return f"{run}: {outcome.steps} steps in {outcome.seconds:.0f} s"


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
        raise ConfigError(f"{path}: cannot be read as YAML ({_line(error)}).") from error
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
