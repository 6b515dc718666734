"""The localizers that can be trained, by the names that the command line knows.

What each one's settings are, and what its recipes cost and promise, stands in the file of its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from uptal.encoders.foreign import read_foreign
from uptal.errors import CheckpointError, ConfigError
from uptal.recipes import actionformer, bmn, gtad
from uptal.recipes.head import Head, LocalizeConfig

HEADS: dict[str, Head[Any]] = {
    "bmn": bmn.HEAD,
    "gtad": gtad.HEAD,
    "actionformer": actionformer.HEAD,
}
"""Localizers by name; the first is the default."""

_OF_CLASS_SCORES = ("class_scores", "top_classes")

RECIPES: Mapping[str, Mapping[str, Callable[[], LocalizeConfig]]] = {name: head.recipes for name, head in HEADS.items()}
"""Recipes of each localizer by name; the first is the default."""


def recipe(localizer: str, name: str | None = None) -> LocalizeConfig:
    """The configuration of a localizer's recipe; its first one by default."""
    recipes = RECIPES[localizer]
    return recipes[name or next(iter(recipes))]()


def kind(cfg: LocalizeConfig) -> str:
    """The localizer that settings belong to."""
    return next(name for name, head in HEADS.items() if head.settings is type(cfg))


def settings_class(localizer: str) -> type[LocalizeConfig]:
    """The settings of a localizer."""
    return HEADS[localizer].settings


def fit_to(cfg: LocalizeConfig, width: int) -> LocalizeConfig:
    """The settings with the width of the features that the network is to take."""
    return HEADS[kind(cfg)].fit_to(cfg, width)


def build(cfg: LocalizeConfig, labels: Sequence[str]) -> nn.Module:
    """A new network; `labels` are the classes, for localizers that tell them apart themselves."""
    return HEADS[kind(cfg)].build(cfg, labels)


def from_official(cfg: LocalizeConfig, path: Path) -> nn.Module:
    """The network of these settings with the weights of a checkpoint of the localizer's public code.

    Raises:
        ConfigError: Such files cannot be read for this localizer. CheckpointError: The file does not fit.
    """
    read = HEADS[kind(cfg)].from_official
    if read is None:
        known = ", ".join(name for name, head in HEADS.items() if head.from_official)
        raise ConfigError(f"--init reads checkpoints of the public code of {known}, not of {kind(cfg)}.")
    stored = read_foreign(path).tensors
    try:
        return read(cfg, {name.removeprefix("state_dict."): tensor for name, tensor in stored.items()})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def names_classes(cfg: LocalizeConfig) -> bool:
    """Whether a network of these settings tells classes apart itself."""
    return HEADS[kind(cfg)].names_classes(cfg)


def check_classes(cfg: LocalizeConfig) -> None:
    """Refuses settings of class scores where the network tells classes apart itself and they would do nothing.

    Raises:
        ConfigError: Naming the setting.
    """
    idle = {field.name: field.default for field in fields(LocalizeConfig) if field.name in _OF_CLASS_SCORES}
    changed = [name for name, default in idle.items() if getattr(cfg, name) != default]
    if changed and names_classes(cfg):
        raise ConfigError(
            f"{changed[0]} is about class scores, and this {kind(cfg)} tells classes apart itself: leave "
            f"--{changed[0]} out, or have it find actions of any class with --{kind(cfg)}.class_agnostic true."
        )


def num_steps(cfg: LocalizeConfig) -> int:
    """Steps of a sample when videos are resampled or cut into windows."""
    return HEADS[kind(cfg)].num_steps(cfg)
